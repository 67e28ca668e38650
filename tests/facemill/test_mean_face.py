"""A mean face of one's own: symmetric, in the unit square, and taken by the crops."""

import numpy as np
import pytest

from facemill.align import MEAN_FACE, crop_affine, crop_points, transform
from facemill.mean_face import MIRRORED, mean_face


def seen(face, turn, factor, by):
    cos, sin = factor * np.cos(turn), factor * np.sin(turn)
    return transform(face, np.array([[cos, -sin, by], [sin, cos, -by]]))


def test_the_mean_of_one_symmetric_face_in_many_places_is_that_face():
    faces = np.array([seen(MEAN_FACE, turn, 100 + 50 * turn, 30 * turn) for turn in (-0.4, 0.0, 0.1, 0.9)])
    np.testing.assert_allclose(mean_face(faces), MEAN_FACE, atol=2e-4)  # its digits are rounded


def test_a_crooked_face_and_its_mirror_image_average_to_a_straight_one():
    crooked = MEAN_FACE + np.random.default_rng(0).normal(0, 0.02, (68, 2))
    mean = mean_face(crooked[None])
    np.testing.assert_allclose((mean * [-1, 1])[MIRRORED] + [1, 0], mean, atol=1e-9)


def test_a_mean_face_of_ones_own_is_what_crops_are_aligned_to():
    long = (MEAN_FACE - 0.5) * [0.8, 1.0] + 0.5
    affine = crop_affine(long * 300 + 20, 128, 1.3, mean_face=long)
    np.testing.assert_allclose(transform(long * 300 + 20, affine), crop_points(128, 1.3, long), atol=1e-6)
    assert np.ptp(crop_points(128, 1.3, long)[:, 1]) == pytest.approx(128 / 1.3)


@pytest.mark.parametrize("wrong", [np.zeros((68, 2)), np.zeros((0, 68, 2)), np.full((1, 68, 2), np.nan)])
def test_what_is_no_set_of_faces_is_refused(wrong):
    with pytest.raises(ValueError, match=r"faces: expected|shapes: expected"):
        mean_face(wrong)


def test_the_mean_of_helen_and_afw_is_the_constant(shared):
    files = sorted([*(shared / "data/landmarks").glob("helen/*.pts"), *(shared / "data/landmarks").glob("afw/*.pts")])
    np.testing.assert_allclose(mean_face(np.array([np.loadtxt(file) for file in files])), MEAN_FACE, atol=1e-4)
