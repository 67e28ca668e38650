"""Training windows: boxes stay on their faces, faces get the sizes that are asked for, chance comes from the seed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facemill.detector_training.augment import (
    FILL_RGB,
    PLAIN,
    Sampling,
    Window,
    anchor_window,
    mirrored,
    relight,
    render,
    sample,
    ssd_window,
)

STILL = Sampling(light=0, least_side_px=8)


def scene(height: int = 180, width: int = 260, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A grey picture with three red rectangles, and their boxes."""
    rng = np.random.default_rng(seed)
    picture = np.full((height, width, 3), 90, np.uint8)
    boxes = []
    for column in range(3):
        side = rng.integers(20, 60)
        left, top = column * width // 3 + rng.integers(0, 20), rng.integers(0, height - side)
        picture[top : top + side, left : left + side] = (250, 0, 0)
        boxes.append([left, top, left + side, top + side])
    return picture, np.array(boxes, np.float32)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=60)
def test_boxes_lie_on_their_faces_after_any_sampling(seed: int) -> None:
    picture, boxes = scene(seed=seed)
    made = sample(picture, boxes, np.zeros(3, bool), 128, STILL, np.random.default_rng(seed))
    red = (made.picture[:, :, 0] > 170) & (made.picture[:, :, 1] < 60)
    for left, top, right, bottom in made.boxes_xyxy:
        inner = red[int(np.ceil(top)) + 1 : int(bottom) - 1, int(np.ceil(left)) + 1 : int(right) - 1]
        assert inner.mean() > 0.98
    grown = cv2.dilate(red.astype(np.uint8), np.ones((3, 3)))  # what is red and in no box is a face cut by the edge
    for left, top, right, bottom in made.boxes_xyxy.astype(int):
        grown[max(top - 3, 0) : bottom + 4, max(left - 3, 0) : right + 4] = 0
    inside = grown[8:-8, 8:-8]
    number, _, stats, _ = cv2.connectedComponentsWithStats(inside)
    assert all(
        stats[at, 0] == 0
        or stats[at, 1] == 0
        or stats[at, 0] + stats[at, 2] == 112
        or stats[at, 1] + stats[at, 3] == 112
        for at in range(1, number)
    )


def test_the_same_generator_gives_the_same_sample_and_another_seed_another() -> None:
    picture, boxes = scene()
    first, again, other = (
        sample(picture, boxes, np.zeros(3, bool), 96, Sampling(), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.picture, again.picture)
    assert np.array_equal(first.boxes_xyxy, again.boxes_xyxy)
    assert not np.array_equal(first.picture, other.picture)


def test_nothing_random_letterboxes_the_whole_picture() -> None:
    picture, boxes = scene(height=200, width=100)
    made = sample(picture, boxes, np.zeros(3, bool), 100, PLAIN, np.random.default_rng(0))
    assert len(made.boxes_xyxy) == 3
    assert np.ptp(made.boxes_xyxy[:, 1] - boxes[:, 1] / 2) < 0.01
    outside = (made.picture == FILL_RGB).all(axis=(0, 2))
    assert outside.sum() == pytest.approx(50, abs=1)


def test_anchor_sampling_makes_faces_of_anchor_sizes_at_most_one_step_up() -> None:
    rng, chosen = np.random.default_rng(0), Sampling(anchor_jitter=0)
    face = np.array([300, 200, 340, 240], np.float32)  # 40 px: nearest anchor 32, so 16, 32 or 64
    windows = [anchor_window((800, 600), face, 320, chosen, rng) for _ in range(200)]
    sizes = [40 * 320 / window.side for window in windows]
    assert {round(size) for size in sizes} == {16, 32, 64}
    for window in windows:
        assert window.left <= 300 <= 340 <= window.left + window.side
        assert window.top <= 200 <= 240 <= window.top + window.side


def test_anchor_windows_stay_in_the_picture_where_they_fit_and_hold_it_where_not() -> None:
    rng = np.random.default_rng(1)
    face = np.array([10, 10, 50, 60], np.float32)
    for _ in range(100):
        window = anchor_window((200, 150), face, 160, Sampling(), rng)
        for first, length in ((window.left, 200), (window.top, 150)):
            low, high = sorted((0, length - window.side))
            assert low - 1 <= first <= high + 1


def test_a_crop_overlaps_some_face_as_much_as_it_must_and_holds_a_centre() -> None:
    boxes = np.array([[100, 50, 220, 170]], np.float32)
    only = Sampling(crop=1, expand=0, crop_overlaps=(0.5,))
    rng = np.random.default_rng(2)
    for _ in range(50):
        window = ssd_window((260, 180), boxes, only, rng)
        low = np.maximum([window.left, window.top], boxes[0, :2])
        high = np.minimum([window.left + window.side, window.top + window.side], boxes[0, 2:])
        shared = np.prod(high - low)
        assert shared / (window.side**2 + 120**2 - shared) > 0.48


def test_room_around_the_picture_is_the_mean_colour() -> None:
    out, scale, shift = render(np.zeros((10, 10, 3), np.uint8), Window(-10, -10, 30), 60)
    assert out[0, 0].tolist() == list(FILL_RGB)
    assert out[30, 30].tolist() == [0, 0, 0]
    assert (scale.tolist(), shift.tolist()) == ([2, 2], [20, 20])
    beyond, _, _ = render(np.zeros((10, 10, 3), np.uint8), Window(50, 50, 30), 60)
    assert (beyond == FILL_RGB).all()


def test_ignored_and_tiny_faces_are_painted_over_but_not_their_neighbours() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[10, 10, 40, 40], [30, 10, 60, 40], [80, 80, 84, 84]], np.float32)
    made = sample(picture, boxes, np.array([False, True, False]), 100, PLAIN, np.random.default_rng(0))
    assert made.boxes_xyxy.tolist() == [[10, 10, 40, 40]]
    assert (made.picture[20, 50] == FILL_RGB).all()
    assert (made.picture[82, 82] == FILL_RGB).all()
    assert (made.picture[10:40, 10:40] == 0).all()


def test_mirroring_twice_is_nothing() -> None:
    boxes = np.array([[1, 2, 5, 9]], np.float32)
    assert mirrored(boxes, 20).tolist() == [[15, 2, 19, 9]]
    assert np.array_equal(mirrored(mirrored(boxes, 20), 20), boxes)


def test_light_changes_stay_within_their_ranges() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    rng = np.random.default_rng(3)
    means = [relight(grey, Sampling(light=1), rng).mean() for _ in range(200)]
    assert 100 * 0.5 - 33 <= min(means) < 70
    assert 130 < max(means) <= (100 + 32) * 1.5 + 1
    assert np.array_equal(relight(grey, Sampling(light=0), rng), grey)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (3000, 2, 3)])
def test_pictures_of_any_shape_pass(shape: tuple[int, int, int]) -> None:
    boxes = np.array([[0, 0, shape[1], shape[0]]], np.float32)
    for seed in range(30):
        made = sample(np.zeros(shape, np.uint8), boxes, np.zeros(1, bool), 64, Sampling(), np.random.default_rng(seed))
        assert made.picture.shape == (64, 64, 3)
        assert ((made.boxes_xyxy >= 0) & (made.boxes_xyxy <= 64)).all()
