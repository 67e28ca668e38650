"""DSFD as a detector: from the net's answers to boxes of the picture, several looks, and checkpoints from outside."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from facemill.boxes import nms
from facemill.detect import build_detector
from facemill.detect.dsfd import (
    LOOKS,
    TOP_BOXES,
    Boxes,
    DsfdDetector,
    candidates,
    choose_precision,
    load_detector,
    save_detector,
    suppressed,
    vote,
)
from facemill.errors import FacemillError
from facemill.files import file_sha256
from facemill.nets.dsfd import PUBLIC_VARIANT, Dsfd, DsfdConfig, DsfdOutput, Shot
from facemill.nets.dsfd_priors import encode, priors

NARROW = DsfdConfig(width=0.125)


pytestmark = pytest.mark.usefixtures("one_thread")


def untrained(seed=0, face_logit=0.0):
    """A narrow net that finds about every prior a bit of a face."""
    torch.manual_seed(seed)
    model = Dsfd(NARROW)
    with torch.no_grad():
        for conv in model.second_head.logits:
            conv.bias += torch.tensor([0.0, face_logit])
    return model


def test_a_picture_has_the_same_faces_to_the_bit_in_any_company():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (120, width, 3), np.uint8) for width in (90, 100, 128, 140, 200)]
    detector = DsfdDetector(untrained())
    together = detector.detect(pictures)
    assert min(map(len, together)) > 20
    for picture, faces in zip(pictures, together, strict=True):
        [alone] = detector.detect([picture])
        assert alone.boxes_xyxy.tobytes() == faces.boxes_xyxy.tobytes()
        assert alone.scores.tobytes() == faces.scores.tobytes()


class Brightest(Dsfd):
    """DSFD whose answers come from the brightness of the picture and not from weights.

    The prior of 32 px is sure of a face where its cell is white, and its offsets draw the box of 20×30 px around the
    cell's middle: what the detector does with answers can be followed by hand.
    """

    def forward(self, pictures):
        height, width = pictures.shape[2:]
        places = priors(height, width, self.config.priors, 2)
        finest = (height // 4) * (width // 4)
        cells = torch.nn.functional.avg_pool2d(pictures, 8).mean(dim=1).flatten(1)  # (N, cells of stride 8)
        logits = torch.zeros(len(pictures), len(places), 2)
        logits[..., 0] = 9.0
        logits[:, finest : finest + cells.shape[1], 1] = 18 * (cells > 0.9)
        centre = (places[:, :2] + places[:, 2:]) / 2
        box = torch.cat([centre - torch.tensor([10.2, 15.2]), centre + torch.tensor([10.2, 15.2])], dim=1)
        return DsfdOutput(None, Shot(encode(places, box).expand(len(pictures), -1, -1), logits))


def spotted(height, width, *cells):
    """A black picture whose cells (row, column) of 8 px are white."""
    picture = np.zeros((height, width, 3), np.uint8)
    for row, column in cells:
        picture[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
    return picture


def test_a_box_is_where_the_net_saw_it_rounded_outwards():
    """Cell (5, 9): middle (76, 44), box 65.8 … 86.2 by 28.8 … 59.2."""
    [faces] = DsfdDetector(Brightest(NARROW)).detect([spotted(100, 150, (5, 9))])
    assert faces.boxes_xyxy.tolist() == [[65, 28, 87, 60]]
    assert faces.scores[0] == pytest.approx(1 / (1 + np.exp(-9)), abs=1e-4)
    assert faces.points5 is None


def test_neighbours_that_see_the_same_face_leave_one_box():
    [faces] = DsfdDetector(Brightest(NARROW)).detect([spotted(128, 128, (5, 5), (5, 6), (6, 5), (12, 12))])
    assert len(faces) == 2


def test_pictures_of_many_sizes_are_answered_in_their_order():
    pictures = [spotted(64, 100, (2, 3)), spotted(300, 90, (20, 5), (3, 3)), spotted(90, 40), spotted(70, 99, (4, 8))]
    together = DsfdDetector(Brightest(NARROW)).detect(pictures)
    assert [len(faces) for faces in together] == [1, 2, 0, 1]
    for faces, picture in zip(together, pictures, strict=True):
        [alone] = DsfdDetector(Brightest(NARROW)).detect([picture])
        np.testing.assert_array_equal(faces.boxes_xyxy, alone.boxes_xyxy)


def test_a_picture_seen_smaller_gives_boxes_in_its_own_pixels():
    """min_face_px 48 shows it at half size: the box of 20.4×30.4 seen pixels is 40.8×60.8 of the picture."""
    picture = np.kron(spotted(128, 128, (5, 9)), np.ones((2, 2, 1), np.uint8))
    [faces] = DsfdDetector(Brightest(NARROW), min_face_px=48).detect([picture])
    assert faces.boxes_xyxy.tolist() == [[131, 57, 173, 119]]


def test_a_picture_beyond_max_pixels_is_seen_smaller():
    detector = DsfdDetector(Brightest(NARROW), max_pixels=128 * 128)
    assert detector._seen_size((512, 512), 1.0) == (128, 128)
    assert detector._seen_size((1, 100_000), 1.0) == (1, 128)
    assert detector._seen_size((512, 512), 2.0) is None
    assert detector._seen_size((512, 512), 0.5) == (64, 64)
    assert DsfdDetector(Brightest(NARROW))._seen_size((512, 512), 2.0) == (1024, 1024)


def test_the_mirrored_look_finds_the_box_in_the_unmirrored_picture():
    detector = DsfdDetector(Brightest(NARROW))
    plain, mirrored = LOOKS["many"][:2]
    picture = spotted(64, 96, (3, 2))  # 96 px: mirrored, its cells are cells again
    [[(_, once)], [(_, again)]] = [list(detector._look([picture], look)) for look in (plain, mirrored)]
    np.testing.assert_allclose(again.xyxy, once.xyxy, atol=1e-3)


def test_many_looks_agree_on_one_box():
    [faces] = DsfdDetector(Brightest(NARROW), looks="many").detect([spotted(128, 128, (7, 7))])
    assert len(faces) >= 1
    left, top, right, bottom = faces.boxes_xyxy[0]
    assert left < 60 < right
    assert top < 60 < bottom


def test_reduced_looks_keep_large_faces_and_enlarged_ones_small_faces():
    by_scale = {look.scale: look for look in LOOKS["many"] if not look.mirrored}
    assert sorted(by_scale) == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.25]
    assert {look.min_longer_px for scale, look in by_scale.items() if scale < 1} == {30}
    assert {look.max_shorter_px for scale, look in by_scale.items() if scale > 1} == {100}
    assert by_scale[1] == (1, False, 0, float("inf"))


@pytest.mark.parametrize("spread", [2000, 40])
def test_suppression_in_two_steps_keeps_what_one_step_keeps(spread):
    """Of 3,000 boxes 750 are found among the first 1,500 where they lie apart, and not where they lie together."""
    random = np.random.default_rng(0)
    left_top = random.uniform(0, spread, (3000, 2))
    boxes = Boxes(np.hstack([left_top, left_top + 20]).astype(np.float32), np.linspace(1, 0, 3000, dtype=np.float32))
    whole = boxes.chosen(nms(boxes.xyxy, boxes.scores, 0.3)[:TOP_BOXES])
    np.testing.assert_array_equal(suppressed(boxes).xyxy, whole.xyxy)


def test_voting_averages_by_score_and_keeps_the_best_score():
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [2, 0, 12, 10]], np.float32)
    voted = vote(Boxes(boxes, np.array([0.9, 0.5, 0.3], np.float32)))
    np.testing.assert_allclose(voted.xyxy, [[0.5, 0, 10.5, 10], [50, 50, 60, 60]], atol=1e-5)
    np.testing.assert_allclose(voted.scores, [0.9, 0.5])


def test_voting_makes_at_most_750_boxes_and_nothing_of_nothing():
    left_top = np.arange(1000, dtype=np.float32)[:, None] * [100, 0]
    boxes = np.hstack([left_top, left_top + 10]).astype(np.float32)
    assert vote(Boxes(boxes, np.linspace(1, 0.5, 1000, dtype=np.float32))).xyxy.shape == (TOP_BOXES, 4)
    assert vote(Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))).xyxy.shape == (0, 4)


def test_a_batch_of_candidates_is_what_each_picture_has_over_the_threshold():
    model = Dsfd(NARROW)
    logits = torch.zeros(2, 1365, 2)
    logits[..., 1] = -5
    logits[0, 7, 1], logits[0, 9, 1], logits[1, 30, 1] = 2, 3, 1
    found = candidates(DsfdOutput(None, Shot(torch.zeros(2, 1365, 4), logits)), (128, 128), model, 0.5)
    places = priors(128, 128, NARROW.priors, 2)
    np.testing.assert_allclose(found[0].xyxy, places[[9, 7]], atol=1e-4)
    np.testing.assert_allclose(found[1].xyxy, places[[30]], atol=1e-4)


@pytest.mark.parametrize("looks", list(LOOKS))
def test_a_crowd_of_boxes_is_cut_at_750_and_sorted(looks):
    detector = DsfdDetector(untrained(face_logit=3), threshold=0.01, looks=looks)
    picture = np.random.default_rng(0).integers(0, 256, (200, 260, 3), dtype=np.uint8)
    [faces] = detector.detect([picture])
    assert 100 < len(faces) <= TOP_BOXES
    assert (np.diff(faces.scores) <= 0).all()
    np.testing.assert_array_equal(faces.boxes_xyxy, np.rint(faces.boxes_xyxy))


@pytest.mark.parametrize("looks", list(LOOKS))
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 5000), (5000, 1), (128, 128)])
def test_thin_tiny_and_black_pictures_are_answered(looks, size_hw):
    detector = DsfdDetector(Brightest(NARROW), looks=looks, max_pixels=400_000)
    [faces] = detector.detect([np.zeros((*size_hw, 3), np.uint8)])
    assert faces.boxes_xyxy.shape == (0, 4)
    assert detector.detect([]) == []


def test_no_box_has_its_middle_in_the_padding():
    [faces] = DsfdDetector(untrained(face_logit=9)).detect([np.zeros((20, 30, 3), np.uint8)])
    centres = (faces.boxes_xyxy[:, :2] + faces.boxes_xyxy[:, 2:]) / 2
    assert len(faces)
    assert (centres <= np.array([30, 20]) + 0.5).all()


def test_grey_pictures_are_refused():
    with pytest.raises(ValueError, match="RGB picture, uint8"):
        DsfdDetector(Brightest(NARROW)).detect([np.zeros((9, 9), np.uint8)])


def test_answers_that_overflow_name_the_precision():
    model = untrained()
    with torch.no_grad():
        model.second_head.logits[0].bias[0] = torch.inf
    with pytest.raises(FacemillError, match=r"overflow in torch\.float32: set precision"):
        DsfdDetector(model).detect([np.zeros((9, 9, 3), np.uint8)])


def test_a_cpu_runs_in_float32_and_refuses_half_precision():
    assert choose_precision("auto", torch.device("cpu")) == torch.float32
    with pytest.raises(FacemillError, match="bfloat16 is for GPUs"):
        choose_precision("bfloat16", torch.device("cpu"))
    with pytest.raises(FacemillError, match="precision must be auto, float32"):
        choose_precision("int8", torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")
def test_half_precision_on_a_gpu_finds_what_float32_finds():
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    half, full = (
        DsfdDetector(untrained(), device="cuda", precision=precision, threshold=0.4).detect([picture])[0]
        for precision in ("auto", "float32")
    )
    assert len(half) == pytest.approx(len(full), rel=0.05)
    np.testing.assert_allclose(half.scores[:20], full.scores[:20], atol=0.02)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"looks": "two"}, "looks must be one of one, many"),
        ({"threshold": 1.5}, "threshold is a probability"),
        ({"max_pixels": 100}, "max_pixels must be at least 16384"),
    ],
)
def test_impossible_options_are_refused(wrong, says):
    with pytest.raises(FacemillError, match=says):
        DsfdDetector(Brightest(NARROW), **wrong)


@pytest.fixture
def folder(tmp_path):
    """What training leaves behind."""
    save_detector(tmp_path / "dsfd", untrained(), {"steps": 12})
    return tmp_path / "dsfd"


def test_a_saved_detector_loads_with_its_config_and_answers_the_same(folder):
    loaded = load_detector(folder)
    picture = torch.rand(1, 3, 128, 128)
    assert loaded.config == NARROW
    assert json.loads((folder / "model.json").read_text())["steps"] == 12
    torch.testing.assert_close(loaded(picture).second.logits, untrained().eval()(picture).second.logits)


def test_a_half_precision_export_is_half_as_large_and_close(tmp_path, folder):
    save_detector(tmp_path / "half", untrained(), half=True)
    sizes = [(where / "weights.safetensors").stat().st_size for where in (tmp_path / "half", folder)]
    assert sizes[0] < 0.55 * sizes[1]
    half, full = load_detector(tmp_path / "half"), load_detector(folder)
    for rounded, value in zip(half.parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(rounded, value, atol=1e-3, rtol=1e-3)


def test_the_registered_name_builds_a_detector_from_a_folder(folder):
    detector = build_detector("dsfd", min_face_px=40, weights=folder)
    assert detector.name == "dsfd"
    assert len(detector.detect([np.zeros((64, 64, 3), np.uint8)])) == 1


def test_without_weights_the_error_says_what_to_name():
    with pytest.raises(FacemillError, match="brings no weights: name a trained folder or a checkpoint"):
        build_detector("dsfd", min_face_px=40)


def test_a_folder_whose_files_do_not_belong_together_is_refused(folder):
    weights = load_file(folder / "weights.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, folder / "weights.safetensors")
    with pytest.raises(FacemillError, match=r"weights\.safetensors has SHA-256"):
        load_detector(folder)


def test_a_model_of_another_kind_and_another_hash_are_refused(folder):
    with pytest.raises(FacemillError, match="another training's"):
        load_detector(folder, sha256="0" * 64)
    (folder / "model.json").write_text('{"name": "autoencoder"}')
    with pytest.raises(FacemillError, match="describes 'autoencoder', not a DSFD"):
        load_detector(folder)
    (folder / "model.json").write_text('{"name": "dsfd", "config": {"depth": 3}}')
    with pytest.raises(FacemillError, match="does not describe a DSFD"):
        load_detector(folder)


def test_weights_with_nan_are_neither_written_nor_read(tmp_path):
    model = untrained()
    with torch.no_grad():
        model.extras[0].bias[0] = torch.nan
    with pytest.raises(FacemillError, match=r"extras\.0\.bias holds NaN"):
        save_detector(tmp_path, model)
    assert not list(tmp_path.iterdir())


def public_state():
    """A checkpoint with the public names and the whole net's shapes, of weights that a seed decides."""
    torch.manual_seed(3)
    return {_public(name): value for name, value in Dsfd(PUBLIC_VARIANT).state_dict().items()}


