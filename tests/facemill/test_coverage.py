"""What faces show falls into bins that say in words what is missing."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.align import MEAN_FACE
from facemill.coverage import FEW, KINDS, LEAST, Coverage, lacks_sentence, spread_choice

EVEN = np.full(256, 128, np.uint8)


def mean_face(**moved: float) -> np.ndarray:
    """The mean face with its eyelids, lips or corners of the mouth moved, in parts of the distance of the eyes."""
    points = np.array(MEAN_FACE, np.float64)
    eyes = float(np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0)))
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        middle = (points[upper, 1] + points[lower, 1]) / 2
        openness = moved.get("lids", 1.0)
        points[upper, 1] = middle + (points[upper, 1] - middle) * openness
        points[lower, 1] = middle + (points[lower, 1] - middle) * openness
    for upper, lower in ((61, 67), (62, 66), (63, 65)):
        points[[upper, lower], 1] = points[[upper, lower], 1].mean()
        points[lower, 1] += moved.get("gap", 0.0) * eyes
    points[[48, 54], 1] -= moved.get("lift", 0.0) * eyes
    return points


def one(points: np.ndarray | None = None, yaw: float = 0.0, pitch: float = 0.0, look: np.ndarray = EVEN) -> Coverage:
    points = mean_face() if points is None else points
    return Coverage.of(points[None], np.array([yaw]), np.array([pitch]), look[None])


def bin_of(coverage: Coverage, kind: str) -> str:
    [at] = np.flatnonzero(coverage.counts[kind])
    return KINDS[kind][at]


def side(left: int, right: int) -> np.ndarray:
    return np.repeat(np.array([[left, right]], np.uint8), 8, axis=1).repeat(16, axis=0).ravel()


@pytest.mark.parametrize(
    ("face", "kind", "words"),
    [
        (one(), "yaw", "frontal"),
        (one(yaw=-50), "yaw", "turned to the left by more than 45°"),
        (one(yaw=44.9), "yaw", "turned to the right by 30 to 45°"),
        (one(), "pitch", "level"),
        (one(pitch=-16), "pitch", "looking down by 15 to 30°"),
        (one(pitch=31), "pitch", "looking up by more than 30°"),
        (one(), "expression", "neutral"),
        (one(mean_face(lids=0.2)), "expression", "with closed eyes"),
        (one(mean_face(gap=0.4)), "expression", "with an open mouth"),
        (one(mean_face(gap=0.2)), "expression", "with the mouth a little open"),
        (one(mean_face(lift=0.08)), "expression", "smiling"),
        (one(mean_face(gap=0.4, lids=0.2)), "expression", "with closed eyes"),
        (one(), "light", "in even light"),
        (one(look=EVEN * 0 + 230), "light", "too bright"),
        (one(look=EVEN * 0 + 20), "light", "dark"),
        (one(look=side(180, 100)), "light", "lit from the left"),
        (one(look=side(100, 180)), "light", "lit from the right"),
        (one(look=np.array([40, 200] * 128, np.uint8)), "light", "in hard light"),
    ],
)
def test_a_face_falls_into_the_bin_that_says_what_it_shows(face: Coverage, kind: str, words: str) -> None:
    assert bin_of(face, kind) == words


@pytest.mark.parametrize("squeezed", [0.6, 0.8])
def test_a_turned_or_nodding_face_opens_its_mouth_no_wider(squeezed: float) -> None:
    """Turning brings the eyes nearer in the picture, which is no wider mouth."""
    turned = mean_face(gap=0.12) * [squeezed, 1.0]
    assert bin_of(one(turned), "expression") == "neutral"


def test_a_face_of_any_size_shows_the_same() -> None:
    for size in (0.01, 7.0, 512.0):
        assert bin_of(one(mean_face(gap=0.2) * size), "expression") == "with the mouth a little open"


@given(
    st.lists(st.tuples(st.floats(-90, 90), st.floats(-90, 90), st.integers(0, 255)), max_size=30), st.integers(0, 30)
)
def test_every_face_is_in_one_bin_of_each_kind_and_parts_add_up(faces: list[tuple], cut: int) -> None:
    def of(some: list[tuple]) -> Coverage:
        points = np.tile(mean_face(), (len(some), 1, 1))
        yaw, pitch, grey = (np.array([face[at] for face in some], float) for at in range(3))
        return Coverage.of(points, yaw, pitch, np.tile(grey[:, None], 256).astype(np.uint8))

    whole = of(faces)
    assert whole.faces == len(faces)
    assert all(sum(counts) == len(faces) for counts in whole.counts.values())
    assert whole.pose.sum(axis=0).tolist() == list(whole.counts["yaw"])
    assert whole.pose.sum(axis=1).tolist() == list(whole.counts["pitch"])
    parts = of(faces[:cut]) + of(faces[cut:])
    assert parts.plain() == whole.plain() == json.loads(json.dumps(whole.plain()))
    assert 0 <= whole.readiness <= 100.001


def filled(count: int, **other: dict[str, int]) -> Coverage:
    counts = {kind: tuple(other.get(kind, {}).get(words, count) for words in bins) for kind, bins in KINDS.items()}
    pose = np.zeros((5, 7), np.int64)
    pose[2, 3] = sum(counts["yaw"])
    return Coverage(counts, pose)


def test_nothing_is_missing_where_all_bins_are_filled_evenly() -> None:
    full = filled(LEAST * 4)
    assert full.readiness == pytest.approx(100)
    assert full.sentence("anna") == f"anna: {LEAST * 28} faces, readiness 100 of 100; nothing is missing."
    assert Coverage.none().readiness == 0


def test_what_is_missing_is_said_in_words() -> None:
    smile, left = "smiling", "turned to the left by 15 to 30°"
    some = filled(10, expression={smile: 3}, yaw={left: 0}, light={"too bright": 0})
    assert some.gaps == [(left, 0), (smile, 3)]
    assert some.sentence("anna").endswith(f"missing, or fewer than {LEAST}, are faces {left}, {smile} (3).")
    few = filled(1)
    assert f"Fewer than {FEW} faces are too few to train with." in few.sentence("anna")
    assert " and 14 more" in few.sentence("anna")


def test_two_people_are_held_against_each_other() -> None:
    anna, bert = filled(100, expression={"smiling": 2}), filled(100)
    assert lacks_sentence("bert", bert, "anna", anna) == ""
    said = lacks_sentence("anna", anna, "bert", bert)
    assert said == "bert becomes anna, who is hardly ever smiling (14% of bert's)"
    rare = filled(1000, expression={"smiling": 6})
    assert anna.lacks_of(rare) == []
    assert anna.lacks_of(Coverage.none()) == []


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.just(4), st.integers(0, 2)), max_size=40),
    st.integers(1, 45),
)
def test_a_choice_holds_every_look_before_more_of_one(faces: list[tuple[int, ...]], budget: int) -> None:
    columns = np.array(faces, np.int64).reshape(-1, 4).T
    chosen = spread_choice(dict(zip(KINDS, columns, strict=True)), budget)
    assert chosen.sum() == min(budget, len(faces))
    there, taken = Counter(faces), Counter(face for face, own in zip(faces, chosen, strict=True) if own)
    most = max(taken.values(), default=0)
    assert all(taken[look] >= min(there[look], most - 1) for look in there)
    for look in there:  # of one look the better ones
        own = [took for face, took in zip(faces, chosen, strict=True) if face == look]
        assert own == sorted(own, reverse=True)
