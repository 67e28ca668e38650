"""What a warp cannot bring: the inside of an opening mouth, and the line between closing lids."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from facemill.sources.sample.portraits import VIEW_PX, Points, Portrait
from facemill.sources.sample.pose import Pose
from facemill.sources.sample.warp import Map, sample

Pixels = npt.NDArray[np.uint8]


def draw_mouth(rgba: Pixels, portrait: Portrait, pose: Pose, landmarks: Points, lower: Map, shut: Points) -> None:
    """Puts the lower lip and chin in their place and the inside of the mouth above them, in place.

    Args:
        shut: the landmarks of the same pose with the jaw at rest; what the portrait shows between its lips, such as
            teeth, stays where it is there.
    """
    half = portrait.face_half_px * pose.scale * min(rgba.shape[:2]) / VIEW_PX
    box = _box(landmarks[np.r_[3:14, 48:68]], 0.25 * half, rgba.shape)
    if box is None:
        return
    top, bottom, left, right = box
    part = rgba[top:bottom, left:right]
    origin = np.array([left, top])
    inner, rest_inner = landmarks[60:68] - origin, shut[60:68] - origin
    if pose.mouth_open > 0:
        opening = _fill(part.shape, _lips(inner))
        if portrait.teeth:
            opening &= ~_fill(part.shape, _lips(rest_inner))
        inside = _inside(part.shape, inner, half, teeth=not portrait.teeth)
        _blend(part, inside, _blur(opening, 0.012 * half + 0.4))
    below = _below(part.shape, inner, landmarks[4:13] - origin, half)
    chin = sample(portrait.rgba, np.ascontiguousarray(lower[top:bottom, left:right]))
    _blend(part, chin, _blur(below, 0.01 * half + 0.4))


def draw_lashes(rgba: Pixels, pose: Pose, landmarks: Points) -> None:
    """Darkens the line between closing lids, where a sliver of white would be left, in place."""
    strength = max(pose.blink - 0.4, 0) / 0.6
    if strength == 0:
        return
    for eye in (landmarks[36:42], landmarks[42:48]):
        width = float(np.hypot(*(eye[3] - eye[0])))
        if (box := _box(eye, 0.3 * width, rgba.shape)) is None:
            continue
        top, bottom, left, right = box
        part = rgba[top:bottom, left:right]
        lid = np.vstack([eye[0], (eye[1] + eye[5]) / 2, (eye[2] + eye[4]) / 2, eye[3]]) - [left, top]
        line = np.zeros(part.shape[:2], np.uint8)
        points, thick = np.round(_curve(lid) * 16).astype(np.int32), max(round(0.05 * width), 1)
        cv2.polylines(line, [points], False, round(200 * strength), thick, cv2.LINE_AA, shift=4)
        _blend(part, np.full_like(part, (52, 36, 30, 255)), _blur(line, 0.03 * width + 0.3))


def _box(points: Points, margin: float, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Top, bottom, left, right of the points with a margin inside the picture; None if nothing of it is left."""
    left, top = np.maximum(np.floor(points.min(0) - margin), 0).astype(int)
    right, bottom = np.minimum(np.ceil(points.max(0) + margin), [shape[1], shape[0]]).astype(int)
    return (top, bottom, left, right) if right - left > 4 and bottom - top > 4 else None


def _lips(inner: Points) -> Points:
    """Outline of the opening from its eight landmarks (60…67), smooth along both lips."""
    return np.vstack([_curve(inner[[0, 1, 2, 3, 4]]), _curve(inner[[4, 5, 6, 7, 0]])])


def _curve(points: Points) -> Points:
    """Catmull-Rom through the points, eight steps between two."""
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    t = np.linspace(0, 1, 8, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.vstack([*pieces, points[-1:]])


def _fill(shape: tuple[int, ...], outline: Points) -> Pixels:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)  # 4 bits of fraction
    return mask


def _below(shape: tuple[int, ...], inner: Points, jaw: Points, half: float) -> Pixels:
    """Mask of the lower lip and chin: under the lower edge of the opening, soft towards the cheeks."""
    edge = _curve(inner[[0, 7, 6, 5, 4]])
    mask = _fill(shape, np.vstack([edge, jaw[::-1]]))
    soft = np.minimum(_blur(mask, 0.07 * half), mask)
    # Sharp along the lip, soft everywhere else.
    steps = max(int(0.03 * half), 1)
    lip = np.asarray(cv2.dilate(_fill(shape, _lips(inner)), np.ones((5, 5), np.uint8), iterations=steps), np.uint8)
    weight = _blur(lip, 0.05 * half).astype(np.float32) / 255
    return np.asarray(mask * weight + soft * (1 - weight)).astype(np.uint8)


def _inside(shape: tuple[int, ...], inner: Points, half: float, *, teeth: bool) -> Pixels:
    """The inside of the mouth: dark, a tongue, and upper teeth where the portrait has none to show."""
    layer = np.empty((*shape[:2], 4), np.uint8)
    layer[:] = (62, 24, 24, 255)
    width = float(np.hypot(*(inner[4] - inner[0])))
    gap = float(np.hypot(*(inner[6] - inner[2])))
    tongue = np.round(inner[6] * 0.8 + inner[2] * 0.2).astype(int).tolist()
    tongue_px = (max(int(0.3 * width), 1), max(int(0.32 * gap), 1))
    cv2.ellipse(layer, tongue, tongue_px, 0, 0, 360, (150, 74, 72, 255), -1)
    layer = _blur(layer, 0.05 * half)
    if teeth:
        down = (inner[6] - inner[2]) / max(gap, 1e-6)
        height = min(0.25 * gap, 0.06 * half)
        edge = inner[[1, 3]].mean(0) + (inner[4] - inner[0]) * np.array([[-0.36], [-0.2], [0.0], [0.2], [0.36]])
        bow = np.array([0.1, 0.85, 1.0, 0.85, 0.1])[:, None]
        band = _fill(shape, np.vstack([_curve(inner[[0, 1, 2, 3, 4]]), _curve(edge + down * height * bow)[::-1]]))
        _blend(layer, np.full_like(layer, (172, 146, 122, 255)), _blur(band, 0.025 * half + 0.3))
    return layer


def _blend(base: Pixels, layer: Pixels, mask: Pixels) -> None:
    """Lays a layer over the base by a mask 0…255, in place."""
    weight = mask.astype(np.float32)[:, :, None] / 255
    base[:] = (base + (layer.astype(np.float32) - base) * weight + 0.5).astype(np.uint8)


def _blur(mask: Pixels, sigma_px: float) -> Pixels:
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma_px), np.uint8)
