"""Whatever a picture is like: sound `Faces` from every detector or a refusal by name; the predictor likewise."""

import cv2
import numpy as np
import pytest
import torch

from facemill.detect import DETECTORS, build_detector
from facemill.landmarks.dlib import DlibPredictor
from facemill.pictures import decode


@pytest.fixture(scope="module", params=[*sorted(set(DETECTORS.names()) - {"auto"}), "hog,mtcnn"])
def detector(request):
    """Each detector; DSFD as a narrow net with random weights, which promises sound answers and no right ones."""
    if request.param == "dsfd":
        from facemill.detect.dsfd import DsfdDetector
        from facemill.nets.dsfd import Dsfd, DsfdConfig

        torch.manual_seed(0)
        return DsfdDetector(Dsfd(DsfdConfig(width=0.05)).eval(), min_face_px=60)
    return build_detector(request.param, min_face_px=90 if request.param == "mmod" else 60)


ODD = {
    "1×1": lambda face: face[:1, :1],
    "1×5000": lambda face: np.full((1, 5000, 3), 90, np.uint8),
    "5000×1": lambda face: np.full((5000, 1, 3), 90, np.uint8),
    "black": lambda face: np.zeros((160, 200, 3), np.uint8),
    "white": lambda face: np.full((160, 200, 3), 255, np.uint8),
    "noise": lambda face: np.random.default_rng(0).integers(0, 256, (160, 160, 3), np.uint8),
    "upside-down": lambda face: np.ascontiguousarray(face[::-1]),
    "cut on the left": lambda face: np.ascontiguousarray(face[:, 110:]),
    "cut at the top": lambda face: np.ascontiguousarray(face[95:]),
    "a view that is not contiguous": lambda face: face[::-1, ::-1],
}
EMPTY = ("1×1", "1×5000", "5000×1", "black", "white")


@pytest.fixture(scope="module")
def face(collins):
    return np.ascontiguousarray(collins[10:250, 100:340])


@pytest.mark.parametrize("name", ODD)
def test_every_detector_answers_soundly_on(detector, name, face):
    """`Faces` is checked at its birth: finite, float32, right > left. Boxes may reach past the edge, not far off it."""
    picture = ODD[name](face)
    [faces] = detector.detect([picture])
    if name in EMPTY and detector.name != "dsfd":
        assert len(faces) == 0
    size = np.array(picture.shape[1::-1])
    centres = (faces.boxes_xyxy[:, :2] + faces.boxes_xyxy[:, 2:]) / 2
    assert ((centres > -size) & (centres < 2 * size)).all()
    assert (np.diff(faces.scores) <= 0).all()


@pytest.mark.parametrize("name", sorted({*DETECTORS.names(), "hog,mtcnn"} - {"auto", "dsfd"}))  # dsfd has no weights
def test_every_detector_still_sees_a_face_whose_edge_is_cut(name, face):
    detector = build_detector(name, min_face_px=90 if name == "mmod" else 60)
    [faces] = detector.detect([np.ascontiguousarray(face[:, 72:])])  # the box starts at 68
    assert len(faces) == 1 or detector.name in ("hog", "mmod")
    assert len(faces) <= 1


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 1), np.uint8), np.zeros((9, 9, 4), np.uint8)]
    + [np.zeros((9, 9, 3), np.uint16), np.zeros((9, 9, 3), np.float32), np.zeros((0, 9, 3), np.uint8)],
    ids=["grey", "one channel", "alpha", "16 bit", "float", "no rows"],
)
def test_every_detector_refuses_what_is_no_rgb_picture(detector, wrong, face):
    with pytest.raises(ValueError, match=r"expected an RGB picture, uint8 H×W×3, got"):
        detector.detect([face, wrong])


def with_alpha(bgr):
    return np.dstack([bgr, np.full(bgr.shape[:2], 190, np.uint8)])


@pytest.mark.parametrize(
    "stored",
    [lambda bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), with_alpha, lambda bgr: bgr.astype(np.uint16) * 257],
    ids=["grey", "alpha", "16 bit"],
)
def test_a_decoded_grey_transparent_or_16_bit_picture_is_rgb_and_its_face_is_found(stored, face):
    data = cv2.imencode(".png", stored(face[:, :, ::-1].copy()))[1].tobytes()
    picture = decode(data)
    assert picture.shape == face.shape
    assert len(build_detector("hog,mtcnn", min_face_px=60).detect([picture])[0]) == 1


OUTSIDE = [[-900, -900, -800, -800], [5000, 100, 5100, 200], [100, 100, 100.2, 100.2], [-2e9, -2e9, 2e9, 2e9]]


@pytest.mark.parametrize("box", [*OUTSIDE, [-40, -40, 60, 60], [1e30, 1e30, 2e30, 2e30]])
@pytest.mark.parametrize("jitters", [0, 2])
def test_the_predictor_bears_boxes_outside_the_picture(box, jitters, face):
    points = DlibPredictor(jitters).predict(face, np.array([box], np.float64))
    assert points.shape == (1, 68, 2)
    assert np.isfinite(points).all()


def test_the_predictor_refuses_grey_and_nan(face):
    with pytest.raises(ValueError, match="RGB picture"):
        DlibPredictor().predict(face[:, :, 0], np.array([[0, 0, 50, 50]]))
    with pytest.raises(ValueError, match="NaN"):
        DlibPredictor().predict(face, np.array([[0, 0, np.nan, 50]]))
