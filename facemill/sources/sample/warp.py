"""Smooth warps: a thin-plate spline through control points, and the lids of the eyes.

A picture is warped backwards: for each pixel of the output one needs the place it comes from. The spline is fitted from
output controls to their sources, so that at the controls, and therefore at the landmarks, it is exact; it is evaluated
on a coarse grid and enlarged, since it is smooth.
Spline: Bookstein, "Principal Warps", 1989, kernel r² log r².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Map = npt.NDArray[np.float32]

CELL_PX = 16


def coarse_grid(width: int, height: int) -> Points:
    """Centres of CELL_PX cells that cover width×height with one cell to spare on each side, (rows, columns, 2)."""
    columns, rows = -(-width // CELL_PX) + 2, -(-height // CELL_PX) + 2
    x = (np.arange(columns) - 0.5) * CELL_PX - 0.5
    y = (np.arange(rows) - 0.5) * CELL_PX - 0.5
    return np.stack(np.meshgrid(x, y), axis=-1)


def enlarge(values: Points, width: int, height: int) -> Map:
    """Values at `coarse_grid`'s points, brought to every pixel: float32 height×width×2."""
    rows, columns = values.shape[:2]
    full = cv2.resize(values.astype(np.float32), (columns * CELL_PX, rows * CELL_PX), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(full[CELL_PX : CELL_PX + height, CELL_PX : CELL_PX + width])


def spline(controls: Points, targets: Points, at: Points) -> Points:
    """The thin-plate spline with f(controls) = targets, evaluated.

    Args:
        controls: (K, 2), no two of them equal.
        targets: (K, 2).
        at: (..., 2).

    Returns:
        f(at), shaped as `at`.
    """
    count = len(controls)
    scale = float(np.ptp(controls)) or 1.0  # keeps the system well conditioned
    nodes = controls / scale
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _kernel(nodes, nodes)
    system[:count, count:] = np.column_stack([np.ones(count), nodes])
    system[count:, :count] = system[:count, count:].T
    # OpenCV and einsum, not BLAS: for systems this small its threads cost ten times what they save on a busy machine.
    _, solved = cv2.solve(system, np.vstack([targets - controls, np.zeros((3, 2))]), flags=cv2.DECOMP_LU)
    weights = np.asarray(solved, np.float64)
    flat = at.reshape(-1, 2) / scale
    offset = np.einsum("pk,kd->pd", _kernel(flat, nodes), weights[:count]) + weights[count]
    offset += np.einsum("pk,kd->pd", flat, weights[count + 1 :])
    return np.asarray(at + offset.reshape(at.shape))


def sample(picture: npt.NDArray[np.uint8], field: Map) -> npt.NDArray[np.uint8]:
    """The picture seen through a backward map, bilinear; its edge runs on outside."""
    no_second_map: Any = None
    found = cv2.remap(picture, field, no_second_map, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.uint8)


@dataclass(frozen=True)
class Lids:
    """Both eyes' upper lids, closed by `amount` (0 open, 1 shut), in the stage's pixels.

    Between the corners of an eye the lid comes down by `amount` of the opening; the skin above it, `room_px` high,
    stretches, and what is seen of the eye is pressed together. Per column of the eye the map is piecewise linear and so
    has an exact inverse.
    """

    landmarks: Points
    room_px: float
    amount: float

    def forward(self, eye: slice) -> Points:
        """Where the six landmarks of one eye (36:42 or 42:48) go."""
        points = self.landmarks[eye].copy()
        frame = _EyeFrame.of(points)
        along, _ = frame.into(points[1:3])
        points[1:3] += np.outer(_SHUT * self.amount * frame.opening(along), frame.axes[1])
        return points

    def apply(self, sources: Map) -> None:
        """Sends a backward map through the lids, in place."""
        for eye in (slice(36, 42), slice(42, 48)):
            self._apply_eye(sources, _EyeFrame.of(self.landmarks[eye]))

    def _apply_eye(self, sources: Map, frame: _EyeFrame) -> None:
        part = _part_near(sources, frame.origin, 0.5 * frame.width + self.room_px)
        along, down = frame.into(part.astype(np.float64))
        upper, opening = frame.upper(along), frame.opening(along)
        lower, moved = upper + opening, upper + _SHUT * self.amount * opening
        roof = upper - self.room_px
        skin = roof + (down - roof) * (upper - roof) / np.maximum(moved - roof, 1e-6)
        eye = lower - (lower - down) * opening / np.maximum(lower - moved, 1e-6)
        source = np.where((down > roof) & (down <= moved), skin, np.where((down > moved) & (down < lower), eye, down))
        part += ((source - down)[..., None] * frame.axes[1]).astype(np.float32)


_SHUT = 0.93  # of the opening; the rest stays as the dark line between the lids


@dataclass(frozen=True)
class _EyeFrame:
    """Coordinates of one eye: `along` from corner to corner in -1…1 times half the width, `down` across."""

    origin: Points
    axes: Points  # rows: along, down
    width: float
    rise: float  # height of the upper lid over the corners' line, negative upwards
    depth: float  # the same of the lower lid

    @classmethod
    def of(cls, eye: Points) -> _EyeFrame:
        origin, axis = (eye[0] + eye[3]) / 2, eye[3] - eye[0]
        width = float(np.hypot(*axis))
        along = axis / width
        axes = np.array([along, [-along[1], along[0]]])
        local = (eye - origin) @ axes.T
        bow = np.maximum(1 - (local[:, 0] / (width / 2)) ** 2, 0.3)
        heights = local[:, 1] / bow
        return cls(origin, axes, width, float(heights[1:3].mean()), float(heights[4:6].mean()))

    def into(self, points: Points) -> tuple[Points, Points]:
        local = (points - self.origin) @ self.axes.T
        return local[..., 0], local[..., 1]

    def _bow(self, along: Points) -> Points:
        return np.maximum(1 - (along / (self.width / 2)) ** 2, 0)

    def upper(self, along: Points) -> Points:
        return self.rise * self._bow(along)

    def opening(self, along: Points) -> Points:
        return (self.depth - self.rise) * self._bow(along)


def _part_near(sources: Map, place: Points, reach_px: float) -> Map:
    """A view of the rectangle of the map whose sources lie within a square around the place; may be empty."""
    step = 8
    offset = np.abs(sources[::step, ::step] - place.astype(np.float32)).max(-1)
    rows, columns = np.nonzero(offset < reach_px + 2 * step)
    if len(rows) == 0:
        return sources[:0, :0]
    top, left = max(rows.min() * step - step, 0), max(columns.min() * step - step, 0)
    return sources[top : (rows.max() + 1) * step + 1, left : (columns.max() + 1) * step + 1]


def _kernel(a: Points, b: Points) -> Points:
    """r² log r² between all pairs, (len(a), len(b))."""
    squared = (a[:, None, 0] - b[None, :, 0]) ** 2 + (a[:, None, 1] - b[None, :, 1]) ** 2
    return np.asarray(squared * np.log(squared + 1e-12))
