"""Mask, colour, blending and queues, each for itself."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from facemill.align import crop_points
from facemill.errors import FacemillError
from facemill.swap import blend, colour
from facemill.swap.detail.match import SIGMA_PX, match_detail
from facemill.swap.mask import face_mask
from facemill.swap.threads import ahead, behind

SIDE = 128
LANDMARKS = crop_points(SIDE, 1.1)


def faces() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    new = np.clip(rng.normal((0.7, 0.5, 0.4), 0.1, (SIDE, SIDE, 3)), 0, 1).astype(np.float32)
    old = np.clip(rng.normal((0.4, 0.35, 0.45), 0.08, (SIDE, SIDE, 3)), 0, 1).astype(np.float32)
    return new, old


def test_the_mask_is_full_on_the_nose_and_empty_on_the_border() -> None:
    mask = face_mask(LANDMARKS, SIDE, 0.12)
    x, y = np.rint(LANDMARKS[30]).astype(int)
    assert mask[y, x] == 1.0
    assert max(mask[0].max(), mask[-1].max(), mask[:, 0].max(), mask[:, -1].max()) == 0.0
    assert (mask.dtype, mask.min() >= 0, mask.max() <= 1) == (np.float32, True, True)


def test_the_mask_does_not_reach_beyond_the_jaw_and_covers_the_brows() -> None:
    mask = face_mask(crop_points(SIDE, 1.6), SIDE, 0.12)
    jaw, brow = crop_points(SIDE, 1.6)[8], crop_points(SIDE, 1.6)[19]
    assert mask[int(jaw[1]) + 2 :, :].max() == 0.0
    assert mask[int(brow[1]), int(brow[0])] > 0.9


def test_a_wider_feather_is_softer() -> None:
    def share_between(mask: np.ndarray) -> float:
        return float(((mask > 0.01) & (mask < 0.99)).mean())

    soft = [share_between(face_mask(crop_points(SIDE, 1.6), SIDE, feather)) for feather in (0.0, 0.05, 0.2)]
    assert soft[0] < soft[1] < soft[2]


@pytest.mark.parametrize("name", colour.METHODS.names())
def test_every_colour_method_gives_a_picture_and_leaves_its_inputs_alone(name: str) -> None:
    new, old = faces()
    before = new.copy(), old.copy()
    result = colour.colour_method(name)(new, old, face_mask(LANDMARKS, SIDE, 0.1))
    assert (result.shape, result.dtype) == (new.shape, np.float32)
    assert 0 <= result.min() <= result.max() <= 1
    assert (new == before[0]).all()
    assert (old == before[1]).all()


@pytest.mark.parametrize("name", ["reinhard", "linear"])
def test_colour_methods_bring_the_mean_inside_the_mask_to_the_old_one(name: str) -> None:
    new, old = faces()
    mask = face_mask(LANDMARKS, SIDE, 0.1)
    result = colour.colour_method(name)(new, old, mask)
    inside = mask > 0.5
    assert np.abs(new[inside].mean(axis=0) - old[inside].mean(axis=0)).max() > 0.1
    assert np.abs(result[inside].mean(axis=0) - old[inside].mean(axis=0)).max() < 0.02


@pytest.mark.parametrize("name", ["reinhard", "linear"])
def test_colour_methods_do_nothing_where_the_mask_is_empty(name: str) -> None:
    new, old = faces()
    assert (colour.colour_method(name)(new, old, np.zeros((SIDE, SIDE), np.float32)) == new).all()


@pytest.mark.parametrize("name", blend.METHODS.names())
def test_every_blend_method_changes_nothing_outside_the_mask(name: str) -> None:
    new, old = faces()
    picture = np.rint(old * 255).astype(np.uint8)
    mask = face_mask(LANDMARKS, SIDE, 0.1)
    result = blend.blend_method(name)(picture, new, mask)
    assert (result[mask == 0] == picture[mask == 0]).all()
    assert (result[mask > 0.9] != picture[mask > 0.9]).mean() > 0.5


def test_feather_is_the_weighted_mean() -> None:
    picture, face = np.full((4, 4, 3), 100, np.uint8), np.full((4, 4, 3), 200 / 255, np.float32)
    assert (blend.feather(picture, face, np.full((4, 4), 0.25, np.float32)) == 125).all()


def test_unknown_methods_are_named_with_those_that_exist() -> None:
    with pytest.raises(FacemillError, match=r"'sepia'.*reinhard"):
        colour.colour_method("sepia")
    with pytest.raises(FacemillError, match=r"'glue'.*feather"):
        blend.blend_method("glue")


def test_ahead_keeps_the_order_and_stays_within_its_size() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with ahead(make(), 4) as items:
        for item in items:
            assert len(made) - item <= 4 + 2  # in the queue, in the hand of the maker, just taken
    assert made == list(range(50))


def test_ahead_passes_the_error_on_after_what_came_before() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise KeyError("gone")

    seen = []
    with pytest.raises(KeyError), ahead(make(), 4) as items:
        seen.extend(items)
    with pytest.raises(KeyError), ahead(make(), 4) as items:
        seen.extend(iter(items))
    assert all(item == 1 for item in seen)


def test_leaving_ahead_early_ends_its_thread() -> None:
    before = threading.active_count()
    with ahead(itertools.count(), 2) as items:
        assert next(items) == 0
    assert threading.active_count() == before


def test_behind_has_consumed_everything_when_the_block_ends() -> None:
    taken: list[int] = []
    with behind(taken.append, 2) as put:
        for number in range(20):
            put(number)
    assert taken == list(range(20))


def test_behind_raises_what_its_consumer_raised() -> None:
    def refuse(number: int) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"), behind(refuse, 1) as put:
        deque(map(put, itertools.count()), maxlen=0)
    with pytest.raises(OSError, match="full"), behind(refuse, 4) as put:
        put(1)


def spread_of_detail(face: npt.NDArray[np.float32], inside: npt.NDArray[np.float32]) -> float:
    fine = face - cv2.GaussianBlur(face, (0, 0), SIGMA_PX)
    return float(np.std(fine[inside == 1]))


def test_a_face_gets_the_detail_of_the_one_that_it_replaces_and_of_nothing_around_it() -> None:
    random, mask = np.random.default_rng(0), face_mask(crop_points(64, 1.1), 64, 0.12)
    grain = random.normal(0, 1, (64, 64, 3)).astype(np.float32)
    old = 0.5 + 0.02 * grain
    old[mask == 0] = random.uniform(0, 1, (int((mask == 0).sum()), 3))  # hair and background do not count
    wanted = spread_of_detail(0.5 + 0.02 * grain, mask)
    for strength in (0.015, 0.04):  # somewhat soft, and grainy as a GAN's
        new = match_detail(0.5 + strength * grain[::-1], old, mask, most=0.6)
        assert spread_of_detail(new, mask) == pytest.approx(wanted, rel=0.3)
        assert new.mean() == pytest.approx(0.5, abs=1e-2)
    soft = 0.5 + 0.005 * grain
    assert spread_of_detail(match_detail(soft, old, mask, most=0.6), mask) < 1.7 * spread_of_detail(soft, mask)


def test_flat_skin_stays_flat_and_0_leaves_the_grain() -> None:
    flat, mask = np.full((32, 32, 3), 0.5, np.float32), np.ones((32, 32), np.float32)
    edge = flat.copy()
    edge[:, 16:] = 0.6
    np.testing.assert_array_equal(match_detail(flat, edge, mask, most=0.6), flat)
    assert np.ptp(match_detail(edge, flat, mask, most=0.6)[0, 14:18]) < np.ptp(edge)  # the old face was out of focus
    np.testing.assert_array_equal(match_detail(edge, 2 * edge - 0.5, mask, most=0.0), edge)
    np.testing.assert_array_equal(match_detail(edge, 2 * edge - 0.5, 0 * mask, most=0.6), edge)
