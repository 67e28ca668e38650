"""68 landmarks on the portraits, and boxes of other detectors brought to HOG's habit."""

import cv2
import numpy as np
import pytest

from facemill.align import head_pose
from facemill.detect import build_detector
from facemill.landmarks import HOG_FROM, LEFT_EYE, MOUTH, RIGHT_EYE, Landmarks68, landmark_box, to_hog_boxes


@pytest.fixture(scope="module")
def predictor():
    return Landmarks68()


def eye_distance(points):
    return np.linalg.norm(points[36] - points[45])


@pytest.mark.parametrize("person", ["hopper", "collins"])
@pytest.mark.parametrize("detector", ["hog", "mtcnn"])
def test_eyes_and_mouth_lie_where_mtcnn_sees_them(predictor, person, detector, request):
    picture = request.getfixturevalue(person)
    found, five = (build_detector(name, min_face_px=60).detect([picture])[0] for name in (detector, "mtcnn"))
    [points] = predictor.predict(picture, found.boxes_xyxy[:1], detector)
    seen = np.array([points[LEFT_EYE].mean(0), points[RIGHT_EYE].mean(0), points[48], points[54]])
    error = np.linalg.norm(seen - five.points5[0][[0, 1, 3, 4]], axis=1)
    assert error.max() < 0.12 * eye_distance(points)
    assert points[MOUTH, 1].min() > points[LEFT_EYE, 1].max()


def test_a_frontal_portrait_has_almost_no_turn(predictor, collins):
    boxes = build_detector("hog", min_face_px=60).detect([collins])[0].boxes_xyxy
    np.testing.assert_allclose(head_pose(predictor.predict(collins, boxes)[0]), 0, atol=8)


def test_a_portrait_turned_in_the_plane_rolls_clockwise(predictor, collins):
    turn = cv2.getRotationMatrix2D((226, 130), -20, 1.0)  # OpenCV counts counter-clockwise
    turned = cv2.warpAffine(collins, turn, (512, 512))
    boxes = build_detector("mtcnn", min_face_px=60).detect([turned])[0].boxes_xyxy
    _, _, roll = head_pose(predictor.predict(turned, boxes, "mtcnn")[0])
    assert roll == pytest.approx(20 + 3, abs=6)  # 3: her own


def test_boxes_of_all_conventions_lead_to_about_the_same_points(predictor, collins):
    hog = predictor.predict(collins, build_detector("hog", min_face_px=60).detect([collins])[0].boxes_xyxy)
    mtcnn = predictor.predict(collins, build_detector("mtcnn", min_face_px=60).detect([collins])[0].boxes_xyxy, "mtcnn")
    again = predictor.predict(collins, landmark_box(hog), "landmarks")
    for other in (mtcnn, again):
        assert np.linalg.norm(other - hog, axis=2).mean() < 0.05 * eye_distance(hog[0])


@pytest.mark.parametrize("convention", sorted(HOG_FROM))
def test_mapped_boxes_move_and_grow_with_the_picture(convention):
    boxes = np.array([[10, 20, 110, 150], [0, 0, 40, 40]], np.float32)
    np.testing.assert_allclose(to_hog_boxes(boxes * 3 + 7, convention), to_hog_boxes(boxes, convention) * 3 + 7)


def test_no_box_gives_no_points(predictor, collins):
    assert predictor.predict(collins, np.zeros((0, 4))).shape == (0, 68, 2)


def test_an_unknown_convention_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'yolo'.*hog, landmarks, mtcnn"):
        to_hog_boxes(np.zeros((1, 4)), "yolo")


def test_error_on_helen_stays_where_it_was_measured(predictor, shared):
    """0.026 (HOG) of the distance of the outer eye corners over all of HELEN; eight pictures here."""
    errors = []
    detector = build_detector("hog", min_face_px=80)
    for file in sorted((shared / "data" / "landmarks" / "helen").glob("*.pts"))[:8]:
        picture = cv2.imread(str(file.with_suffix(".jpg")))[:, :, ::-1].copy()
        truth = np.loadtxt(file)
        boxes = detector.detect([picture])[0].boxes_xyxy
        found = predictor.predict(picture, boxes)
        if len(found):
            errors.append(np.linalg.norm(found - truth, axis=2).mean(axis=1).min() / eye_distance(truth))
    assert np.median(errors) < 0.04
