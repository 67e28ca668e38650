"""Smoothing takes the trembling and leaves the motion, with no lag, whatever the frame rate."""

from __future__ import annotations

import numpy as np
import pytest

from facemill.align import MEAN_FACE
from facemill.landmarks import LEFT_EYE, MOUTH
from facemill.track.smooth import CHUNK, smoothed

FACE = (MEAN_FACE * 200 + 100).astype(np.float64)
TREMBLING_PX = 0.6


def second_difference(points: np.ndarray) -> float:
    return float(np.sqrt((np.diff(points, n=2, axis=0) ** 2).mean()))


def trembling(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, TREMBLING_PX, (count, 68, 2))


def moving(seconds: np.ndarray) -> np.ndarray:
    """A head that sways by 30 px, twice in three seconds."""
    sway = 30 * np.sin(2 * np.pi * seconds / 1.5)
    return FACE + np.stack([sway, 0.4 * sway], axis=-1)[:, None]


@pytest.mark.parametrize("rate", [12.5, 25, 60])
def test_a_face_at_rest_trembles_three_times_less(rate: float) -> None:
    seconds = np.arange(100) / rate
    given = FACE + trembling(100)
    least = 3 if rate >= 25 else 1.5  # few frames share a window where they are far apart
    assert second_difference(smoothed(seconds, given, 1.0)) < second_difference(given) / least


def test_motion_comes_through_without_lag() -> None:
    seconds = np.arange(120) / 25
    true = moving(seconds)
    found = smoothed(seconds, true + trembling(120), 1.0)
    speed = np.gradient(true, axis=0)
    lag_frames = -float(((found - true) * speed).sum() / (speed**2).sum())
    assert abs(lag_frames) < 0.05
    assert second_difference(found - true) < second_difference(trembling(120)) / 3


def test_a_blink_and_an_opening_mouth_are_not_damped() -> None:
    seconds = np.arange(120) / 25
    true = np.repeat(FACE[None], 120, axis=0)
    lid = np.clip(1 - np.abs(seconds - 2.0) / 0.13, 0, 1) * 8
    true[:, LEFT_EYE.start + 1 : LEFT_EYE.start + 3, 1] += lid[:, None]
    opening = np.where((seconds > 3) & (seconds < 3.3), np.sin((seconds - 3) / 0.3 * np.pi) ** 2, 0) * 20
    true[:, MOUTH.start + 6 : MOUTH.start + 12, 1] += opening[:, None]
    found = smoothed(seconds, true + trembling(120), 1.0)
    lids = found[:, LEFT_EYE.start + 1, 1] - FACE[LEFT_EYE.start + 1, 1]
    lips = found[:, MOUTH.start + 9, 1] - FACE[MOUTH.start + 9, 1]
    assert lids[50] > 0.8 * lid[50]
    assert lips.max() > 0.85 * opening.max()


def test_a_leap_that_is_no_trembling_stays_where_it_is() -> None:
    seconds = np.arange(60) / 25
    true = np.where(np.arange(60)[:, None, None] < 30, FACE, FACE + 40)
    found = smoothed(seconds, true + trembling(60), 1.0)
    assert np.abs(found[29].mean(axis=0) - FACE.mean(axis=0)).max() < 2
    assert np.abs(found[30].mean(axis=0) - FACE.mean(axis=0) - 40).max() < 2


def test_uneven_times_are_kept_in_mind() -> None:
    """A face at constant speed, with frames at uneven times, lies on a line in time and not in number."""
    seconds = np.cumsum(np.random.default_rng(3).choice([0.02, 0.04, 0.12], 80))
    true = FACE + (seconds * 50)[:, None, None]
    found = smoothed(seconds, true + trembling(80), 1.0)
    assert np.sqrt(((found - true) ** 2).mean()) < TREMBLING_PX


def test_strength_goes_from_nothing_to_all() -> None:
    seconds = np.arange(40) / 25
    given = FACE + trembling(40)
    full = smoothed(seconds, given, 1.0)
    assert np.array_equal(smoothed(seconds, given, 0.0), given.astype(np.float32))
    assert smoothed(seconds, given, 0.5) == pytest.approx((given + full) / 2, abs=1e-3)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7])
def test_short_tracks_stay_what_they_are_or_become_calmer(count: int) -> None:
    given = FACE + trembling(count)
    found = smoothed(np.arange(count) / 25, given, 1.0)
    assert found.shape == given.shape
    assert np.isfinite(found).all()
    assert np.abs(found - given).max() < 6 * TREMBLING_PX


def test_a_long_track_is_smoothed_in_chunks_that_do_not_show() -> None:
    count = CHUNK + 200
    seconds = np.arange(count) / 25
    found = smoothed(seconds, moving(seconds) + trembling(count), 1.0)
    steps = np.abs(np.diff(found - moving(seconds), axis=0)).mean(axis=(1, 2))
    assert steps[CHUNK - 1] < 3 * np.median(steps)
