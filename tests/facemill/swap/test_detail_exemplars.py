"""Detail from exemplars, against rendered faces whose landmarks are known: what the net lost comes back, light does not
come along, and nothing gets sharper or more colourful than the frame."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

from facemill.align import Affine, compose, crop_affine, crop_points, invert, transform, warp
from facemill.pictures import encode_png
from facemill.sources.sample import Pose, render
from facemill.swap.detail.drawn import DrawnShape, drawn_shapes
from facemill.swap.detail.exemplars import Exemplars, aligned, from_crop, to_crop
from facemill.swap.detail.focus import as_sharp_as
from facemill.swap.detail.from_exemplars import ExemplarDetail, FrameChoice, region_weights
from facemill.swap.detail.mesh import GRID_PX, FaceMesh, corners_of
from facemill.swap.detail.path import KEPT, REGIONS
from facemill.swap.mask import face_mask

NET_PX, COVERAGE, FRAME_PX = 64, 1.2, 360


def drawn_by_a_net(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """What a net of few pixels holds of a face."""
    crop = warp(picture, crop_affine(landmarks, NET_PX, COVERAGE), NET_PX)
    return np.asarray(cv2.GaussianBlur(crop, (0, 0), 1.0))


def exemplars_of(*poses: Pose) -> Exemplars:
    crops, points, drawn = [], [], []
    for pose in poses:
        picture, landmarks = render("collins", pose, (400, 400))
        affine = crop_affine(landmarks, 256, 1.6)
        crops.append(encode_png(warp(picture, affine, 256)))
        points.append(transform(landmarks, affine))
        drawn.append(drawn_by_a_net(picture, landmarks))
    ids = tuple(f"collins-{number}" for number in range(len(poses)))
    return Exemplars("collins", ids, tuple(crops), np.array(points), np.stack(drawn), np.ones(len(poses)))


class Swapped:
    """A frame of Collins, and the same drawn by the net and brought back, with no detail yet."""

    def __init__(self, pose: Pose, size_px: int = FRAME_PX) -> None:
        self.truth, self.landmarks = render("collins", pose, (size_px, size_px))
        self.affine: Affine = crop_affine(self.landmarks, NET_PX, COVERAGE)
        self.face = drawn_by_a_net(self.truth, self.landmarks).astype(np.float32) / 255
        self.points = transform(self.landmarks, self.affine)
        how = cv2.WARP_INVERSE_MAP
        size = (size_px, size_px)
        self.new = np.clip(cv2.warpAffine(self.face, self.affine, size, flags=cv2.INTER_CUBIC | how), 0, 1)
        mask = face_mask(self.points, NET_PX, 0.1)
        self.weight = np.asarray(cv2.warpAffine(mask, self.affine, size, flags=cv2.INTER_LINEAR | how), np.float32)

    def with_detail(self, exemplars: Exemplars, number: int = 0, gain: float = 1.0) -> np.ndarray:
        index = np.full((len(REGIONS), KEPT), number, np.int16)
        weight = np.zeros((len(REGIONS), KEPT), np.float32)
        weight[:, 0] = 1
        choice = FrameChoice(index, weight, np.full(len(REGIONS), gain, np.float32))
        detail = ExemplarDetail(exemplars, COVERAGE)
        return detail.add(self.new, self.truth, self.weight, self.affine, self.face, self.points, choice)

    def error(self, picture: np.ndarray) -> float:
        return float(np.abs(picture - self.truth / 255.0)[self.weight > 0.9].mean())


def fine(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.Laplacian(cv2.cvtColor(picture.astype(np.float32), cv2.COLOR_RGB2GRAY), cv2.CV_32F))


def test_what_the_net_lost_comes_back_from_a_picture_of_another_turn() -> None:
    swapped = Swapped(Pose(yaw_deg=6, smile=0.2))
    result = swapped.with_detail(exemplars_of(Pose(yaw_deg=-4)))
    inside = swapped.weight > 0.9
    assert swapped.error(result) < 0.8 * swapped.error(swapped.new)
    assert fine(result)[inside].std() > 2 * fine(swapped.new)[inside].std()
    # it lies where it belongs: the fine structure is that of the true frame
    truth = fine(swapped.truth / 255)[inside]
    assert np.corrcoef(fine(result)[inside], truth)[0, 1] > np.corrcoef(fine(swapped.new)[inside], truth)[0, 1] + 0.15


def test_light_and_shadow_are_not_copied() -> None:
    swapped = Swapped(Pose())
    result = swapped.with_detail(exemplars_of(Pose(light=0.8, light_from_deg=0)))
    added = cv2.GaussianBlur((result - swapped.new).mean(axis=2), (0, 0), FRAME_PX / 30)
    assert np.abs(added[swapped.weight > 0.9]).max() < 0.02  # the light of the exemplar differs by 0.2 and more


def test_a_mouth_that_does_not_fit_the_drawing_adds_little() -> None:
    closed = Swapped(Pose())
    mouth = np.zeros(closed.weight.shape, np.uint8)
    cv2.fillConvexPoly(mouth, cv2.convexHull(closed.landmarks[48:].astype(np.int32)), 1)
    added = [
        np.abs(closed.with_detail(exemplars_of(pose)) - closed.new)[mouth > 0].mean()
        for pose in (Pose(), Pose(mouth_open=1.0))
    ]
    assert added[1] < 0.75 * added[0]


def test_a_black_and_white_face_stays_one() -> None:
    swapped = Swapped(Pose())
    grey = cv2.cvtColor(swapped.truth, cv2.COLOR_RGB2GRAY)
    swapped.truth = np.dstack([grey] * 3)
    swapped.new = np.dstack([cv2.cvtColor(swapped.new, cv2.COLOR_RGB2GRAY)] * 3)
    result = swapped.with_detail(exemplars_of(Pose()))
    assert not np.array_equal(result, swapped.new)
    assert np.ptp(result, axis=2).max() < 1e-5


@pytest.mark.parametrize("blur_px", [2.0, 5.0])
def test_a_frame_out_of_focus_stays_so(blur_px: float) -> None:
    swapped = Swapped(Pose())
    inside = swapped.weight > 0.9
    sharp = fine(swapped.with_detail(exemplars_of(Pose())))[inside].std()
    swapped.truth = np.asarray(cv2.GaussianBlur(swapped.truth, (0, 0), blur_px))
    result = fine(swapped.with_detail(exemplars_of(Pose())))[inside].std()
    assert result < 0.8 * sharp
    assert result < max(1.4 * fine(swapped.truth / 255)[inside].std(), 1.2 * fine(swapped.new)[inside].std())


@pytest.mark.parametrize("levels", [0.3, 1.0])
def test_noise_in_a_frame_far_out_of_focus_is_not_taken_for_detail(levels: float) -> None:
    """As an encoder leaves it, or a camera; halved twice, the picture shows that there are no edges."""
    swapped = Swapped(Pose())
    inside = swapped.weight[::4, ::4] > 0.9
    blurred = cv2.GaussianBlur(swapped.truth.astype(np.float32), (0, 0), 4)
    noise = np.random.default_rng(1).normal(0, levels, blurred.shape)
    swapped.truth = np.asarray(np.clip(np.rint(blurred + noise), 0, 255), np.uint8)

    def edges(picture: np.ndarray) -> float:
        grey = cv2.cvtColor(np.asarray(picture, np.float32), cv2.COLOR_RGB2GRAY)
        small = cv2.resize(grey, inside.shape[::-1], interpolation=cv2.INTER_AREA)
        return float(cv2.Laplacian(small, cv2.CV_32F)[inside].std())

    result = edges(swapped.with_detail(exemplars_of(Pose())))
    assert result < 1.35 * edges(swapped.truth / 255)
    assert result < 0.8 * edges(swapped.new)


def test_a_face_that_grows_in_a_soft_film_is_not_softened_at_once() -> None:
    random = np.random.default_rng(5)
    sharp = cv2.GaussianBlur(random.normal(0, 1, (160, 160)).astype(np.float32), (0, 0), 1.5)
    new = np.float32(0.5) + np.float32(0.1) * sharp / sharp.std()
    ground = np.asarray(cv2.GaussianBlur(new, (0, 0), 4) + random.normal(0, 0.002, new.shape), np.float32)
    detail = np.asarray(random.normal(0, 0.03, new.shape), np.float32)
    added = [
        as_sharp_as(detail[:px, :px], new[:px, :px], ground[:px, :px], np.ones((px, px), np.float32))
        for px in range(90, 160)
    ]
    steps = [float(np.abs(one[:90, :90] - other[:90, :90]).mean()) for one, other in pairwise(added)]
    whole = float(np.abs(added[0] - added[-1][:90, :90]).mean())
    assert max(steps) < whole / 4


def test_no_gain_or_no_face_leaves_the_picture_as_it_is() -> None:
    swapped = Swapped(Pose())
    assert swapped.with_detail(exemplars_of(Pose()), gain=0.0) is swapped.new
    swapped.weight = np.zeros_like(swapped.weight)
    assert swapped.with_detail(exemplars_of(Pose())) is swapped.new


@pytest.mark.parametrize("size_px", [80, 900])
def test_any_size_of_face_gets_only_what_it_can_hold(size_px: int) -> None:
    swapped = Swapped(Pose(), size_px)
    result = swapped.with_detail(exemplars_of(Pose(mouth_open=0.1)))
    assert swapped.error(result) <= 1.02 * swapped.error(swapped.new)
    np.testing.assert_array_equal(result[swapped.weight == 0], swapped.new[swapped.weight == 0])


def test_the_same_face_gives_the_same_bytes_whatever_was_asked_before() -> None:
    exemplars = exemplars_of(Pose(), Pose(smile=0.5))
    swapped = Swapped(Pose(yaw_deg=5))
    assert swapped.with_detail(exemplars, 1).tobytes() == swapped.with_detail(exemplars, 1).tobytes()
    assert swapped.with_detail(exemplars, 1).tobytes() != swapped.with_detail(exemplars, 0).tobytes()


def test_regions_share_the_face() -> None:
    weights = region_weights(crop_points(GRID_PX, COVERAGE))
    np.testing.assert_allclose(weights.sum(axis=0), np.ones((GRID_PX, GRID_PX)), atol=1e-5)
    assert weights.min() > -1e-5
    x, y = np.rint(crop_points(GRID_PX, COVERAGE)[62]).astype(int)
    assert weights[REGIONS.index("mouth"), y, x] > 0.95


@pytest.mark.parametrize("roll_deg", [0, 12, -90])
def test_the_mesh_brings_each_point_to_its_partner(roll_deg: float) -> None:
    """Whichever way the grid lies over the face."""
    _, first = render("collins", Pose(), (400, 400))
    _, second = render("collins", Pose(yaw_deg=12, mouth_open=0.5, smile=0.3), (300, 300))
    to_square, other = (crop_affine(points, GRID_PX, COVERAGE) for points in (first, second))
    middle = (GRID_PX - 1) / 2
    turn = np.asarray(cv2.getRotationMatrix2D((middle, middle), roll_deg, 1.0))
    at = transform(transform(first, to_square), turn).astype(np.float32)
    mesh = FaceMesh(at, invert(turn), COVERAGE)
    inside = ((at > 1) & (at < GRID_PX - 2)).all(axis=1)
    grid = np.dstack(mesh.map_to(corners_of(second, other)))
    found = cv2.remap(grid, at[None], None, cv2.INTER_LINEAR)[0]
    away = np.linalg.norm(found - second, axis=1)[inside] / np.ptp(second[:, 0])
    assert np.median(away) < 0.01
    same = transform(np.dstack(mesh.map_to(corners_of(first, to_square))), compose(turn, to_square))
    cells = np.stack(np.meshgrid(np.arange(GRID_PX), np.arange(GRID_PX)), axis=-1)
    inner = slice(14, -14) if roll_deg % 90 else slice(3, -3)  # corners of a turned grid lie beside the square
    np.testing.assert_allclose(same[inner, inner], cells[inner, inner], atol=0.35)


def test_where_features_are_drawn_is_learnt_from_pictures_one_wrong_one_included() -> None:
    """The new person's mouth lies lower, and opens one and a half times as far."""
    poses = [Pose(mouth_open=0.05 * at, yaw_deg=at - 9) for at in range(19)]
    old = np.array([render("hopper", pose, (256, 256))[1] for pose in poses])
    shapes = aligned(old)
    usual = np.median(shapes, axis=0)
    drawn = shapes.copy()
    drawn[:, 48:] = 1.5 * (shapes[:, 48:] - usual[48:]) + usual[48:] + [0, 0.05]
    drawn[3] += 0.5
    learnt = DrawnShape(old, drawn)
    frame, truth = old[12] * 2 + 30, drawn[12]
    found = from_crop(learnt(frame, NET_PX, COVERAGE), NET_PX, COVERAGE)
    assert np.abs(found - truth).mean() < 0.2 * np.abs(aligned(frame) - truth).mean()
    one = DrawnShape(old[:1], drawn[:1])  # a single picture says what is usual, and no more
    np.testing.assert_allclose(from_crop(one(old[0], NET_PX, COVERAGE), NET_PX, COVERAGE), drawn[0], atol=1e-6)


