"""Which detector answers: by device, and in a chain by what the first ones found."""

import numpy as np
import pytest

from facemill.boxes import HOG_BOXES
from facemill.detect import Faces, build_detector
from facemill.detect.auto import choose
from facemill.detect.chain import ChainDetector
from facemill.errors import FacemillError
from facemill.landmarks.dlib import DlibPredictor


class Counting:
    """A real detector that notes how many pictures it was given."""

    def __init__(self, detector):
        self.detector, self.name, self.box_convention = detector, detector.name, detector.box_convention
        self.seen = []

    def detect(self, pictures):
        self.seen.append(len(pictures))
        return self.detector.detect(pictures)


@pytest.fixture(scope="module")
def upside_down(collins):
    """What HOG does not find and MTCNN does: the portrait turned by a quarter."""
    return np.ascontiguousarray(np.rot90(collins, -1))


@pytest.fixture(scope="module")
def chain():
    return ChainDetector([Counting(build_detector(name, min_face_px=60)) for name in ("hog", "mtcnn")])


def test_auto_takes_mtcnn_on_a_cpu_and_dsfd_on_cuda_where_its_weights_are(tmp_path, caplog):
    (tmp_path / "weights.safetensors").touch()
    assert choose("cpu", tmp_path) == "mtcnn"
    assert choose("cuda") == "mtcnn"
    assert choose("cuda:1", tmp_path) == "dsfd"
    assert not caplog.records
    assert choose("cuda", tmp_path / "gone") == "mtcnn"
    assert "no DSFD weights at" in caplog.text


def test_auto_on_a_cpu_is_mtcnn_under_its_own_name(collins):
    auto, mtcnn = (build_detector(name, min_face_px=60) for name in ("auto", "mtcnn"))
    assert auto.name == "mtcnn"
    np.testing.assert_array_equal(auto.detect([collins])[0].boxes_xyxy, mtcnn.detect([collins])[0].boxes_xyxy)


def test_a_chain_asks_the_next_only_about_pictures_without_a_face(chain, collins, upside_down):
    black = np.zeros((99, 99, 3), np.uint8)
    found = chain.detect([collins, upside_down, black, collins])
    assert [faces.found_by for faces in found if len(faces)] == ["hog", "mtcnn", "hog"]
    assert [len(faces) > 0 for faces in found] == [True, True, False, True]
    assert [detector.seen for detector in chain.detectors] == [[4], [2]]


def test_a_chain_that_finds_everything_at_once_leaves_the_strong_detector_alone(collins):
    chain = ChainDetector([Counting(build_detector(name, min_face_px=60)) for name in ("hog", "mtcnn")])
    chain.detect([collins])
    assert chain.detectors[1].seen == []
    assert chain.detect([]) == []


def test_a_chain_draws_everybodys_boxes_as_hog_does(collins, upside_down):
    """So that one `box_convention` is true of every picture, whoever answered."""
    chain = build_detector("hog,mtcnn", min_face_px=60)
    assert (chain.name, chain.box_convention) == ("hog,mtcnn", HOG_BOXES)
    mtcnn = build_detector("mtcnn", min_face_px=60)
    by_mtcnn = mtcnn.detect([upside_down])[0]
    faces = chain.detect([upside_down])[0]
    np.testing.assert_allclose(faces.boxes_xyxy, mtcnn.box_convention.to_hog(by_mtcnn.boxes_xyxy), rtol=1e-5)
    np.testing.assert_array_equal(faces.points5, by_mtcnn.points5)
    predictor = DlibPredictor()
    np.testing.assert_array_equal(
        predictor.predict(upside_down, faces.boxes_xyxy, chain.box_convention),
        predictor.predict(upside_down, by_mtcnn.boxes_xyxy, mtcnn.box_convention),
    )


def test_options_of_a_chain_are_given_by_name():
    chain = build_detector("hog, mtcnn", min_face_px=60, hog={"upsample": 1})
    assert chain.detectors[0].upsample == 1


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("hog,hgo", {}, "no detector 'hgo'"),
        ("hog,hog", {}, "twice"),
        ("hog,", {}, "no detector ''"),
        ("hog,mtcnn", {"dsfd": {"weights": "x"}}, "Options for dsfd, but the chain is hog, mtcnn"),
        ("hog,mtcnn", {"hog": {"upsampling": 1}}, "upsampling"),
        ("mtcnn,dsfd", {}, "brings no weights"),
    ],
)
def test_a_chain_that_cannot_be_is_refused_by_name(name, options, match):
    with pytest.raises(FacemillError, match=match):
        build_detector(name, min_face_px=60, **options)


def test_who_found_them_stays_with_chosen_rows():
    faces = Faces(np.array([[0, 0, 2, 2], [1, 1, 5, 9]], np.float32), np.ones(2, np.float32), None, "mtcnn")
    assert faces[1:].found_by == "mtcnn"
