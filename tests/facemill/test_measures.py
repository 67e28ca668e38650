"""Numbers with known answers."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from facemill.align import crop_points
from facemill.measures import edges_left, flicker, landmark_error, psnr_db, spread
from facemill.similarity import PSNR_CAP_DB

GREY = np.full((240, 320, 3), 90, np.uint8)


def test_landmark_error_is_relative_to_the_eyes() -> None:
    points = np.random.default_rng(1).uniform(0, 100, (68, 2))
    points[36], points[45] = (0, 0), (50, 0)
    assert landmark_error(points, points + np.array([3, 4])) == pytest.approx(10.0)
    assert landmark_error(points * 7, points * 7 + np.array([21, 28])) == pytest.approx(10.0)


def test_flicker_is_what_trembles_and_not_what_moves() -> None:
    ramp = [np.full((8, 8), 100 + 10 * at, np.uint8) for at in range(3)]
    tremble = [np.full((8, 8), level, np.uint8) for level in (100, 104, 100)]
    worse = [np.full((8, 8), level, np.uint8) for level in (100, 112, 100)]
    everywhere = np.ones((8, 8), bool)
    assert flicker(tremble, worse, everywhere) == pytest.approx(24 / 8)
    assert flicker(ramp, ramp, everywhere) == 1
    worse[1][4:] = 100
    assert flicker(tremble, worse, everywhere) == pytest.approx(12 / 8)
    worse[1][:4] = 104
    assert flicker(tremble, worse, np.arange(8)[:, None].repeat(8, 1) < 4) == 1


def test_psnr_of_a_known_difference() -> None:
    assert psnr_db(GREY, GREY + 10) == pytest.approx(20 * math.log10(25.5))
    assert psnr_db(GREY, GREY) == PSNR_CAP_DB


def test_psnr_looks_only_where_it_is_told() -> None:
    changed, where = GREY.copy(), np.zeros(GREY.shape[:2], bool)
    changed[:10] = 255
    where[10:] = True
    assert psnr_db(GREY, changed, where) == PSNR_CAP_DB
    assert psnr_db(GREY, changed, ~where) < 5


def test_psnr_of_two_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        psnr_db(GREY, GREY[:-1])


@pytest.mark.parametrize(
    ("count", "expected"), [(3, [1, 5, 8]), (1, [5]), (10, list(range(10))), (99, list(range(10))), (0, [])]
)
def test_spread_takes_the_middles(count: int, expected: list[int]) -> None:
    assert spread(list(range(10)), count) == expected


def test_edges_left_say_how_much_of_an_old_rim_is_seen(collins: np.ndarray) -> None:
    points = crop_points(collins.shape[0], 2.0)
    noise = np.random.default_rng(2).integers(0, 256, (2, *collins.shape), np.uint8)
    old, new = (cv2.GaussianBlur(one, (0, 0), 3) for one in noise)
    assert edges_left(old, old, points) == pytest.approx(1.0)
    assert edges_left(old, new, points) == pytest.approx(0.0, abs=0.1)
    half = cv2.addWeighted(old, 0.5, new, 0.5, 0)
    assert edges_left(old, half, points) == pytest.approx(0.5, abs=0.1)
    assert edges_left(np.zeros_like(old), new, points) == 0.0  # nothing to be seen, nothing left
