"""What every detector promises, and the result type that they share."""

import warnings

import cv2
import numpy as np
import pytest

from facemill.detect import DETECTORS, Faces, build_detector
from facemill.errors import FacemillError

CHOICES = {"auto", "dsfd"}  # auto is mtcnn here; dsfd brings no weights, its tests make some

NOSES = {"hopper": (272, 240, 190), "collins": (226, 130, 95)}  # x, y, about the face's width, read off the portraits


@pytest.fixture(scope="module", params=[*sorted(set(DETECTORS.names()) - CHOICES), "hog,mtcnn"])
def detector(request):
    """Each registered detector that has weights, and a chain, at a size that both portraits exceed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # mmod is slow, and says so
        return build_detector(request.param, min_face_px=90 if request.param == "mmod" else 60)


@pytest.mark.parametrize("person", ["hopper", "collins"])
def test_every_detector_finds_the_portrait(detector, person, request):
    x, y, width = NOSES[person]
    best = detector.detect([request.getfixturevalue(person)])[0]
    left, top, right, bottom = best.boxes_xyxy[0]
    assert left < x < right
    assert top < y < bottom
    assert 0.7 < (right - left) / width < 1.4


def test_every_detector_gives_empty_arrays_for_a_black_picture(detector):
    [faces] = detector.detect([np.zeros((120, 160, 3), np.uint8)])
    assert len(faces) == 0
    assert faces.boxes_xyxy.shape == (0, 4)
    assert faces.scores.dtype == np.float32


def test_every_detector_answers_once_for_each_picture(detector, collins):
    tiny = np.zeros((5, 3, 3), np.uint8)
    results = detector.detect([tiny, collins, tiny])
    assert [len(faces) > 0 for faces in results] == [False, True, False]
    assert detector.detect([]) == []


def test_every_detector_answers_for_a_picture_the_same_bits_in_any_company(detector, hopper, collins, one_thread):
    is_slow = detector.name == "mmod"
    pictures = [
        np.ascontiguousarray(cv2.resize(person, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:, ::flip])
        for scale in ([0.5] if is_slow else [0.5, 0.52, 0.62, 0.7])
        for person in ([hopper] if is_slow else [hopper, collins])
        for flip in (1, -1)
    ]
    alone = [detector.detect([picture])[0] for picture in pictures]
    assert sum(map(len, alone)) >= len(pictures) // 2
    for company in [pictures] if is_slow else [pictures, pictures[::-1], pictures[1::3]]:
        for picture, found in zip(company, detector.detect(company), strict=True):
            [own] = [faces for other, faces in zip(pictures, alone, strict=True) if other is picture]
            assert_same_bits(found, own)


def test_every_detector_moves_the_box_with_the_picture(detector, collins):
    moved = np.pad(collins, ((32, 0), (64, 0), (0, 0)), mode="edge")
    before, after = (detector.detect([picture])[0].boxes_xyxy[0] for picture in (collins, moved))
    level = 16 if detector.name == "mmod" else 8  # its pyramid's levels are a sixth apart, and so are its boxes
    np.testing.assert_allclose(after, before + np.array([64, 32, 64, 32]), atol=level)


@pytest.mark.parametrize("wrong", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32)])
def test_every_detector_refuses_grey_and_float_by_name(detector, wrong):
    with pytest.raises(ValueError, match="RGB picture, uint8"):
        detector.detect([wrong])


def assert_same_bits(one, other):
    assert one.boxes_xyxy.tobytes() == other.boxes_xyxy.tobytes()
    assert one.scores.tobytes() == other.scores.tobytes()
    assert (one.points5 is None) == (other.points5 is None)
    assert one.points5 is None or one.points5.tobytes() == other.points5.tobytes()


def test_hog_looks_on_a_smaller_picture_when_only_large_faces_are_asked_for(hopper):
    full, small = (build_detector("hog", min_face_px=px).detect([hopper])[0].boxes_xyxy[0] for px in (80, 160))
    np.testing.assert_allclose(small, full, atol=20)


def test_an_unknown_detector_is_answered_with_the_known_ones():
    with pytest.raises(FacemillError, match=r"'hgo'.*auto, dsfd, hog, mmod, mtcnn"):
        build_detector("hgo", min_face_px=80)


def test_a_module_that_is_no_detector_has_no_name():
    assert DETECTORS.names() == ["auto", "dsfd", "hog", "mmod", "mtcnn"]


def test_an_option_that_the_detector_does_not_have_is_named():
    with pytest.raises(FacemillError, match="upsampling"):
        build_detector("hog", min_face_px=80, upsampling=1)


def test_faces_are_checked_at_birth():
    boxes, scores = np.array([[0, 0, 2, 2]], np.float32), np.ones(1, np.float32)
    with pytest.raises(ValueError, match=r"expected float32 \(1, 4\), got float64"):
        Faces(boxes.astype(float), scores)
    with pytest.raises(ValueError, match=r"expected float32 \(2, 4\)"):
        Faces(boxes, np.ones(2, np.float32))
    with pytest.raises(ValueError, match="right > left"):
        Faces(boxes[:, ::-1].copy(), scores)
    with pytest.raises(ValueError, match="NaN"):
        Faces(boxes, np.full(1, np.nan, np.float32))


def test_faces_are_chosen_by_slice_list_and_mask():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 5, 9], [4, 4, 6, 6]], np.float32)
    faces = Faces(boxes, np.array([3, 2, 1], np.float32), np.zeros((3, 5, 2), np.float32))
    assert faces[1:].scores.tolist() == [2, 1]
    assert faces[[2, 0]].scores.tolist() == [1, 3]
    assert faces[faces.size_px > 3].scores.tolist() == [2]
    assert len(faces[[]]) == 0
    assert [len(one) for one in faces] == [1, 1, 1]
    assert len(Faces.empty(points=True).points5) == 0
