"""Letterboxes hold every picture once, within their bounds; area means are OpenCV's."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facemill.detect._area import DevicePixels, HostPixels
from facemill.detect.letterbox import Letterbox, buckets

size = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@given(st.lists(size, max_size=40), st.integers(1, 4_000_000))
def test_every_picture_lies_in_one_letterbox_of_bounded_size(sizes, max_pixels):
    found = list(buckets(sizes, max_pixels=max_pixels))
    assert sorted(row for letterbox in found for row in letterbox.rows) == list(range(len(sizes)))
    for letterbox in found:
        assert letterbox.sizes_hw == tuple(sizes[row] for row in letterbox.rows)
        height, width = letterbox.canvas_hw
        assert len(letterbox.rows) == 1 or len(letterbox.rows) * height * width <= max_pixels


@given(st.lists(size, min_size=1, max_size=40))
def test_no_side_is_padded_by_more_than_an_eighth_and_a_pixel(sizes):
    for letterbox in buckets(sizes, max_pixels=10**9):
        height, width = letterbox.canvas_hw
        assert all(height <= h * 9 / 8 + 1 and width <= w * 9 / 8 + 1 for h, w in letterbox.sizes_hw)


def test_pictures_of_like_sizes_share_a_letterbox_and_keep_their_order():
    sizes = [(300, 400), (90, 90), (301, 398), (300, 400)]
    assert [letterbox.rows for letterbox in buckets(sizes, max_pixels=10**9)] == [(1,), (0, 2, 3)]


def test_a_picture_lies_at_the_top_left_and_the_rest_is_black():
    pictures = [np.full((2, 3, 3), 7, np.uint8), np.full((3, 2, 3), 9, np.uint8)]
    canvas = Letterbox((1, 0), ((3, 2), (2, 3))).fill(pictures)
    assert canvas[..., 0].tolist() == [[[9, 9, 0], [9, 9, 0], [9, 9, 0]], [[7, 7, 7], [7, 7, 7], [0, 0, 0]]]


@pytest.fixture
def both():
    """The same two noisy pictures on the host and on the way of a device."""
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (*hw, 3), np.uint8) for hw in ((60, 83), (57, 80))]
    letterbox = Letterbox((0, 1), ((60, 83), (57, 80)))
    return pictures, HostPixels(pictures, letterbox), DevicePixels(pictures, letterbox, torch.device("cpu"))


@pytest.mark.parametrize("sizes_hw", [[(36, 50), (35, 48)], [(13, 18), (12, 17)], [(60, 83), (57, 80)]])
def test_levels_are_opencvs_area_means_on_host_and_device(both, sizes_hw):
    pictures, *places = both
    for pixels in places:
        level = pixels.level([0, 1], sizes_hw)
        assert level.is_contiguous(memory_format=torch.channels_last)
        for at, (picture, (height, width)) in enumerate(zip(pictures, sizes_hw, strict=True)):
            expected = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            apart = np.abs(level[at].permute(1, 2, 0)[:height, :width].numpy() - expected)
            assert apart.max() <= 1
            assert (apart > 0).mean() < 0.005  # the mean lay half-way
        assert not level[1, :, sizes_hw[1][0] :].any()
        assert not level[1, :, :, sizes_hw[1][1] :].any()


squares = [(1, 1, 24, 24), (5, 9, 15, 19), (-9, -4, 30, 35), (40, 30, 99, 89), (70, 50, 83, 60), (90, 1, 99, 10)]


@pytest.mark.parametrize("side_px", [24, 48])
@pytest.mark.parametrize("square", [*squares, (5, 5, 5, 5), (9, 9, 3, 3)])
def test_crops_are_opencvs_area_means_with_black_outside(both, square, side_px):
    pictures, *places = both
    left, top, right, bottom = square
    framed = cv2.copyMakeBorder(pictures[1], 99, 99, 99, 99, cv2.BORDER_CONSTANT, value=(0, 0, 0)).astype(np.float32)
    expected = np.zeros((side_px, side_px, 3), np.float32)
    if right >= left:
        inside = framed[98 + top : 99 + bottom, 98 + left : 99 + right]
        expected = cv2.resize(inside, (side_px, side_px), interpolation=cv2.INTER_AREA)
    for pixels in places:
        [crop] = pixels.crops(torch.tensor([1]), torch.tensor([square]).double(), side_px)
        np.testing.assert_allclose(crop.permute(1, 2, 0).numpy(), expected, atol=0.01)
