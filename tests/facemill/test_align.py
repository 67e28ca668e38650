"""Alignment: properties by hypothesis, geometry on the mean face, pose signs on a head that is turned for real."""

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from facemill.align import (
    MEAN_DEPTH,
    MEAN_FACE,
    affine_fit,
    compose,
    crop_affine,
    crop_points,
    five_points,
    head_pose,
    invert,
    procrustes,
    scale_of,
    transform,
    warp,
)

points = hnp.arrays(np.float64, (7, 2), elements=st.floats(-500, 500))
angle, shift, zoom = st.floats(-np.pi, np.pi), st.floats(-1000, 1000), st.floats(0.05, 20)


def similarity(turn, by_x, by_y, factor):
    cos, sin = factor * np.cos(turn), factor * np.sin(turn)
    return np.array([[cos, -sin, by_x], [sin, cos, by_y]])


@given(points, angle, shift, shift, zoom)
def test_procrustes_recovers_a_similarity(src, turn, by_x, by_y, factor):
    assume(np.ptp(src, axis=0).max() > 1)
    true = similarity(turn, by_x, by_y, factor)
    found = procrustes(src, transform(src, true))
    np.testing.assert_allclose(transform(src, found), transform(src, true), atol=1e-6)


@given(points, points)
def test_procrustes_never_reflects(src, dst):
    assume(np.ptp(src, axis=0).max() > 1)
    assert np.linalg.det(procrustes(src, dst, scale=False)[:, :2]) == pytest.approx(1.0)


def test_procrustes_of_a_mirrored_shape_is_the_best_rotation():
    """A mirror image would fit a reflection exactly; Umeyama's sign keeps that out."""
    src = np.array([[0.0, 0], [4, 0], [0, 1]])
    found = procrustes(src, src * [-1, 1])
    assert np.linalg.det(found[:, :2]) > 0
    errors = [
        np.square(transform(src - src.mean(0), similarity(turn, 0, 0, 1)) - (src - src.mean(0)) * [-1, 1]).sum()
        for turn in np.linspace(-np.pi, np.pi, 721)
    ]
    best = np.square(transform(src, procrustes(src, src * [-1, 1], scale=False)) - src * [-1, 1]).sum()
    assert best <= min(errors) + 1e-9


@given(points, points)
def test_a_general_affine_fits_at_least_as_well(src, dst):
    assume(np.linalg.svd(src - src.mean(0), compute_uv=False)[1] > 1)
    rigid, general = (np.square(transform(src, fit(src, dst)) - dst).sum() for fit in (procrustes, affine_fit))
    assert general <= rigid * (1 + 1e-9) + 1e-6


@given(points, angle, shift, shift, zoom)
def test_there_and_back_is_where_one_was(src, turn, by_x, by_y, factor):
    affine = similarity(turn, by_x, by_y, factor)
    np.testing.assert_allclose(transform(transform(src, affine), invert(affine)), src, atol=1e-6)
    np.testing.assert_allclose(compose(invert(affine), affine), [[1, 0, 0], [0, 1, 0]], atol=1e-6)


@pytest.mark.parametrize("wrong", [np.zeros((3, 2)), np.full((3, 2), np.nan), np.zeros((3, 3)), np.zeros((1, 2))])
def test_points_without_a_direction_are_refused(wrong):
    with pytest.raises(ValueError, match="src"):
        procrustes(wrong, np.ones((3, 2)))


def test_an_affine_of_points_on_a_line_is_refused():
    with pytest.raises(ValueError, match="line"):
        affine_fit(np.outer(np.arange(4.0), [1, 2]), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="cannot be undone"):
        invert(np.zeros((2, 3)))


def test_the_mean_face_is_symmetric_centred_and_read_only():
    low, high = MEAN_FACE.min(axis=0), MEAN_FACE.max(axis=0)
    np.testing.assert_allclose((low + high) / 2, 0.5, atol=1e-4)
    assert (high - low).max() == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(MEAN_FACE[36] + MEAN_FACE[45], [1.0, 2 * MEAN_FACE[36, 1]], atol=2e-4)
    assert MEAN_FACE.shape == (68, 2)
    with pytest.raises(ValueError, match="read-only"):
        MEAN_FACE[0] = 0


def test_coverage_one_fills_the_crop_from_brow_to_chin():
    placed = crop_points(100, 1.0)
    assert placed[:, 1].min() == pytest.approx(-0.5, abs=1e-6)
    assert placed[:, 1].max() == pytest.approx(99.5, abs=1e-6)
    assert np.ptp(crop_points(100, 2.0)[:, 1]) == pytest.approx(50, abs=1e-6)


def test_a_turned_enlarged_mean_face_is_put_back_into_the_crop():
    face = transform(MEAN_FACE, similarity(0.4, 300, 200, 180))
    affine = crop_affine(face, 64, 1.6)
    np.testing.assert_allclose(transform(face, affine), crop_points(64, 1.6), atol=1e-6)


def test_five_points_are_put_where_the_mean_faces_five_lie():
    face = transform(MEAN_FACE, similarity(-0.3, 200, 300, 150))
    by_five, by_all = crop_affine(five_points(face), 64, 1.6), crop_affine(face, 64, 1.6)
    np.testing.assert_allclose(by_five, by_all, atol=1e-9)


@pytest.mark.parametrize("points", [slice(None), None], ids=["68", "5"])
def test_an_affine_crop_undoes_a_stretch_that_a_similarity_keeps(points):
    face = MEAN_FACE * [220, 180] + 40
    landmarks = face[points] if points else five_points(face)
    stretched = crop_affine(landmarks, 64, 1.6, kind="affine")
    kept = crop_affine(landmarks, 64, 1.6)
    np.testing.assert_allclose(transform(face, stretched), crop_points(64, 1.6), atol=1e-6)
    np.testing.assert_allclose(kept[:, :2] @ kept[:, :2].T, np.eye(2) * scale_of(kept) ** 2, atol=1e-12)


