"""Which faces define an identity: one of each picture, those that agree, and a question where only a person can say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.embeddings import SAME_PERSON, identity_distance
from facemill.reasons import Reason
from facemill.references import AGREE, ReferenceFace, choose, distances_to_others, named_face


def face(name: str, at: float = 0.0, *, picture: str = "", px: float = 100.0, x: float = 0.0, **more: Any) -> Any:
    """A face whose embedding lies `at` on one axis, and a little apart from all others on an axis of its own."""
    embedding = np.zeros(128)
    embedding[0], embedding[1 + sum(map(ord, name)) % 127] = at, 0.1
    box = np.array([x, 0, x + px, px])
    more = {"score": 1.0} | more
    return ReferenceFace(name, picture or name, f"{picture or name}.jpg", box, embedding=embedding, **more)


def test_each_picture_gives_its_clearly_largest_face() -> None:
    verdict = choose([face("a", picture="p"), face("b", 5.0, picture="p", px=60.0)])
    assert (list(verdict.used), verdict.refused, verdict.question) == (["a"], {}, "")


def test_a_box_that_is_believed_much_less_than_another_is_none_however_large() -> None:
    """A mission patch on a suit: HOG gives it 0.12 and 103 px, the face above it 0.83 and 87 px."""
    verdict = choose(
        [face("patch", 5.0, picture="p", px=103.0, score=0.12), face("face", picture="p", px=87.0, score=0.83)]
    )
    assert list(verdict.used) == ["face"]


def test_a_single_box_is_taken_whatever_its_score_is() -> None:
    for score in (-0.2, 0.0, 0.01):
        assert list(choose([face("only", score=score)]).used) == ["only"]


@pytest.mark.parametrize("rights", [2, 3, 9])
def test_one_wrong_reference_among_more_is_refused_with_its_distance(rights: int) -> None:
    verdict = choose([*(face(f"right{n}", 0.1 * (n % 3)) for n in range(rights)), face("wrong", 1.0)])
    assert sorted(verdict.used) == [f"right{n}" for n in range(rights)]
    [(name, (reason, detail))] = verdict.refused.items()
    assert (name, reason) == ("wrong", Reason.DOUBTFUL_REFERENCE)
    assert f"limit {AGREE:g}" in detail


@pytest.mark.parametrize("places", [(0.0, 1.0), (0.0, 0.1, 1.0, 1.1), (0.0, 1.0, 2.0)])
def test_references_without_a_majority_are_a_question_that_names_them(places: tuple[float, ...]) -> None:
    verdict = choose([face(f"r{n}", at) for n, at in enumerate(places)])
    assert not verdict.used
    assert "r0.jpg" in verdict.question
    assert "different people" in verdict.question


def test_what_a_person_has_named_settles_it_and_is_never_refused() -> None:
    verdict = choose([face("old", 1.0, stated="1"), face("a"), face("b")])
    assert "old" in verdict.used
    assert list(choose([face("mine", 1.0, stated="1"), face("other")]).used) == ["mine"]


def test_the_other_references_say_which_face_of_a_group_is_meant() -> None:
    group = [face("left", 3.0, picture="g"), face("right", 0.2, picture="g", x=200.0)]
    assert sorted(choose([face("a"), *group]).used) == ["a", "right"]
    strangers = [face("left", 3.0, picture="g"), face("right", 4.0, picture="g", x=200.0)]
    verdict = choose([face("a"), *strangers])
    assert (list(verdict.used), set(verdict.refused)) == (["a"], {"left", "right"})


def test_a_group_alone_asks_and_lists_the_faces_from_the_left() -> None:
    verdict = choose([face("right", picture="g", x=200.0), face("left", 3.0, picture="g")])
    assert "g.jpg shows 2 faces" in verdict.question
    assert verdict.question.index("[50, 50]") < verdict.question.index("[250, 50]")
    assert {reason for reason, _ in verdict.refused.values()} == {Reason.WHICH_FACE}


def test_a_face_is_named_by_its_number_from_the_left_or_a_place_within_it() -> None:
    faces = [face("c", x=400.0), face("a"), face("b", x=200.0)]
    first, second, third = faces[1], faces[2], faces[0]
    assert [named_face(faces, str(number)) for number in (1, 2, 3)] == [first, second, third]
    assert named_face(faces, "210,90") is second
    assert named_face(faces, "4") is None
    assert named_face(faces, "150,50") is None


def test_a_face_that_is_not_there_is_a_question_that_lists_those_that_are() -> None:
    verdict = choose([face("a", picture="p", stated="3"), face("b", picture="p", x=200.0, stated="3")])
    assert not verdict.used
    assert "p.jpg has no `face: 3`" in verdict.question
    assert "[250, 50]" in verdict.question


@given(
    st.lists(st.sampled_from([0.1, 0.3, 0.6, 1.0]), min_size=2, max_size=6).filter(lambda scores: 1.0 in scores),
    st.integers(1, 7),
)
def test_a_number_names_the_face_that_the_question_lists_there_and_a_place_any_box(
    scores: list[float], number: int
) -> None:
    faces = [face(f"f{n}", 2.0 * n, picture="p", x=200.0 * n, score=score) for n, score in enumerate(scores)]
    listed = [one for one in faces if one.score >= 0.5]
    asked = choose(faces).question
    stated = choose([replace(one, stated=str(number)) for one in faces])
    if number <= len(listed):
        assert list(stated.used) == [listed[number - 1].face_id]
    for told in (asked, stated.question):
        assert told.count(" px, score ") in (0, len(listed))
    assert bool(asked) == (len(listed) > 1)
    assert bool(stated.question) == (number > len(listed))
    for n, one in enumerate(faces):
        assert list(choose([replace(each, stated=f"{200 * n + 50},50") for each in faces]).used) == [one.face_id]


@given(st.lists(st.floats(0, 2), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_verdict_does_not_depend_on_the_order(places: list[float], chance: Any) -> None:
    faces = [face(f"f{n}", at) for n, at in enumerate(places)]
    shuffled = list(faces)
    chance.shuffle(shuffled)
    first, second = choose(faces), choose(shuffled)
    assert (list(first.used), first.refused, first.question) == (list(second.used), second.refused, second.question)
    assert first.used or first.question
    assert not set(first.used) & set(first.refused)


@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_many_references_of_one_person_move_the_limit_no_more_than_few(count: int, seed: int) -> None:
    """With the nearest of K references a stranger comes the nearer the more there are."""
    chance = np.random.default_rng(seed)
    references = chance.normal(0, 0.3 / np.sqrt(128), (count, 128))
    own, stranger = chance.normal(0, 0.3 / np.sqrt(128), 128), chance.normal(0, 0.3 / np.sqrt(128), 128)
    stranger[0] += 0.8
    assert identity_distance(references, own) < SAME_PERSON < identity_distance(references, stranger)


def test_distances_are_given_for_any_number_of_faces() -> None:
    references, faces = np.zeros((3, 128)), np.zeros((2, 5, 128))
    faces[..., 0] = 2.0
    assert identity_distance(references, faces).shape == (2, 5)
    assert identity_distance(references, faces[0, 0]) == pytest.approx(2.0)
    assert distances_to_others(np.zeros((1, 128))).tolist() == [0.0]
