"""Each reason says in one place what it means, and is the same wherever it comes from."""

from __future__ import annotations

import pickle

import pytest

from facemill.reasons import Reason, State


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_has_a_state_that_is_not_ok_and_a_sentence(reason: Reason) -> None:
    assert reason.state in (State.REJECTED, State.FAILED)
    assert len(reason.sentence.split()) > 3


def test_no_two_reasons_mean_the_same() -> None:
    assert len({reason.sentence for reason in Reason}) == len(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_it_is_found_by_its_code_and_comes_back_from_a_worker(reason: Reason) -> None:
    assert Reason(str(reason)) is reason
    assert pickle.loads(pickle.dumps(reason)) is reason


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(ValueError, match="out_of_paper"):
        Reason("out_of_paper")
