"""68 landmarks on the portraits, and boxes of other detectors brought to HOG's habit."""

import cv2
import numpy as np
import pytest

from facemill.align import head_pose
from facemill.boxes import HOG_BOXES, LANDMARK_BOXES, BoxConvention, iou
from facemill.detect import build_detector
from facemill.detect.dsfd import DsfdDetector
from facemill.detect.mtcnn import MtcnnDetector
from facemill.detector_training.annotations import read_annotations
from facemill.landmarks import LEFT_EYE, MOUTH, RIGHT_EYE, landmark_box
from facemill.landmarks.dlib import DlibPredictor, jittered
from facemill.pictures import decode


@pytest.fixture(scope="module")
def predictor():
    return DlibPredictor()


def eye_distance(points):
    return np.linalg.norm(points[36] - points[45])


@pytest.mark.parametrize("person", ["hopper", "collins"])
@pytest.mark.parametrize("detector", ["hog", "mtcnn", "mmod"])
def test_eyes_and_mouth_lie_where_mtcnn_sees_them(predictor, person, detector, request):
    picture = request.getfixturevalue(person)
    size = 90 if detector == "mmod" else 60  # seconds a megapixel
    built = build_detector(detector, min_face_px=size)
    found = built.detect([picture])[0]
    five = build_detector("mtcnn", min_face_px=60).detect([picture])[0]
    [points] = predictor.predict(picture, found.boxes_xyxy[:1], built.box_convention)
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
    _, _, roll = head_pose(predictor.predict(turned, boxes, MtcnnDetector.box_convention)[0])
    assert roll == pytest.approx(20 + 3, abs=6)  # 3: her own


def test_boxes_of_all_conventions_lead_to_about_the_same_points(predictor, collins):
    hog = predictor.predict(collins, build_detector("hog", min_face_px=60).detect([collins])[0].boxes_xyxy)
    built = build_detector("mtcnn", min_face_px=60)
    mtcnn = predictor.predict(collins, built.detect([collins])[0].boxes_xyxy, built.box_convention)
    again = predictor.predict(collins, landmark_box(hog), LANDMARK_BOXES)
    for other in (mtcnn, again):
        assert np.linalg.norm(other - hog, axis=2).mean() < 0.05 * eye_distance(hog[0])


def test_jittered_boxes_even_out_what_a_few_pixels_of_the_box_do(predictor, collins):
    """The box moved by up to 3 px a side: with 8 jitters the points' places scatter by a quarter less at least."""
    box = build_detector("hog", min_face_px=60).detect([collins])[0].boxes_xyxy
    moved = np.vstack([box + [dx, dy, dx, dy] for dx in (-3, 0, 3) for dy in (-3, 0, 3)])
    plain, evened = (DlibPredictor(count).predict(collins, moved).std(axis=0).mean() for count in (0, 8))
    assert evened < 0.75 * plain


def test_jitters_are_the_same_at_every_call_and_stay_near(predictor, collins):
    box = np.array([[180.0, 80.0, 270.0, 170.0]])
    first, second = (DlibPredictor(3).predict(collins, box) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - predictor.predict(collins, box)).max() < 0.1 * 90
    with pytest.raises(ValueError, match="jitters"):
        DlibPredictor(-1)


def test_jittered_boxes_are_the_box_and_pairs_mirrored_about_its_middle():
    boxes = jittered(np.array([10.0, 20.0, 110.0, 120.0]), 4)
    np.testing.assert_array_equal(boxes[0], [10, 20, 110, 120])
    np.testing.assert_allclose(120 - boxes[1::2, [2, 0]], boxes[2::2, [0, 2]])
    np.testing.assert_allclose(boxes[1::2, [1, 3]], boxes[2::2, [1, 3]])
    assert len(jittered(np.zeros(4), 0)) == 1


CONVENTIONS = [HOG_BOXES, LANDMARK_BOXES, MtcnnDetector.box_convention, BoxConvention(0.1, -1, 2)]


@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_mapped_boxes_move_and_grow_with_the_picture(convention):
    boxes = np.array([[10, 20, 110, 150], [0, 0, 40, 40]], np.float32)
    np.testing.assert_allclose(convention.to_hog(boxes * 3 + 7), convention.to_hog(boxes) * 3 + 7)


def test_no_box_gives_no_points(predictor, collins):
    assert predictor.predict(collins, np.zeros((0, 4))).shape == (0, 68, 2)


@pytest.mark.parametrize("detector", ["hog", "mtcnn", pytest.param("mmod", marks=pytest.mark.slow)])
def test_error_on_helen_is_as_low_from_every_detectors_boxes(predictor, shared, detector):
    """Medians of 0.0257 (HOG), 0.0260 (MTCNN), 0.0260 (mmod) of the distance of the outer eye corners over the half of
    HELEN and AFW that the mapping was not fitted on; ten pictures of it here."""
    errors = []
    built = build_detector(detector, min_face_px=160)
    for file in sorted((shared / "data" / "landmarks" / "helen").glob("*.pts"))[1:21:2]:
        picture = cv2.imread(str(file.with_suffix(".jpg")))[:, :, ::-1].copy()
        truth = np.loadtxt(file)
        found = predictor.predict(picture, built.detect([picture])[0].boxes_xyxy, built.box_convention)
        if len(found):
            errors.append(np.linalg.norm(found - truth, axis=2).mean(axis=1).min() / eye_distance(truth))
    assert len(errors) >= 9
    assert np.median(errors) < 0.032


def test_annotators_boxes_are_mapped_onto_hogs(shared):
    """DSFD learns to draw boxes as annotators do; 0.82 is the median overlap on the half that was not fitted."""
    detect = build_detector("hog", min_face_px=80).detect
    overlaps = []
    for one in read_annotations(shared / "data" / "detection" / "face_mask_voc")[1:240:2]:
        hog = detect([decode(one.path.read_bytes())])[0].boxes_xyxy
        both = iou(hog, DsfdDetector.box_convention.to_hog(one.boxes_xyxy)).max(axis=1, initial=0)
        overlaps += both[both > 0.3].tolist()
    assert len(overlaps) > 25
    assert np.median(overlaps) > 0.75
