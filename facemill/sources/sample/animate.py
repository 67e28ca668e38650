"""One frame of a sample person in a pose: picture and true landmarks.

    rgb, landmarks = render("hopper", Pose(yaw_deg=10, mouth_open=0.5))

Backwards from a pixel of the output: camera (similarity) → expression and head turn (thin-plate spline through the
landmarks, hair, neck and border) → lids → portrait. A spline cannot tear, and a mouth has to: there are two of them,
one for all above the opening and one for all below; what neither shows is painted as the inside of the mouth.
The head turns as a relief: landmarks get the depth of an ellipsoid with a nose on it.

The landmarks returned are the spline's own controls, so they are exact, not detected.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from facemill.pictures import RGB
from facemill.sources.sample.looks import finish
from facemill.sources.sample.mouth import draw_lashes, draw_mouth
from facemill.sources.sample.portraits import FACE_CENTRE, VIEW_PX, Points, Portrait, load_portrait
from facemill.sources.sample.pose import Pose
from facemill.sources.sample.warp import Lids, Map, coarse_grid, enlarge, sample, spline

_UPPER_LIP = [*range(49, 54), 61, 62, 63]
_LOWER_LIP = [*range(55, 60), 65, 66, 67]
_BROW_SHARES = np.array([0.5, 0.8, 1.0, 1.0, 0.9, 0.9, 1.0, 1.0, 0.8, 0.5])


def render(
    person: str, pose: Pose, size_wh: tuple[int, int] = (VIEW_PX, VIEW_PX)
) -> tuple[RGB, npt.NDArray[np.float32]]:
    """Draws one frame.

    Returns:
        RGB uint8 H×W×3 and the true landmarks (68, 2) float32, x, y in pixels of that picture. The same arguments give
        the same bytes.
    """
    portrait = load_portrait(person)
    width, height = size_wh
    lids = Lids(portrait.landmarks, portrait.lid_room_px, pose.blink)
    rest = portrait.landmarks.copy()
    rest[36:42], rest[42:48] = lids.forward(slice(36, 42)), lids.forward(slice(42, 48))
    moved = _turn(portrait, _express(portrait, rest, pose), pose)
    camera = _camera(pose, width, height)

    upper = _field(portrait, rest, moved, camera, pose, size_wh, without=_LOWER_LIP)
    lower = _field(portrait, rest, moved, camera, pose, size_wh, without=_UPPER_LIP)
    if pose.blink > 0:
        lids.apply(upper)
    landmarks = _apply(camera, moved)
    shut = _apply(camera, _turn(portrait, _express(portrait, rest, pose, jaw=False), pose))
    rgba = sample(portrait.rgba, upper)
    draw_mouth(rgba, portrait, pose, landmarks, lower, shut)
    draw_lashes(rgba, pose, landmarks)
    picture = finish(rgba, pose, landmarks)
    return picture, landmarks.astype(np.float32)


def _express(portrait: Portrait, points: Points, pose: Pose, *, jaw: bool = True) -> Points:
    """Moves the landmarks by mouth, smile and brows, in the upright portrait. Amounts are shares of half the face."""
    half, out = portrait.face_half_px, points.copy()
    across, down = _face_axes(points)
    drop = 0.38 * half * pose.mouth_open if jaw else 0.0
    # The jaw hangs from the ears: its middle follows the lower lip, its ends stay.
    out[:17] += np.outer(drop * 0.85 * np.sin(np.pi * np.arange(17) / 16) ** 2, down)
    # The mouth as one piece: u runs from -1 to 1 between its corners, so that no two points can cross.
    corners = points[54] - points[48]
    u = np.clip(2 * (points[48:] - points[[48, 54]].mean(0)) @ corners / (corners @ corners), -1, 1)
    is_lower = np.isin(np.arange(48, 68), _LOWER_LIP)
    fall = 0.3 * drop * u**2 + np.where(is_lower, drop, -0.08 * max(drop, 0.0)) * (1 - u**2)
    smile = half * (pose.smile if pose.smile > 0 else 0.6 * pose.smile)
    out[48:] += np.outer(fall - 0.13 * smile * (u**2 - 0.15), down) + np.outer((0.11 * smile - 0.1 * drop) * u, across)
    out[17:27] -= np.outer(0.12 * half * pose.brows * _BROW_SHARES, down)
    return out


def _turn(portrait: Portrait, points: Points, pose: Pose) -> Points:
    """Turns points of the head as a relief about the axis between the ears."""
    depth = _depth(portrait, points) + _nose(portrait, points)
    across, down = _face_axes(portrait.landmarks)
    centre = _head_centre(portrait)
    local = (points - centre) @ np.array([across, down]).T
    yaw, pitch = np.deg2rad(pose.yaw_deg), np.deg2rad(pose.pitch_deg)
    x = local[:, 0] * np.cos(yaw) + depth * np.sin(yaw)
    depth = depth * np.cos(yaw) - local[:, 0] * np.sin(yaw)
    y = local[:, 1] * np.cos(pitch) + depth * np.sin(pitch)
    return centre + np.outer(x, across) + np.outer(y, down)


def _depth(portrait: Portrait, points: Points) -> npt.NDArray[np.float64]:
    """Height of an ellipsoid over the plane of the ears, in pixels; 0 outside the face."""
    across, down = _face_axes(portrait.landmarks)
    local = (points - _head_centre(portrait)) @ np.array([across, down]).T / portrait.face_half_px
    inside = 1 - (local[:, 0] / 1.1) ** 2 - (local[:, 1] / 1.55) ** 2
    return np.asarray(0.8 * portrait.face_half_px * np.sqrt(np.maximum(inside, 0)))


def _nose(portrait: Portrait, points: Points) -> npt.NDArray[np.float64]:
    """What the nose adds to the depth: a smooth bump around its tip, longer upwards."""
    across, down = _face_axes(portrait.landmarks)
    local = (points - portrait.landmarks[30]) @ np.array([across, down]).T / portrait.face_half_px
    length = np.where(local[:, 1] < 0, 0.3, 0.16)
    return np.asarray(0.3 * portrait.face_half_px * np.exp(-((local[:, 0] / 0.2) ** 2) - (local[:, 1] / length) ** 2))


def _head_centre(portrait: Portrait) -> Points:
    return np.asarray(portrait.landmarks[[0, 16, 27, 30]].mean(0))


def _face_axes(points: Points) -> tuple[Points, Points]:
    """Unit vectors across the face, to the right of the picture, and down it."""
    across = points[42:48].mean(0) - points[36:42].mean(0)
    across = across / np.hypot(*across)
    return across, np.array([-across[1], across[0]])


def _camera(pose: Pose, width: int, height: int) -> Points:
    """2×3 affine from stage to picture."""
    side = min(width, height)
    scale = pose.scale * side / VIEW_PX
    turn = np.deg2rad(pose.roll_deg)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    # The face's centre stands a little below the middle: there is hair above it.
    place = np.array([(width - 1) / 2, (height - 1) / 2]) + side * np.add(pose.shift, (0.0, 6 / VIEW_PX))
    return np.column_stack([rotation, place - rotation @ np.array(FACE_CENTRE)])


def _apply(affine: Points, points: Points) -> Points:
    return points @ affine[:, :2].T + affine[:, 2]


def _field(
    portrait: Portrait,
    rest: Points,
    moved: Points,
    camera: Points,
    pose: Pose,
    size_wh: tuple[int, int],
    *,
    without: list[int],
) -> Map:
    """Backward map of the picture into the portrait (before lids), float32 H×W×2."""
    chosen = np.setdiff1d(np.arange(68), without)
    controls = np.vstack([moved[chosen], _turn(portrait, portrait.head, pose), portrait.still])
    sources = np.vstack([rest[chosen], portrait.head, portrait.still])
    inverse = np.asarray(cv2.invertAffineTransform(camera), np.float64)
    grid = _apply(inverse, coarse_grid(*size_wh))
    return enlarge(spline(controls, sources, grid), *size_wh)