def _public(name):
    """One of our names as the public checkpoint has it: the mapping backwards, written anew."""
    part, *rest = name.split(".")
    if part == "backbone":
        return ".".join(["vgg", *rest])
    if part in ("first_norms", "second_norms"):
        return f"L2Norm{'of' if part == 'first_norms' else 'ef'}{int(rest[0]) + 1}.weight"
    if part in ("first_head", "second_head"):
        kind = "loc" if rest[0] == "offsets" else "conf"
        return f"{kind}_pal{1 if part == 'first_head' else 2}.{rest[1]}.{rest[2]}"
    if part == "enhance" and rest[0] == "branches":
        _, level, _, chain, at, value = rest
        branch = "branch1" if chain == "0" else f"branch{int(chain) + 1}.{at}"
        return f"fpn_fem.{level}.{branch}.{value}"
    if part == "enhance":
        return ".".join([{"top_down": "fpn_topdown", "lateral": "fpn_latlayer"}[rest[0]], *rest[1:]])
    return name


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_public_checkpoint_loads_with_square_priors(tmp_path, wrapped):
    state, path = public_state(), tmp_path / "dsfd_vgg.pth"
    torch.save({"epoch": 5, "weight": state} if wrapped else state, path)
    model = load_detector(path, sha256=file_sha256(path))
    assert model.config == PUBLIC_VARIANT
    assert torch.equal(model.backbone[31].weight, state["vgg.31.weight"])
    assert torch.equal(model.enhance.branches[2].chains[2][4].bias, state["fpn_fem.2.branch3.4.bias"])
    assert torch.equal(model.second_head.logits[5].weight, state["conf_pal2.5.weight"])


def test_a_checkpoint_wants_its_hash_and_its_own_net(tmp_path):
    path = tmp_path / "resnet.pth"
    torch.save({"layer1.0.conv1.weight": torch.ones(64, 3, 7, 7)}, path)
    with pytest.raises(FacemillError, match=r"resnet\.pth is a pickle.*state the SHA-256"):
        build_detector("dsfd", min_face_px=20, weights=path)
    with pytest.raises(
        FacemillError,
        match=r"resnet\.pth lacks \d+ weight\(s\), first backbone\.0\.bias: .*wanted are those of DSFD",
    ):
        build_detector("dsfd", min_face_px=20, weights=path, sha256=file_sha256(path))
