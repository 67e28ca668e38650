"""What lies in front of a face that is replaced stays in front: planted things whose places are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from known_nets import PassThrough
from onnx import TensorProto, helper, numpy_helper
from runs import Run
from test_detail_exemplars import COVERAGE, NET_PX, drawn_by_a_net

from facemill.align import crop_affine, transform, warp
from facemill.errors import FacemillError
from facemill.files import file_sha256
from facemill.pictures import encode_png
from facemill.sources.sample import Pose, render
from facemill.swap.detail.exemplars import Exemplars
from facemill.swap.mask import face_mask
from facemill.swap.occlusion.guided import guided
from facemill.swap.occlusion.methods import FaceView, OcclusionMethod, OcclusionNeeds, occlusion_method
from facemill.swap.occlusion.residual import LEAST_AREA, parts_in_front
from facemill.swap.occlusion.usual import BROAD_LEAST_PICTURES, MOST_UNFAMILIAR, what_is_usual
from facemill.swap.painter import MASK_PX, FacePainter, FacesOfFrame, WantedFace
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper
from facemill.video import Frame, read_frames

SIDE = 400
LIGHTS = [(gamma, warmth) for gamma in (0.8, 1.0, 1.25) for warmth in (-0.1, 0.1)]
POSES = [Pose(yaw_deg=yaw, mouth_open=opened) for yaw in (-8, 0, 8) for opened in (0.0, 0.3)]


class KnowsHopper(PassThrough):
    """Draws Hopper as a net of few pixels that has learnt her does, whatever hides her; whoever else is green."""

    input_px = NET_PX

    def __init__(self, picture: np.ndarray, landmarks: np.ndarray) -> None:
        super().__init__()
        self.known = torch.from_numpy(drawn_by_a_net(picture, landmarks)).permute(2, 0, 1)[None].float() / 255

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        if identity == "hopper":
            return self.known.expand(len(face), -1, -1, -1)
        return torch.zeros_like(face) + torch.tensor([0.1, 0.8, 0.1]).view(1, 3, 1, 1)


def pictures_of_hopper(poses: Sequence[Pose] = POSES) -> Exemplars:
    crops, points, drawn = [], [], []
    for pose in poses:
        picture, landmarks = render("hopper", pose, (SIDE, SIDE))
        affine = crop_affine(landmarks, 256, 1.6)
        crops.append(encode_png(warp(picture, affine, 256)))
        points.append(transform(landmarks, affine))
        drawn.append(drawn_by_a_net(picture, landmarks))
    ids = tuple(f"hopper-{number}" for number in range(len(poses)))
    return Exemplars("hopper", ids, tuple(crops), np.array(points), np.stack(drawn), np.ones(len(poses)))


@pytest.fixture(scope="module")
def pictures() -> Exemplars:
    return pictures_of_hopper()


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray]:
    """Hopper, and her landmarks."""
    return render("hopper", Pose(), (SIDE, SIDE))


@pytest.fixture
def knowing(swapper: Swapper, face: tuple[np.ndarray, np.ndarray], pictures: Exemplars) -> Swapper:
    return replace(swapper, model=KnowsHopper(*face), coverage=COVERAGE, exemplars={"hopper": pictures})


def painted(swapper: Swapper, picture: np.ndarray, landmarks: np.ndarray, occlusion: str) -> np.ndarray:
    painter = FacePainter(swapper, SwapSettings(colour="none", detail="none", occlusion=occlusion))
    frame = Frame.from_rgb(picture.copy(), 0, Fraction(1, 25), pix_fmt="yuv444p")
    [told] = painter.paint([FacesOfFrame(frame, (WantedFace("hopper", landmarks),))])
    assert (told.swapped, told.failure) == (("hopper",), None)
    return frame.rgb


def with_thing(picture: np.ndarray, landmarks: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The picture with something in front of the face, and where it lies, bool."""
    x, y = landmarks[30].astype(int)
    height = int(np.ptp(landmarks[:, 1]))
    mask = np.zeros(picture.shape[:2], np.uint8)
    if what.startswith("disc"):
        cv2.circle(mask, (x, y + height // 5), height // 5, 1, -1)
    elif what.startswith("bar"):
        cv2.rectangle(mask, (0, y - height // 10), (SIDE, y + height // 10), 1, -1)
    else:
        cv2.line(mask, (x - height // 4, y - height // 2), (x + height // 8, y + height // 2), 1, height // 20)
    colour = {"blue": (30, 60, 220), "white": (250, 250, 250), "dark": (20, 18, 15)}[what.partition(" ")[2]]
    return np.where(mask[..., None] > 0, np.uint8(colour), picture), mask > 0


@pytest.mark.parametrize("what", ["disc blue", "disc white", "disc dark", "bar blue", "bar white", "strand dark"])
def test_what_lies_in_front_stays_and_the_face_around_it_is_replaced(
    knowing: Swapper, face: tuple[np.ndarray, np.ndarray], what: str
) -> None:
    picture, landmarks = face
    covered, thing = with_thing(picture, landmarks, what)
    over, behind = (painted(knowing, covered, landmarks, name) for name in ("none", "residual"))
    replaced = np.abs(over.astype(int) - covered).max(axis=2) > 40  # where the new face is seen plainly
    inner = cv2.erode(thing.astype(np.uint8), np.ones((3, 3))) > 0
    kept = np.abs(behind.astype(int) - covered).max(axis=2)[inner & replaced] < 20
    assert kept.mean() > 0.9
    away = cv2.dilate(thing.astype(np.uint8), np.ones((25, 25))) == 0
    changed = np.abs(behind.astype(int) - over).max(axis=2)[away & replaced] > 20
    assert changed.mean() < 0.01


@pytest.mark.parametrize("pose", [Pose(), Pose(yaw_deg=4), Pose(mouth_open=0.15), Pose(gamma=1.3), Pose(warmth=0.1)])
def test_an_open_face_is_replaced_whole(knowing: Swapper, pose: Pose) -> None:
    picture, landmarks = render("hopper", pose, (SIDE, SIDE))
    known = replace(knowing, model=KnowsHopper(picture, landmarks))
    over, looked_at = (painted(known, picture, landmarks, name) for name in ("none", "residual"))
    assert np.array_equal(over, looked_at)


def test_a_face_with_a_black_and_white_films_tones_is_not_taken_for_covered(
    knowing: Swapper, face: tuple[np.ndarray, np.ndarray]
) -> None:
    picture, landmarks = face
    grey = np.repeat(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    over, looked_at = (painted(knowing, grey, landmarks, name) for name in ("none", "residual"))
    assert np.array_equal(over, looked_at)


def view_of(picture: np.ndarray, landmarks: np.ndarray) -> FaceView:
    affine = crop_affine(landmarks, NET_PX, COVERAGE)
    fine = warp(picture, crop_affine(landmarks, MASK_PX, COVERAGE), MASK_PX)
    return FaceView("hopper", warp(picture, affine, NET_PX), fine, transform(landmarks, affine))


def method_of(swapper: Swapper, name: str = "residual", **options: object) -> OcclusionMethod:
    needs = OcclusionNeeds(tuple(swapper.becomes), swapper.coverage, swapper.exemplars, swapper.redraw)
    return occlusion_method(name, needs, options)


def with_skin(picture: np.ndarray, landmarks: np.ndarray, shade: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture with a disc over cheek and mouth in nearly the tone of what it hides, and where it lies, bool."""
    x, y = landmarks[48].astype(int)
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.circle(mask, (x, y), int(np.ptp(landmarks[:, 1])) // 4, 1, -1)
    skin = cv2.GaussianBlur(picture, (0, 0), 6) * shade
    return np.where(mask[..., None] > 0, np.uint8(skin), picture), mask > 0


def drawn_roughly(drawn: np.ndarray, seed: int) -> np.ndarray:
    """A drawing with errors that change from place to place, as a net makes them that has learnt for some minutes."""
    errors = cv2.GaussianBlur(np.random.default_rng(seed).normal(0, 1, drawn.shape[:2]), (0, 0), 1.2)
    return np.asarray(np.clip(drawn + 11 / errors.std() * errors[..., None], 0, 255), np.uint8)


def many_roughly_drawn() -> Exemplars:
    """Hopper in several lights, each eight times with other errors of the drawing."""
    few = pictures_of_hopper([Pose(gamma=gamma, warmth=warmth) for gamma, warmth in LIGHTS])
    times = -(-BROAD_LEAST_PICTURES // len(few))
    drawn = np.stack([drawn_roughly(one, seed) for seed, one in enumerate(np.tile(few.drawn, (times, 1, 1, 1)), 1)])
    ids, points = tuple(f"hopper-{number}" for number in range(len(drawn))), np.tile(few.landmarks, (times, 1, 1))
    return Exemplars("hopper", ids, few.encoded * times, points, drawn, np.ones(len(drawn)))


def roughly_drawing(knowing: Swapper, face: tuple[np.ndarray, np.ndarray], cast: np.ndarray) -> OcclusionMethod:
    """What looks at faces with a net that draws Hopper roughly, in light of that colour."""
    net = KnowsHopper(*face)
    drawn = drawn_roughly(drawn_by_a_net(*face), 0) * cast
    net.known = torch.from_numpy(np.clip(drawn, 0, 255)).permute(2, 0, 1)[None].float() / 255
    return method_of(replace(knowing, model=net, exemplars={"hopper": many_roughly_drawn()}))


@pytest.mark.parametrize(
    ("shown", "drawn"),
    [
        (Pose(mouth_open=1.0), Pose(mouth_open=0.5)),
        (Pose(yaw_deg=22), Pose(yaw_deg=15)),
        (Pose(pitch_deg=-14), Pose(pitch_deg=-5)),
        (Pose(brows=1.0), Pose()),
    ],
    ids=["mouth", "turned", "nodding", "brows"],
)
def test_a_face_as_no_picture_shows_it_is_not_taken_for_covered(knowing: Swapper, shown: Pose, drawn: Pose) -> None:
    """The net follows half of the way, as one does that has seen no such face."""
    net = KnowsHopper(*render("hopper", drawn, (SIDE, SIDE)))
    view = view_of(*render("hopper", shown, (SIDE, SIDE)))
    assert method_of(replace(knowing, model=net)).find([view]) == [None]


def test_the_further_a_face_is_from_all_pictures_the_more_it_may_differ_part_by_part(pictures: Exemplars) -> None:
    usual = what_is_usual(pictures, COVERAGE)

    def allowed(pose: Pose) -> np.ndarray:
        picture, landmarks = render("hopper", pose, (SIDE, SIDE))
        return usual.shaped_otherwise(view_of(picture, landmarks).landmarks, NET_PX)

    assert allowed(POSES[0]).max() == 1
    mouth, brow = (slice(NET_PX * 5 // 8, NET_PX * 7 // 8), NET_PX // 2), (NET_PX // 4, slice(None))
    opened = allowed(Pose(mouth_open=1.0))
    assert opened[mouth].max() > 1.5 * opened[brow].max()
    further = [allowed(Pose(yaw_deg=turn)).mean() for turn in (8, 14, 20, 26)]
    assert sorted(further) == further
    assert 0.9 * MOST_UNFAMILIAR < further[-1] <= MOST_UNFAMILIAR


def test_the_further_light_is_from_all_pictures_the_more_a_face_may_differ(pictures: Exemplars) -> None:
    usual = what_is_usual(pictures, COVERAGE)
    middle = usual.tones.mean(axis=0)
    found = [usual.lit_otherwise(middle - np.float32([less, 0, 0])) for less in (0.0, 18.0, 22.0, 90.0)]
    assert found[0] == 1
    assert sorted(found) == found
    assert found[-1] == MOST_UNFAMILIAR


@pytest.mark.parametrize("shade", [0.82, 0.86, 0.88])
def test_skin_in_front_is_found_though_no_pixel_of_it_differs_by_much(
    knowing: Swapper, face: tuple[np.ndarray, np.ndarray], shade: float
) -> None:
    covered, thing = with_skin(*face, shade)
    method = roughly_drawing(knowing, face, np.ones(3))
    open_, found = method.find([view_of(face[0], face[1]), view_of(covered, face[1])])
    assert open_ is None
    assert found is not None
    affine = crop_affine(face[1], MASK_PX, COVERAGE)
    inside = face_mask(transform(face[1], affine), MASK_PX, 0.0) > 0.5
    true = (cv2.warpAffine(thing.astype(np.uint8), affine, (MASK_PX, MASK_PX)) > 0) & inside
    assert (found.hidden[true] > 0.5).mean() > 0.5
    assert (found.hidden[inside & ~true] > 0.5).mean() < 0.1


@pytest.mark.parametrize("cast", [(0.75, 0.95, 1.0), (0.7, 1.0, 1.0)])
def test_in_light_that_no_picture_shows_a_tone_tells_nothing(
    knowing: Swapper, face: tuple[np.ndarray, np.ndarray], cast: tuple[float, float, float]
) -> None:
    covered, _ = with_skin(*face, 0.86)
    lit = np.asarray(np.clip(covered * np.array(cast), 0, 255), np.uint8)
    assert roughly_drawing(knowing, face, np.array(cast)).find([view_of(lit, face[1])]) == [None]


def test_the_net_that_draws_the_new_face_is_shown_the_old_one_uncovered(
    knowing: Swapper, face: tuple[np.ndarray, np.ndarray]
) -> None:
    picture, landmarks = face
    covered, _ = with_thing(picture, landmarks, "disc blue")
    [found] = method_of(knowing).find([view_of(covered, landmarks)])
    assert found is not None
    whole, hidden = view_of(picture, landmarks).crop.astype(int), view_of(covered, landmarks).crop.astype(int)
    assert np.abs(found.crop - whole).mean() < 0.3 * np.abs(hidden - whole).mean()


def test_a_face_is_found_the_same_alone_and_among_others(knowing: Swapper, face: tuple[np.ndarray, np.ndarray]) -> None:
    picture, landmarks = face
    views = [view_of(with_thing(picture, landmarks, what)[0], landmarks) for what in ("disc blue", "bar white")]
    views.insert(1, view_of(picture, landmarks))
    together = method_of(knowing).find(views)
    assert together[1] is None
    for view, found in zip(views, together, strict=True):
        [alone] = method_of(knowing).find([view])
        assert (alone is None) == (found is None)
        if alone and found:
            assert np.array_equal(alone.hidden, found.hidden)
            assert np.array_equal(alone.crop, found.crop)


def test_a_net_that_fails_costs_nothing_but_what_lies_in_front(
    knowing: Swapper, face: tuple[np.ndarray, np.ndarray]
) -> None:
    class CannotDrawHopper(KnowsHopper):
        def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
            if identity == "hopper":
                raise RuntimeError("out of memory")
            return super().forward(face, identity)

    covered, _ = with_thing(*face, "disc blue")
    failing = replace(knowing, model=CannotDrawHopper(*face))
    over, looked_at = (painted(failing, covered, face[1], name) for name in ("none", "residual"))
    assert np.array_equal(over, looked_at)


def test_a_model_without_pictures_says_that_it_draws_over_things(
    people: Path, tmp_path: Path, swapper: Swapper, settings: SwapSettings, run: Run
) -> None:
    receipt = run(people, tmp_path / "looked at.mp4", swapper, replace(settings, occlusion="residual"))
    assert any("no exemplars of hopper" in warning for warning in receipt.warnings)
    run(people, tmp_path / "over.mp4", swapper, replace(settings, occlusion="none"))
    assert file_sha256(tmp_path / "looked at.mp4") == file_sha256(tmp_path / "over.mp4")


# -- parts and outlines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peak", "side", "share"),
    [(1.2, 20, 0.0), (1.9, 20, 0.0), (2.2, 20, 0.5), (3.0, 20, 1.0), (3.0, 2, 0.0)],
)
def test_a_part_counts_by_its_size_and_its_strongest_pixel(peak: float, side: int, share: float) -> None:
    times = np.full((64, 64), 0.5, np.float32)
    times[10 : 10 + side, 10 : 10 + side] = min(peak, 1.5)
    times[11, 11] = peak
    assert (side * side > LEAST_AREA * times.size) == (side > 2)
    parts = parts_in_front(times, np.ones((64, 64), bool))
    expected = np.zeros((64, 64))
    expected[10 : 10 + side, 10 : 10 + side] = share
    np.testing.assert_allclose(parts, expected, atol=1e-5)


@pytest.mark.parametrize(("width", "count"), [(2, 0), (4, 1)])
def test_a_strip_along_the_edge_of_a_face_is_a_jaw_that_is_drawn_beside_it(width: int, count: int) -> None:
    inside = np.zeros((64, 64), bool)
    inside[8:56, 12:52] = True
    times = np.full((64, 64), 0.5, np.float32)
    times[20:50, 12 : 12 + width] = 3.0
    assert len(np.unique(parts_in_front(times, inside))) == 1 + count


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), radius=st.integers(1, 9))
def test_the_guided_filter_is_that_of_the_paper(seed: int, radius: int) -> None:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    picture = np.asarray(cv2.resize(coarse, (30, 24), interpolation=cv2.INTER_CUBIC))
    mask = np.asarray(cv2.resize(random.random((4, 5)).astype(np.float32), (30, 24)), np.float32)
    size, colours = (2 * radius + 1, 2 * radius + 1), picture / 255.0
    means, mask_mean = cv2.blur(colours, size), cv2.blur(mask.astype(float), size)
    pairs = np.stack([cv2.blur(colours * colours[..., k : k + 1], size) for k in range(3)], axis=-1)
    covariance = pairs - means[..., None] * means[..., None, :] + 1e-3 * np.eye(3)
    along = cv2.blur(colours * mask[..., None], size) - means * mask_mean[..., None]
    slopes = np.linalg.solve(covariance, along[..., None])[..., 0]
    offsets = mask_mean - (slopes * means).sum(-1)
    expected = np.clip((cv2.blur(slopes, size) * colours).sum(-1) + cv2.blur(offsets, size), 0, 1)
    np.testing.assert_allclose(guided(mask, picture, radius), expected, atol=2e-3)


# -- a net from a file -------------------------------------------------------------------------------------------------


def net_file(path: Path, channels: int, *, weights: np.ndarray, bias: np.ndarray, last: bool = False) -> Path:
    """An ONNX file with one 1×1 convolution of three channels into `channels`."""
    side = 64
    taken = [1, side, side, 3] if last else [1, 3, side, side]
    given_ = [1, side, side, channels] if last else [1, channels, side, side]
    nodes = [helper.make_node("Conv", ["y" if last else "x", "w", "b"], ["z"], kernel_shape=[1, 1])]
    if last:
        nodes.insert(0, helper.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2]))
        nodes.append(helper.make_node("Transpose", ["z"], ["out"], perm=[0, 2, 3, 1]))
    values = [
        numpy_helper.from_array(weights.astype(np.float32).reshape(channels, 3, 1, 1), "w"),
        numpy_helper.from_array(bias.astype(np.float32), "b"),
    ]
    graph = helper.make_graph(
        nodes,
        "segments",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info("out" if last else "z", TensorProto.FLOAT, given_)],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    onnx.save(model, str(path))
    return path


def no_blue(path: Path, *, last: bool = False, bgr: bool = False) -> Path:
    """Logits of a face: all that is not much bluer than red."""
    towards = np.array([[-40.0, 0, 40.0] if bgr else [40.0, 0, -40.0]])
    return net_file(path, 1, weights=towards, bias=np.array([12.0]), last=last)


@pytest.mark.parametrize(("last", "bgr"), [(False, False), (True, False), (True, True), (False, True)])
def test_a_net_from_a_file_says_what_is_no_face(
    knowing: Swapper, face: tuple[np.ndarray, np.ndarray], tmp_path: Path, last: bool, bgr: bool
) -> None:
    picture, landmarks = face
    covered, thing = with_thing(picture, landmarks, "disc blue")
    weights = no_blue(tmp_path / "net.onnx", last=last, bgr=bgr)
    method = method_of(knowing, "segments", weights=str(weights), input_px=64, channels_last=last, bgr=bgr)
    [open_, found] = method.find([view_of(picture, landmarks), view_of(covered, landmarks)])
    assert open_ is None
    assert found is not None
    affine = crop_affine(landmarks, MASK_PX, COVERAGE)
    true = cv2.warpAffine(thing.astype(np.uint8), affine, (MASK_PX, MASK_PX)) > 0
    inside = face_mask(transform(landmarks, affine), MASK_PX, 0.0) > 0.5
    assert ((found.hidden > 0.5) & true).sum() / (((found.hidden > 0.5) | true) & inside).sum() > 0.85


def test_a_net_that_tells_classes_is_asked_for_those_of_faces(
    knowing: Swapper, face: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    covered, _ = with_thing(*face, "disc blue")
    towards = np.array([[0.0, 0, 1.0], [1.0, 0, 0], [0, 0, 0]])  # hand, skin, nothing
    weights = net_file(tmp_path / "net.onnx", 3, weights=towards, bias=np.array([0.0, 0.2, 0.0]))
    options = {"weights": str(weights), "input_px": 64}
    with pytest.raises(FacemillError, match="tells 3 classes"):
        method_of(knowing, "segments", **options)
    [found] = method_of(knowing, "segments", face_classes=[1, 2], **options).find([view_of(covered, face[1])])
    assert found is not None
    [nothing] = method_of(knowing, "segments", face_classes=[2], **options).find([view_of(covered, face[1])])
    assert nothing is None  # the net sees no face at all


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "weights"),
        ({"weights": "nowhere.onnx"}, "there is no file"),
        ({"weights": "text.onnx"}, "no ONNX file that OpenCV reads"),
        ({"weights": "net.onnx", "input_px": 4}, "between 16 and 2048"),
        ({"weights": "net.onnx", "std": [1.0, 0.0, 1.0]}, "above 0"),
        ({"weights": "net.onnx", "face_classes": []}, "at least one class"),
        ({"weights": "net.onnx", "colour": 1}, "has no option colour"),
    ],
)
def test_a_net_that_cannot_serve_is_refused_by_name(
    knowing: Swapper, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    no_blue(tmp_path / "net.onnx")
    (tmp_path / "text.onnx").write_text("no net")
    if "weights" in options:
        options = options | {"weights": str(tmp_path / str(options["weights"]))}
    with pytest.raises(FacemillError, match=message):
        method_of(knowing, "segments", **options)


def test_frames_with_a_thing_in_front_are_converted_alike_twice(
    people: Path, tmp_path: Path, knowing: Swapper, settings: SwapSettings, run: Run
) -> None:
    for name in ("one", "two"):
        run(people, tmp_path / f"{name}.mp4", knowing, replace(settings, occlusion="residual"))
    assert file_sha256(tmp_path / "one.mp4") == file_sha256(tmp_path / "two.mp4")
    assert len(list(read_frames(tmp_path / "one.mp4"))) == 20