def test_the_crop_of_a_shape_is_where_alignment_puts_it() -> None:
    _, points = render("collins", Pose(yaw_deg=5), (256, 256))
    affine = crop_affine(points, NET_PX, COVERAGE)
    np.testing.assert_allclose(to_crop(aligned(points), NET_PX, COVERAGE), transform(points, affine), atol=1e-6)
    assert np.isfinite(invert(affine)).all()


def test_a_net_that_draws_no_face_yet_says_nothing_of_where_features_are() -> None:
    """Its points lie anywhere, and a face that is stretched to them is torn. A few bad ones are left out."""
    poses = [Pose(yaw_deg=turn) for turn in (-8, -4, 0, 4, 8, 12)]
    old = np.array([render("collins", pose, (400, 400))[1] for pose in poses])
    good = aligned(old) + [0.0, 0.03]
    bad = aligned(old) + np.random.default_rng(1).normal(0, 0.3, (68, 2))
    exemplars = exemplars_of(*poses)

    def shapes(drawn: np.ndarray) -> dict[str, DrawnShape]:
        return drawn_shapes({"collins": "hopper"}, {"collins": replace(exemplars, drawn_as={"hopper": (old, drawn)})})

    assert shapes(bad) == {}
    assert shapes(np.full_like(good, np.nan)) == {}
    mixed = shapes(np.concatenate([good[:4], bad[4:]]))["collins"]
    alone = DrawnShape(old[:4], good[:4])
    np.testing.assert_array_equal(mixed(old[0], 64, 1.2), alone(old[0], 64, 1.2))