@pytest.mark.parametrize("wrong", [np.zeros((67, 2)), np.zeros((68, 3)), np.full((68, 2), np.nan), np.ones((5, 2))])
def test_landmarks_that_place_no_crop_are_refused(wrong):
    with pytest.raises(ValueError, match=r"landmarks|coincide"):
        crop_affine(wrong, 64, 1.6)


@given(angle, st.floats(0.8, 3.0), st.floats(40, 56), st.floats(40, 56))
def test_picture_to_crop_to_picture_is_the_picture_within_interpolation(turn, factor, at_x, at_y):
    """Waves of 48 px: bilinear sampling is off by at most 1/8 of the second derivatives' sum, 0.5 levels a time,
    OpenCV's 1/32 px by 0.2 and rounding by 0.5; inside the circle that the crop holds whatever its turn."""
    y, x = np.mgrid[:96, :96]
    wave = 128 + 60 * np.sin(x * 2 * np.pi / 48) + 60 * np.cos(y * 2 * np.pi / 48)
    picture = np.repeat(np.rint(wave).astype(np.uint8)[:, :, None], 3, axis=2)
    there = similarity(turn, 0, 0, factor)
    there[:, 2] = 31.5 - there[:, :2] @ [at_x, at_y]  # that place in the middle of 64 px
    again = warp(warp(picture, there, 64), invert(there), 96)
    inside = np.hypot(x - at_x, y - at_y) < 29 / factor
    assert np.abs(again.astype(int) - picture)[inside].max() <= 3


def test_whole_shifts_and_quarter_turns_go_there_and_back_to_the_bit(collins):
    picture = collins[:64, :64]
    for there in (similarity(0, 5, -9, 1), np.array([[0.0, -1, 63], [1, 0, 0]])):
        again = warp(warp(picture, there, 64), invert(there), 64)
        rows = slice(10, 54)
        np.testing.assert_array_equal(again[rows, rows], picture[rows, rows])


def test_the_jaw_does_not_move_the_crop():
    face = transform(MEAN_FACE, similarity(0.0, 100, 100, 100))
    open_mouthed = face.copy()
    open_mouthed[:17, 1] += 20
    np.testing.assert_array_equal(crop_affine(face, 64, 1.6), crop_affine(open_mouthed, 64, 1.6))


@pytest.mark.parametrize("size_px", [64, 37])
def test_the_whole_picture_as_crop_is_the_picture(collins, size_px):
    picture = collins[:64, :64]
    affine = np.array([[size_px / 64, 0, (size_px / 64 - 1) / 2], [0, size_px / 64, (size_px / 64 - 1) / 2]])
    expected = cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    assert np.abs(warp(picture, affine, size_px).astype(int) - expected).max() <= 2


def test_a_strongly_shrunk_crop_is_averaged_not_skipped(collins):
    """One-pixel stripes become grey; bilinear sampling alone would catch only white or only black ones."""
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    affine = np.array([[0.125, 0, 0.1], [0, 0.125, 0.3]])
    assert np.abs(warp(stripes, affine, 64)[4:-4, 4:-4].astype(int) - 128).max() <= 2
    expected = cv2.resize(collins, (64, 64), interpolation=cv2.INTER_AREA)
    exact = np.array([[0.125, 0, (0.125 - 1) / 2], [0, 0.125, (0.125 - 1) / 2]])
    assert np.abs(warp(collins, exact, 64).astype(int) - expected).mean() < 1


def test_a_crop_past_the_edge_goes_on_with_the_last_pixels(collins):
    crop = warp(collins, np.array([[1.0, 0, 300], [0, 1, 0]]), 64)
    np.testing.assert_array_equal(crop[:, :64], np.repeat(collins[:64, :1], 64, axis=1))
    far = warp(collins, np.array([[0.1, 0, 9000], [0, 0.1, 0]]), 32)
    assert far.shape == (32, 32, 3)


def test_a_mean_face_looks_straight():
    np.testing.assert_allclose(head_pose(MEAN_FACE * 300 + 50), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("yaw", "pitch", "roll"),
    [(30, 0, 0), (-40, 0, 0), (0, 25, 0), (0, -20, 0), (0, 0, 35), (20, 10, -15), (-60, 30, 100)],
)
def test_the_pose_of_a_turned_head_is_what_it_was_turned_by(yaw, pitch, roll):
    """Turned in space and seen from far: yaw to the picture's right, pitch up, roll clockwise."""
    seen = head_turned_by(yaw, pitch, roll)[:, :2] * 200
    np.testing.assert_allclose(head_pose(seen), (yaw, pitch, roll), atol=1e-6)


@given(st.floats(-40, 40), st.floats(-25, 25), st.floats(-60, 60), st.floats(4, 20))
def test_a_camera_at_arms_length_changes_the_pose_little(yaw, pitch, roll, distance):
    """Pinhole projection, distance in heights of the face (4: a selfie); `head_pose` assumes weak perspective."""
    head = head_turned_by(yaw, pitch, roll)
    seen = head[:, :2] / (distance + head[:, 2:]) * 500
    np.testing.assert_allclose(head_pose(seen), (yaw, pitch, roll), atol=6)


def head_turned_by(yaw, pitch, roll):
    """(68, 3): x right, y down, z away; turned about its middle."""
    head = np.column_stack([MEAN_FACE - 0.5, MEAN_DEPTH])
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return head @ (about_z @ about_y @ about_x).T


def test_the_scale_of_an_affine_is_its_zoom():
    assert scale_of(similarity(1.0, 5, 5, 3.5)) == pytest.approx(3.5)
