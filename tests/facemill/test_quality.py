"""Sharpness falls with blur, whatever the size of the crop."""

import cv2
import numpy as np
import pytest

from facemill.quality import (
    LEAST_PRESENCE,
    LEAST_VISIBLE,
    MOST_DOUBT,
    PROFILE_DEG,
    are_trusted,
    face_px,
    is_seen,
    sharpness,
    visibility,
)


@pytest.fixture
def crop(collins):
    """A square around Eileen Collins' face."""
    return np.ascontiguousarray(collins[40:220, 136:316])


def test_every_further_blur_lowers_sharpness(crop):
    values = [sharpness(crop)] + [sharpness(cv2.GaussianBlur(crop, (0, 0), sigma)) for sigma in (1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 4 * values[2]


def test_a_flat_crop_has_no_sharpness():
    assert sharpness(np.full((50, 50, 3), 90, np.uint8)) == 0.0


def test_sharpness_means_the_same_for_a_larger_crop(crop):
    smooth = cv2.GaussianBlur(crop, (0, 0), 3)
    doubled = cv2.resize(smooth, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    assert sharpness(doubled) == pytest.approx(sharpness(smooth), rel=0.3)


def test_a_busy_background_does_not_count(crop):
    busy = crop.copy()
    busy[:30] = np.random.default_rng(0).integers(0, 255, busy[:30].shape)
    assert sharpness(busy, coverage=1.6) == pytest.approx(sharpness(crop, coverage=1.6))


def test_grey_and_float_crops_are_refused(crop):
    for wrong in (crop[:, :, 0], crop / 255):
        with pytest.raises(ValueError, match="RGB crop"):
            sharpness(wrong)


def test_the_size_of_a_face_is_its_shorter_side():
    assert face_px(np.array([10, 20, 110, 70], np.float32)) == 50


@pytest.mark.parametrize(
    ("left", "yaw", "expected"),
    [(10, 0, 1.0), (-10, 0, 0.5), (-30, 0, 0.0), (10, 60, 1.0), (10, -75, 0.5), (10, 95, 0.0), (10, np.nan, 0.0)],
)
def test_visibility_is_the_share_in_the_picture_less_where_the_head_is_turned(left, yaw, expected):
    points = np.stack([left + np.linspace(0, 19.7, 68), np.full(68, 20.0)], axis=1)
    found = visibility(points[None], np.array([float(yaw)]), np.array([100, 50]))
    np.testing.assert_allclose(found, [expected], atol=0.02)


def test_a_face_is_seen_up_to_each_limit_and_what_nobody_knows_is_no_fault():
    assert is_seen(None, None, None)
    assert is_seen(LEAST_VISIBLE, MOST_DOUBT, LEAST_PRESENCE)
    for visible, doubt, presence in ((0.5, None, None), (None, 0.2, None), (None, None, 5.0), (None, np.inf, 20.0)):
        assert not is_seen(visible, doubt, presence)


def test_landmarks_are_trusted_up_to_each_limit():
    yaw = np.array([0, -PROFILE_DEG, np.nan, 0, 0, 0, 0])
    doubt = np.array([MOST_DOUBT, 0, 0, 0.2, np.nan, np.inf, 0])
    presence = np.array([LEAST_PRESENCE, 20, 20, 20, np.nan, np.nan, 5])
    assert are_trusted(yaw, doubt, presence).tolist() == [True, False, False, False, True, False, False]
