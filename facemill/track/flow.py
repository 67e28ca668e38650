"""One box from one frame to the next by the movement of the pixels in it.

Median flow (Kalal, Mikolajczyk & Matas 2010, "Forward-backward error: automatic detection of tracking failures"): a
grid of points in the box is followed by pyramidal Lucas–Kanade, those are dropped that do not come back to where they
started, and the median of the rest moves the box, the median of their distances to the middle scales it. No face is
looked for: the box keeps the habits of whichever detector drew it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Luma = npt.NDArray[np.uint8]

FACE_PX = 32
"""Faces are averaged down to 32…64 px. From 64 px up they are followed no better, and more of the fast ones are lost
(in a street 6.4 % against 4.4 %); from 24 px up nothing is saved."""
GRID = 5  # points in x and in y
GRID_PART = 0.76  # of the box that the grid covers: its corners show the background
REACH = 0.9  # half of the side of the part that is looked at, over the side of the box
WINDOW_PX, LEVELS = 11, 2  # of Lucas–Kanade; it follows movements of up to some 30 % of the face
STRAY_PX = 1.0  # a point that comes back farther from its start was lost
LEAST_POINTS = 8
LARGEST_SCALE = 1.25  # no face grows or shrinks faster from one frame to the next


def flow(before: Luma, after: Luma, boxes: Array) -> npt.NDArray[np.float64]:
    """Where the faces of `before` are in `after`.

    Args:
        before, after: brightness of two frames of one scene, uint8 H×W.
        boxes: (N, 4) xyxy in pixels of `before`; rows with NaN are passed through.

    Returns:
        (N, 4) xyxy, NaN in the rows of those that could not be followed.
    """
    moved = np.full((len(boxes), 4), np.nan)
    for row, box in enumerate(np.asarray(boxes, np.float64)):
        if np.isfinite(box).all():
            moved[row] = _follow(before, after, box)
    return moved


def _follow(before: Luma, after: Luma, box: Array) -> Array:
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    side = float(size.min())
    step = max(1, int(side // FACE_PX))  # whole pixels a side: averaging is then ten times cheaper
    first = np.clip(np.floor(centre - REACH * side), 0, None).astype(int)
    last = np.minimum(np.ceil(centre + REACH * side).astype(int), before.shape[::-1])
    cells = (last - first) // step
    if side <= 0 or cells.min() < WINDOW_PX:
        return np.full(4, np.nan)
    old, new = (_averaged(luma, first, cells, step) for luma in (before, after))
    points = ((centre + _UNIT_GRID * size - first + 0.5) / step - 0.5).astype(np.float32)
    there, found = _lucas_kanade(old, new, points)
    back, returned = _lucas_kanade(new, old, there)
    good = found & returned & (np.linalg.norm(back - points, axis=1) < STRAY_PX)
    if good.sum() < LEAST_POINTS:
        return np.full(4, np.nan)
    points, there = points[good], there[good]
    shift = np.median(there - points, axis=0)
    scale = _scale(points, there)
    if not 1 / LARGEST_SCALE < scale < LARGEST_SCALE:
        return np.full(4, np.nan)
    # The medians hold where the points are: the box's middle moves by the shift and by the growth around the points
    middle = np.median(points, axis=0)
    own = (centre - first + 0.5) / step - 0.5
    centre = centre + (shift + (scale - 1) * (own - middle)) * step
    return np.concatenate([centre - scale * size / 2, centre + scale * size / 2])


def _averaged(luma: Luma, first: Array, cells: Array, step: int) -> Luma:
    (x, y), (width, height) = first, cells * step
    part: Any = luma[y : y + height, x : x + width]
    if step == 1:
        return np.ascontiguousarray(part)
    return np.asarray(cv2.resize(part, (int(cells[0]), int(cells[1])), interpolation=cv2.INTER_AREA), np.uint8)


def _lucas_kanade(old: Luma, new: Luma, points: Array) -> tuple[Array, Array]:
    guess = np.empty_like(points[:, None])  # not read, since no flag says so
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        old, new, points[:, None], guess, winSize=(WINDOW_PX, WINDOW_PX), maxLevel=LEVELS, criteria=_CRITERIA
    )
    return np.asarray(moved[:, 0]), np.asarray(found[:, 0] == 1)


def _scale(points: Array, there: Array) -> float:
    """Median growth of the points' distances to their middle; those near it say nothing."""
    reach = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    grown = np.linalg.norm(there - np.median(there, axis=0), axis=1)
    far = reach > 0.5 * reach.max()
    return float(np.median(grown[far] / reach[far])) if reach.max() > 1 else 1.0


_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.03)
_AXIS = np.linspace(-GRID_PART / 2, GRID_PART / 2, GRID)
_UNIT_GRID = np.stack(np.meshgrid(_AXIS, _AXIS), axis=-1).reshape(-1, 2)
