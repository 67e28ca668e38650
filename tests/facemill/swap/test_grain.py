"""A film's grain on the new face: planted grain of known strength."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facemill.sources.sample import Pose, render
from facemill.swap.grain import LEAST, grain_of, grained
from facemill.swap.mask import face_mask
from facemill.swap.painter import FacePainter, FacesOfFrame, WantedFace
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper
from facemill.video import Frame

SIDE = 400


def with_grain(picture: np.ndarray, sigma: float, *, coarse_px: float = 0.0, seed: int = 0) -> np.ndarray:
    grain = np.random.default_rng(seed).normal(0, 1, picture.shape[:2])
    if coarse_px:
        grain = cv2.GaussianBlur(grain, (0, 0), coarse_px)
    return np.asarray(np.clip(np.rint(picture + sigma * (grain / grain.std())[..., None]), 0, 255), np.uint8)


def noise_of(picture: np.ndarray, where: np.ndarray) -> float:
    """Standard deviation of what is faster than some pixels, as most places have it."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fast = grey - cv2.GaussianBlur(grey, (0, 0), 1.5)
    return float(np.median(np.sqrt(cv2.blur(fast * fast, (9, 9)))[where]))


@pytest.fixture(scope="module")
def shaded() -> np.ndarray:
    """A picture of shades and one edge."""
    x = np.linspace(60, 190, 240)
    picture = np.repeat(np.add.outer(x, x)[..., None] / 2, 3, axis=2)
    picture[:, 120:] += 20
    return np.asarray(picture, np.uint8)


@settings(max_examples=20, deadline=None)
@given(sigma=st.floats(7, 14), coarse_px=st.sampled_from([0.0, 0.7, 1.2]), seed=st.integers(0, 99))
def test_grain_is_told_by_its_strength_and_its_size(
    shaded: np.ndarray, sigma: float, coarse_px: float, seed: int
) -> None:
    kernel = grain_of(with_grain(shaded, sigma, coarse_px=coarse_px, seed=seed))
    assert kernel is not None
    assert np.sqrt((kernel**2).sum()) == pytest.approx(sigma, rel=0.25)
    neighbours = float((kernel[:, 1:] * kernel[:, :-1]).sum() / (kernel**2).sum())  # their correlation
    assert neighbours == pytest.approx({0.0: 0.0, 0.7: 0.5, 1.2: 0.75}[coarse_px], abs=0.15)


@pytest.mark.parametrize("value", [0, 3, 120, 254])
def test_a_picture_without_grain_gets_none(shaded: np.ndarray, value: int) -> None:
    flat = np.full_like(shaded, value)
    for picture in (shaded, flat, with_grain(shaded, 0.5 * LEAST), shaded[:60, :60]):
        new = np.full((*picture.shape[:2], 3), 0.5, np.float32)
        assert grained(new, picture, np.ones(picture.shape[:2], np.float32), picture) is new


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.5, 0.8, 1.0])
def test_grain_is_as_strong_as_the_films_at_the_soft_edge_too(shaded: np.ndarray, weight: float) -> None:
    film = with_grain(shaded, 8)
    weights = np.full(shaded.shape[:2], weight, np.float32)
    new = grained(np.asarray(shaded / 255, np.float32), film, weights, film)
    mixed = film * (1 - weight) + 255 * new * weight
    assert (mixed - shaded).std() == pytest.approx((film.astype(float) - shaded).std(), rel=0.12)


def test_a_frame_gets_the_same_grain_each_time_and_another_frame_other_grain(shaded: np.ndarray) -> None:
    new, weight = np.full(shaded.shape, 0.5, np.float32), np.ones(shaded.shape[:2], np.float32)
    films = [with_grain(shaded, 8, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (grained(new, film, weight, film) for film in films)
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first[..., 0].ravel(), other[..., 0].ravel())[0, 1]) < 0.05
    assert np.ptp(first, axis=2).max() == 0  # brightness alone: a black-and-white film stays one


@pytest.mark.parametrize("sigma", [4, 8])
def test_a_new_face_is_as_grainy_as_what_is_around_it(swapper: Swapper, sigma: float) -> None:
    clean, landmarks = render("collins", Pose(), (SIDE, SIDE))
    soft = cv2.GaussianBlur(clean, (0, 0), 3)  # nothing but grain is fine
    film = with_grain(soft, sigma)
    painter = FacePainter(swapper, SwapSettings(colour="none", detail="none", occlusion="none"))
    frame = Frame.from_rgb(film.copy(), 0, Fraction(1, 25), pix_fmt="yuv444p")
    painter.paint([FacesOfFrame(frame, (WantedFace("hopper", landmarks),))])
    face = face_mask(landmarks, SIDE, 0.0) > 0.5
    inside = cv2.erode(face.astype(np.uint8), np.ones((25, 25))) > 0
    around = (cv2.dilate(face.astype(np.uint8), np.ones((61, 61))) > 0) & ~face
    assert noise_of(frame.rgb, inside) == pytest.approx(noise_of(frame.rgb, around), rel=0.2)
