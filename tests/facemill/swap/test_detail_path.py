"""The choice of exemplars over a track: the cheapest of all paths, faded, none where nothing fits, flat in memory."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.align import MEAN_FACE
from facemill.sources.sample import Pose, render
from facemill.swap.detail.path import KEPT, MOUTH, REGIONS, cheapest_path, choose, faded, usual_shape

COSTS = st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=6)


def landmarks_of(person: str, poses: list[Pose]) -> np.ndarray:
    return np.array([render(person, pose, (256, 256))[1] for pose in poses])


@given(COSTS, st.floats(0, 1))
def test_no_path_costs_less(costs: list[list[float]], price: float) -> None:
    def total(path: tuple[int, ...]) -> float:
        changes = sum(a != b for a, b in itertools.pairwise(path))
        return sum(costs[at][index] for at, index in enumerate(path)) + price * changes

    found = tuple(int(index) for index in cheapest_path(np.array(costs), price))
    least = min(total(path) for path in itertools.product(range(3), repeat=len(costs)))
    assert total(found) == pytest.approx(least, abs=1e-9)


@given(st.lists(st.integers(0, 3), min_size=0, max_size=40))
def test_shares_sum_to_one_and_are_whole_away_from_changes(path: list[int]) -> None:
    index, weight = faded(np.array(path, np.int64))
    np.testing.assert_allclose(weight.sum(axis=1), np.ones(len(path)), atol=1e-6)
    for at in range(len(path)):
        if len(set(path[max(0, at - 5) : at + 6])) == 1:
            assert (index[at, 0], weight[at, 0]) == (path[at], 1.0)


def test_a_change_is_faded_over_some_frames() -> None:
    index, weight = faded(np.repeat([4, 9], 12))
    share = [float(weight[at][index[at] == 9].sum()) for at in range(24)]
    assert share[:7] == [0.0] * 7
    assert share[18:] == [1.0] * 6
    assert all(before < after for before, after in itertools.pairwise(share[7:17]))


def test_the_mouth_is_that_of_a_picture_with_such_a_mouth_whoever_it_is() -> None:
    """Hopper opens her mouth and closes it; what is taken of Collins opens and closes with it, a few times at most."""
    opens = np.concatenate([np.zeros(10), np.linspace(0, 0.8, 10), np.full(10, 0.8), np.linspace(0.8, 0, 10)])
    frames = landmarks_of("hopper", [Pose(mouth_open=value) for value in opens])
    shown = [0.0, 0.2, 0.4, 0.6, 0.8]
    exemplars = landmarks_of("collins", [Pose(mouth_open=value) for value in shown])
    neutral = [usual_shape(landmarks_of(who, [Pose(mouth_open=v) for v in shown])) for who in ("hopper", "collins")]
    choice = choose(frames, neutral[0], exemplars, neutral[1])
    mouth = REGIONS.index(MOUTH)
    taken = np.array(shown)[choice.index[:, mouth, 0]]
    assert np.corrcoef(taken, opens)[0, 1] > 0.9
    assert 2 <= np.count_nonzero(np.diff(choice.index[:, mouth, 0])) <= 10
    assert (choice.gain[:, mouth] > 0.9).all()


def test_where_nothing_fits_there_is_no_detail() -> None:
    exemplars = landmarks_of("collins", [Pose(), Pose(smile=0.5)])
    frames = landmarks_of("collins", [Pose()] * 12)
    frames[6:, 48:] += [0, 0.8 * np.ptp(frames[0, :, 0])]  # a mouth such as nobody shows
    choice = choose(frames, usual_shape(exemplars), exemplars)
    assert (choice.gain[0] > 0.9).all()
    assert choice.gain[-1, REGIONS.index(MOUTH)] == 0


def test_one_exemplar_and_one_frame_are_enough_and_none_of_a_track_is_none() -> None:
    exemplars = landmarks_of("collins", [Pose()])
    choice = choose(exemplars, usual_shape(exemplars), exemplars)
    assert (choice.index == 0).all()
    assert (choice.weight[..., 0] == 1).all()
    empty = choose(np.zeros((0, 68, 2)), usual_shape(exemplars), exemplars)
    assert empty.index.shape == (0, len(REGIONS), KEPT)


def test_a_long_film_takes_little_memory() -> None:
    rng = np.random.default_rng(0)
    exemplars = 200 * (MEAN_FACE + rng.normal(0, 0.02, (128, 68, 2)))
    few = (200 * (MEAN_FACE + rng.normal(0, 0.02, (500, 68, 2)))).astype(np.float32)
    peaks = []
    for times in (5, 10):
        frames = np.tile(few, (times, 1, 1))
        tracemalloc.start()
        choose(frames, MEAN_FACE, exemplars)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 2500 < 300  # bytes a frame; its costs alone have 1,024
