"""Who a track is, by all its looks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from facemill.track.naming import name_tracks

ANNA, BERT, STRANGER = np.eye(128)[:3]
KNOWN = {"anna": ANNA[None], "bert": np.stack([BERT, 0.9 * BERT])}


def blurred(person: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * person + share * STRANGER


@given(bad=st.integers(0, 4), good=st.integers(5, 9))
def test_a_few_bad_looks_change_nothing(bad: int, good: int) -> None:
    looks = np.stack([*[blurred(ANNA, 0.1)] * good, *[STRANGER] * bad])
    assert name_tracks({7: looks}, KNOWN, 0.55) == {7: "anna"}


def test_whoever_is_nearer_it_is_and_several_tracks_may_be_one_person() -> None:
    between = 0.45 * ANNA + 0.55 * BERT
    named = name_tracks({0: ANNA[None], 1: between[None], 2: ANNA[None]}, KNOWN, 0.9)
    assert named == {0: "anna", 1: "bert", 2: "anna"}


def test_strangers_and_tracks_without_a_look_are_nobody() -> None:
    looks = {0: STRANGER[None], 1: np.zeros((0, 128)), 2: ANNA[None]}
    assert name_tracks(looks, KNOWN, 0.55) == {0: None, 1: None, 2: "anna"}
    assert name_tracks(looks, {}, 0.55) == {0: None, 1: None, 2: None}
