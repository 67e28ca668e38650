"""Faces and pictures that are hard for detail and outline: the frame comes out painted or untouched, never torn."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from known_nets import PassThrough
from test_detail_exemplars import COVERAGE, NET_PX, exemplars_of

from facemill.pictures import encode_png
from facemill.sources.sample import Pose, render
from facemill.swap.detail.exemplars import Exemplars, aligned
from facemill.swap.detail.path import choose, usual_shape
from facemill.swap.detail.tracks import TrackChoice
from facemill.swap.painter import FacePainter, FacesOfFrame, Painted, WantedFace
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper
from facemill.video import Frame

SIDE = 400
ROUNDING = 3  # of a picture that became brightness and colours and is RGB again
FROM_ONE_SIDE = tuple(Pose(yaw_deg=yaw) for yaw in (14, 15, 16, 17, 18))


class Soft(PassThrough):
    """The face comes back as a net of few pixels would draw it."""

    input_px = NET_PX

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(face, 3, stride=1, padding=1, count_include_pad=False)


def painter_with(swapper: Swapper, new: Exemplars) -> FacePainter:
    """Hopper becomes Collins; the net draws her features where Hopper's are."""
    poses = [Pose(yaw_deg=yaw) for yaw in (-8, 0, 8)]
    shapes = aligned(np.array([render("hopper", pose, (256, 256))[1] for pose in poses]))
    own = exemplars_of(*poses)
    old = replace(own, identity="hopper", drawn_as={"collins": (own.landmarks, shapes)})
    known = {"hopper": old, "collins": new}
    return FacePainter(replace(swapper, model=Soft(), coverage=COVERAGE, exemplars=known), SwapSettings())


def painted(
    painter: FacePainter, picture: np.ndarray, landmarks: np.ndarray, new: Exemplars
) -> tuple[np.ndarray, Painted]:
    choice = choose(landmarks[None], usual_shape(landmarks[None]), new.landmarks)
    face = WantedFace("hopper", landmarks, 1.0, TrackChoice(np.array([0]), choice).at(0))
    frame = Frame.from_rgb(picture.copy(), 0, Fraction(1, 25), pix_fmt="yuv444p")
    [told] = painter.paint([FacesOfFrame(frame, (face,))])
    return frame.rgb, told


def roughness(picture: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_64F).std())


@pytest.mark.parametrize("yaw_deg", [-40, -15, 0, 30])
def test_five_pictures_from_one_side_serve_a_head_that_looks_elsewhere(swapper: Swapper, yaw_deg: float) -> None:
    new = exemplars_of(*FROM_ONE_SIDE)
    picture, landmarks = render("hopper", Pose(yaw_deg=yaw_deg), (SIDE, SIDE))
    after, told = painted(painter_with(swapper, new), picture, landmarks, new)
    assert (told.swapped, told.failure) == (("hopper",), None)
    assert roughness(after) < 1.1 * roughness(picture)


@pytest.mark.parametrize(
    ("right", "down"), [(0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5), (0.45, 0.45), (0.9, 0.0), (2.0, 0.0)]
)
def test_a_face_that_is_half_out_of_the_picture_is_painted_as_far_as_it_is_seen(
    swapper: Swapper, right: float, down: float
) -> None:
    new = exemplars_of(Pose(), Pose(yaw_deg=8))
    picture, landmarks = render("hopper", Pose(), (SIDE, SIDE))
    shift = np.array([right, down]) * np.ptp(landmarks, axis=0) + np.array([right, down]) * 0.4 * SIDE
    moved = cv2.warpAffine(picture, np.array([[1.0, 0, shift[0]], [0, 1.0, shift[1]]]), (SIDE, SIDE))
    after, told = painted(painter_with(swapper, new), moved, landmarks + shift, new)
    assert after.shape == moved.shape
    away = np.abs(after.astype(int) - moved).max(axis=2)
    if told.swapped:
        middle = (landmarks + shift).mean(axis=0)
        reach = 0.8 * np.ptp(landmarks[:, 1])
        ys, xs = np.nonzero(away > ROUNDING)
        assert np.hypot(xs - middle[0], ys - middle[1]).max(initial=0) < reach
    else:
        assert told.failure
        assert away.max() <= ROUNDING


@pytest.mark.parametrize("light", [0.02, 0.15, 0.5])
def test_the_dark_stays_dark(swapper: Swapper, light: float) -> None:
    new = exemplars_of(Pose(), Pose(yaw_deg=8))
    picture, landmarks = render("hopper", Pose(), (SIDE, SIDE))
    dim = (picture * light).astype(np.uint8)
    after, told = painted(painter_with(swapper, new), dim, landmarks, new)
    assert told.failure is None
    assert bool(told.swapped) == (light > 0.1)  # nobody sees a face in the black
    assert after.mean() == pytest.approx(dim.mean(), rel=0.15, abs=1.0)
    assert roughness(after) < 1.2 * roughness(dim) + 0.5


def test_exemplars_far_smaller_than_the_face_do_not_make_it_blocky(swapper: Swapper) -> None:
    sharp = exemplars_of(Pose(), Pose(yaw_deg=8))
    tiny = []
    for number in range(len(sharp)):
        small = cv2.resize(sharp.crop(number), (40, 40), interpolation=cv2.INTER_AREA)
        tiny.append(encode_png(np.asarray(cv2.resize(small, (256, 256), interpolation=cv2.INTER_NEAREST))))
    blocky = replace(sharp, encoded=tuple(tiny), source_scale=np.full(len(sharp), 6.4))
    picture, landmarks = render("hopper", Pose(), (900, 900))
    after, told = painted(painter_with(swapper, blocky), picture, landmarks, blocky)
    assert told.swapped == ("hopper",)
    assert roughness(after) < 1.1 * roughness(picture)


@pytest.mark.parametrize("wrong", ["shifted", "one point", "all alike", "upside down"])
def test_an_exemplar_with_wrong_landmarks_leaves_a_face(swapper: Swapper, wrong: str) -> None:
    right = exemplars_of(Pose(), Pose(yaw_deg=8))
    points = right.landmarks.copy()
    points[0] = {
        "shifted": points[0] + 60,
        "one point": np.where(np.arange(68)[:, None] == 30, 2000.0, points[0]),
        "all alike": points[0].mean(axis=0) + 1e-3 * np.arange(136).reshape(68, 2),
        "upside down": 255 - points[0],
    }[wrong]
    bad = replace(right, landmarks=points)
    picture, landmarks = render("hopper", Pose(), (SIDE, SIDE))
    after, told = painted(painter_with(swapper, bad), picture, landmarks, bad)
    good, _ = painted(painter_with(swapper, right), picture, landmarks, right)
    assert told.swapped == ("hopper",)
    assert np.abs(after.astype(int) - good).mean() < 6
    assert roughness(after) < 1.1 * roughness(picture)


def test_points_that_make_no_face_are_said_to_fail_and_the_frame_stays(swapper: Swapper) -> None:
    new = exemplars_of(Pose(), Pose(yaw_deg=8))
    picture, landmarks = render("hopper", Pose(), (SIDE, SIDE))
    for points in (np.zeros((68, 2)), np.full((68, 2), np.nan)):
        face = WantedFace("hopper", points)
        frame = Frame.from_rgb(picture.copy(), 0, Fraction(1, 25), pix_fmt="yuv444p")
        [told] = painter_with(swapper, new).paint([FacesOfFrame(frame, (face, WantedFace("hopper", landmarks)))])
        assert (told.swapped, bool(told.failure)) == (("hopper",), True)
