"""Where a new face ends, against rendered faces whose outlines are known."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from known_nets import PassThrough
from test_detail_exemplars import COVERAGE, NET_PX, exemplars_of

from facemill.align import crop_affine, crop_points, transform, warp
from facemill.sources.sample import Pose, render
from facemill.swap.detail.exemplars import aligned
from facemill.swap.edge import toned
from facemill.swap.mask import face_mask
from facemill.swap.outline import LEAST_PX, MOST_BEYOND, covering, outline_of, seen_jaw, stretched
from facemill.swap.painter import FacePainter, FacesOfFrame, WantedFace
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import Swapper
from facemill.video import Frame

POINTS = crop_points(NET_PX, COVERAGE)
HEIGHT = float(np.ptp(POINTS[:, 1]))
SKIN, HAIR = (215, 170, 150), (60, 40, 30)


class Grey(PassThrough):
    """Draws a flat face."""

    def forward(self, face: torch.Tensor, identity: str) -> torch.Tensor:
        return torch.full_like(face, 0.6)


def wider(points: np.ndarray, by: float) -> np.ndarray:
    """The same face with a jaw that lies so many times as far from the nose."""
    middle = points[27:36].mean(axis=0)
    moved = points.copy()
    moved[:17] = middle + by * (points[:17] - middle)
    return moved


def flat_face(points: np.ndarray, side: int, skin: tuple[int, int, int] = SKIN) -> np.ndarray:
    """A disc of skin that ends at the points of the jaw, before hair."""
    picture = np.full((side, side, 3), HAIR, np.uint8)
    brows = points[17:27] - [0, 0.3 * HEIGHT]
    hull = cv2.convexHull(np.vstack([points[:17], brows]).astype(np.float32))
    cv2.fillConvexPoly(picture, np.rint(hull * 16).astype(np.int32), skin, lineType=cv2.LINE_AA, shift=4)
    return picture


@pytest.mark.parametrize("by", [0.85, 0.93, 1.0, 1.1, 1.3])
def test_the_new_jaw_lies_on_the_old_one_and_below_a_shorter_chin(by: float) -> None:
    drawn = wider(POINTS, by)
    drawn[30] += 1.5  # inside nothing moves
    points = outline_of(POINTS, drawn)
    np.testing.assert_array_equal(points[17:], drawn[17:])
    np.testing.assert_allclose(points[:3], POINTS[:3], atol=0.02 * HEIGHT)
    below = points[8, 1] - POINTS[8, 1]
    assert -1e-6 <= below <= MOST_BEYOND * HEIGHT + 1e-6
    assert (below > 0.02 * HEIGHT) == (by > 1.05)


def test_a_narrow_drawing_is_stretched_to_the_old_jaw_and_nothing_behind_it_is_shown() -> None:
    drawn = wider(POINTS, 0.85)
    face = flat_face(drawn, NET_PX).astype(np.float32) / 255
    points = outline_of(POINTS, drawn)
    moved = stretched(face, drawn, points, COVERAGE)
    assert moved.shape == (LEAST_PX, LEAST_PX, 3)
    inside = face_mask((points + 0.5) * LEAST_PX / NET_PX - 0.5, LEAST_PX, 0.04, 0.04) > 0.5
    inside[: int(POINTS[33, 1] * LEAST_PX / NET_PX)] = False  # below the temples, where hair is let in
    hair = np.abs(moved - np.array(HAIR) / 255).max(axis=2) < 0.15
    before = np.abs(cv2.resize(face, (LEAST_PX, LEAST_PX)) - np.array(HAIR) / 255).max(axis=2) < 0.15
    assert before[inside].mean() > 0.08
    assert hair[inside].mean() < 0.005


def test_what_was_drawn_where_it_belongs_stays_as_it_was() -> None:
    picture, landmarks = render("collins", Pose(), (400, 400))
    face = warp(picture, crop_affine(landmarks, 128, COVERAGE), 128).astype(np.float32) / 255
    points = crop_points(128, COVERAGE)
    moved = stretched(face, points, points, COVERAGE)
    inner = face_mask(points, 128, 0.3) > 0.9  # away from the jaw, whose very edge is left out
    assert moved.shape == face.shape
    assert np.abs(moved - face)[inner].mean() < 0.02


@pytest.mark.parametrize("by", [0.9, 0.95, 1.0])
@pytest.mark.parametrize("skin", [SKIN, (120, 80, 60)])
def test_a_jaw_lies_no_further_out_than_the_cheek_is_seen(by: float, skin: tuple[int, int, int]) -> None:
    truth = wider(POINTS, by)
    crop = flat_face(truth, NET_PX, skin)
    seen = seen_jaw(crop, POINTS)
    np.testing.assert_array_equal(seen[17:], POINTS[17:])
    cheeks = [2, 3, 4, 12, 13, 14]
    away = np.linalg.norm(seen[cheeks] - truth[cheeks], axis=1).mean()
    assert away < 0.45 * np.linalg.norm(POINTS[cheeks] - truth[cheeks], axis=1).mean() + 0.6


def test_a_neck_a_wrinkle_and_a_shade_do_not_move_the_jaw() -> None:
    crop = flat_face(wider(POINTS, 1.25), NET_PX)  # skin goes on
    across = np.linspace(1.0, 0.75, NET_PX)[None, :, None]  # light from one side
    cv2.line(crop, (8, 40), (16, 56), (90, 60, 50), 1)
    np.testing.assert_allclose(seen_jaw((crop * across).astype(np.uint8), POINTS), POINTS, atol=0.6)


@pytest.mark.parametrize("behind", [(150, 155, 150), (200, 150, 130), (20, 30, 60)])
def test_a_beard_is_the_face_s(behind: tuple[int, int, int]) -> None:
    """Before a wall, a neck or a dark coat; dark as hair, and as unlike the cheek."""
    crop = np.full((NET_PX, NET_PX, 3), behind, np.uint8)
    for by, colour in ((1.0, (70, 50, 42)), (0.8, SKIN)):
        hull = cv2.convexHull(np.vstack([wider(POINTS, by)[:17], POINTS[17:27]]).astype(np.float32))
        cv2.fillConvexPoly(crop, np.rint(hull * 16).astype(np.int32), colour, lineType=cv2.LINE_AA, shift=4)
    np.testing.assert_allclose(seen_jaw(crop, POINTS), POINTS, atol=0.025 * HEIGHT)


def test_the_mask_reaches_the_higher_brow_and_its_edge_is_narrow_at_the_jaw_alone() -> None:
    lower, higher = POINTS.copy(), POINTS.copy()
    higher[17:27, 1] -= 5
    np.testing.assert_array_equal(covering(lower, higher)[17:27], higher[17:27])
    np.testing.assert_array_equal(covering(higher, lower)[17:27], higher[17:27])
    wide, narrow = face_mask(POINTS, NET_PX, 0.12), face_mask(POINTS, NET_PX, 0.12, 0.03)
    assert (narrow >= wide - 1e-6).all()
    x, y = np.rint(POINTS[8]).astype(int)
    assert narrow[y - 2, x] > wide[y - 2, x] + 0.2
    top = int(POINTS[17:27, 1].min()) - 1
    np.testing.assert_allclose(narrow[:top], wide[:top], atol=1e-6)


def test_tone_is_mixed_at_the_edge_and_comes_from_skin_alone() -> None:
    wide, narrow = face_mask(POINTS, NET_PX, 0.15), face_mask(POINTS, NET_PX, 0.15, 0.03)
    skin = face_mask(POINTS, NET_PX, 0.02)
    new = np.full((NET_PX, NET_PX, 3), 0.6, np.float32)
    darker = np.full_like(new, 0.5)
    mixed = toned(new, darker, wide, narrow, skin)
    rim, middle = (narrow > 0.9) & (wide < 0.3) & (skin > 0.9), wide > 0.99
    assert mixed[middle].min() == pytest.approx(0.6, abs=1e-3)
    assert mixed[rim].mean() < 0.56
    black = darker.copy()
    black[:, : NET_PX // 5] = 0.0  # the frame of glasses, a strand of hair
    assert toned(new, black, wide, narrow, skin)[rim].min() > 0.45


def test_nothing_of_the_old_rim_is_left_where_the_drawing_of_the_net_is_known(swapper: Swapper) -> None:
    """Stripes on the old cheeks stand for jowls."""
    poses = [Pose(yaw_deg=yaw) for yaw in (-6, 0, 6)]
    shapes = aligned(np.array([render("hopper", pose, (256, 256))[1] for pose in poses]))
    pictures = exemplars_of(*poses)
    known = replace(pictures, identity="hopper", drawn_as={"collins": (pictures.landmarks, shapes)})
    frame, landmarks = render("hopper", Pose(), (400, 400))
    striped = frame.copy()
    striped[::4] = striped[::4] // 3
    left = {}
    for name, exemplars in (("known", {"hopper": known}), ("unknown", {})):
        plain = SwapSettings(detail="none", colour="none", occlusion="none")
        painter = FacePainter(replace(swapper, model=Grey(), exemplars=exemplars), plain)
        picture = Frame.from_rgb(striped.copy(), 0, Fraction(1, 25), pix_fmt="yuv444p")
        [painted] = painter.paint([FacesOfFrame(picture, (WantedFace("hopper", landmarks),))])
        assert painted.swapped == ("hopper",)
        affine = crop_affine(landmarks, 200, 1.2)
        whole, inner = (face_mask(transform(landmarks, affine), 200, feather) for feather in (0.0, 0.12))
        rim = (cv2.erode(whole, np.ones((7, 7))) > 0) & (inner < 0.9)
        rim[: int(transform(landmarks, affine)[36:48, 1].mean() + 10)] = False
        edges = cv2.Sobel(cv2.cvtColor(warp(picture.rgb, affine, 200), cv2.COLOR_RGB2GRAY), cv2.CV_32F, 0, 1)
        left[name] = float(np.abs(edges[rim]).mean())
    assert left["known"] < 0.6 * left["unknown"]
