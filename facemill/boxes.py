"""What detectors and trackers ask of boxes (xyxy, pixels); nothing edits its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 1024
"""Boxes that are compared with each other at a time: bounds the memory of a crowd (a table of 8 MB)."""


@dataclass(frozen=True)
class BoxConvention:
    """How somebody draws boxes around faces, told by how dlib's HOG detector would draw them around the same faces.

    The same face has other boxes from other detectors: HOG's square from mid-brow to below the mouth, MTCNN's upright
    rectangle, an annotator's tight box from hair to chin. dlib's 68-point predictor was trained with HOG's, so that
    from other boxes its error doubles; a size limit means something else for each, too.

    Attributes:
        shift_x, shift_y: from the centre of the box to that of HOG's, in parts of the mean side of the box.
        side: of HOG's square, in parts of the mean side of the box.

    `benchmarks/landmarks.py FOLDER --fit --detectors mtcnn mmod --annotated VOC` prints them: medians over the faces
    that HOG finds too, in every second picture of HELEN and AFW (106 faces), half of them mirrored. On the others the
    landmark error from HOG's boxes is 0.0257 (median over 106 faces, in distances of the outer eye corners).
    """

    shift_x: float = 0.0
    shift_y: float = 0.0
    side: float = 1.0

    def to_hog(self, boxes_xyxy: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """(N, 4) boxes of this convention -> (N, 4) squares as HOG would draw them; HOG's own stay as they are."""
        boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
        if self == HOG_BOXES:
            return boxes.copy()
        unit = (boxes[:, 2:] - boxes[:, :2]).mean(axis=1, keepdims=True)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + unit * [self.shift_x, self.shift_y]
        return np.hstack([centres - unit * self.side / 2, centres + unit * self.side / 2])


HOG_BOXES = BoxConvention()
LANDMARK_BOXES = BoxConvention(shift_y=-0.097, side=1.051)
"""Tight boxes around 68 landmarks, for following a face from one frame to the next. From them the landmark error is
0.0268, unmapped 0.0288."""


def nms(
    boxes_xyxy: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    threshold: float,
    *,
    mode: str = "union",
    border_px: float = 0.0,
) -> npt.NDArray[np.intp]:
    """Indices of the boxes that greedy non-maximum suppression keeps, highest score first.

    Equal scores keep their order.

    Args:
        boxes_xyxy: (N, 4).
        scores: (N,).
        threshold: a box falls when its overlap with a kept one exceeds this.
        mode: "union": the overlap is intersection over union; "min": intersection over the smaller box, which also
            removes a box inside another.
        border_px: 1 where right and bottom are the last pixel of the box and not its edge (MTCNN counts so).

    Raises:
        ValueError: another mode.
    """
    if mode not in ("union", "min"):
        raise ValueError(f"mode must be 'union' or 'min', got {mode!r}")
    order = np.argsort(-scores, kind="stable")
    boxes = boxes_xyxy[order].astype(np.float64)
    alive = np.ones(len(boxes), bool)
    for start in range(0, len(boxes), _BLOCK):
        block = boxes[start : start + _BLOCK]
        falls = np.triu(_overlapping(block, block, threshold, mode, border_px), 1)
        for row in np.flatnonzero(falls.any(axis=1)):
            if alive[start + row]:
                alive[start : start + _BLOCK] &= ~falls[row]
        kept = block[alive[start : start + _BLOCK]]
        for later in range(start + _BLOCK, len(boxes), _BLOCK):
            rest = slice(later, later + _BLOCK)
            alive[rest] &= ~_overlapping(kept, boxes[rest], threshold, mode, border_px).any(axis=0)
    return order[alive]


SAME_FACE_IOU = 0.3
"""Boxes of one face in neighbouring frames, or in two views of one picture, overlap more."""


def iou(boxes_xyxy: npt.NDArray[Any], others_xyxy: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(N, 4) and (M, 4) -> (N, M) intersection over union, 0…1."""
    first, second = boxes_xyxy.astype(np.float64), others_xyxy.astype(np.float64)
    shared = _shared(first, second, 0.0)
    whole = _areas(first, 0.0)[:, None] + _areas(second, 0.0)[None] - shared
    return shared / np.maximum(whole, 1e-12)


def shorter_sides(boxes_xyxy: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(N, 4) boxes xyxy -> (N,) the shorter side of each, in the units of the boxes."""
    return np.asarray((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).min(axis=1))


def around(
    shape: tuple[int, ...], box_xyxy: Sequence[float], *, margin: float = 1.9, whole_from: float = 0.9
) -> tuple[int, int, int, int]:
    """The square to look at around a face, inside the picture.

    Args:
        shape: H, W, … of the picture.
        box_xyxy: the face, pixels.
        margin: side of the square over the longer side of the box.
        whole_from: if the square would take so much of the picture's shorter side, the whole picture is taken.

    Returns:
        x0, y0, x1, y1 in whole pixels, x1 and y1 exclusive.
    """
    height, width = shape[:2]
    x0, y0, x1, y1 = box_xyxy
    side = round(max(x1 - x0, y1 - y0) * margin)
    if side >= whole_from * min(height, width):
        return 0, 0, width, height
    left = min(max(0, round((x0 + x1 - side) / 2)), width - side)
    top = min(max(0, round((y0 + y1 - side) / 2)), height - side)
    return left, top, left + side, top + side


def cut_around(picture: npt.NDArray[np.uint8], box_xyxy: Sequence[float], margin: float = 1.9) -> npt.NDArray[np.uint8]:
    """The square `around` a face, cut out of an H×W×3 picture: a view of it."""
    x0, y0, x1, y1 = around(picture.shape, box_xyxy, margin=margin)
    return picture[y0:y1, x0:x1]


def _overlapping(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], threshold: float, mode: str, border_px: float
) -> npt.NDArray[np.bool_]:
    """(N, 4) and (M, 4) -> (N, M), where the overlap exceeds the threshold."""
    shared = _shared(first, second, border_px)
    own, other = _areas(first, border_px)[:, None], _areas(second, border_px)[None]
    whole = own + other - shared if mode == "union" else np.minimum(own, other)
    over: npt.NDArray[np.bool_] = shared > threshold * whole
    return over


def _shared(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], border_px: float
) -> npt.NDArray[np.float64]:
    """(N, 4) and (M, 4) -> (N, M) areas of the intersections."""
    sides = []
    for axis in (0, 1):
        side = np.minimum(first[:, axis + 2, None], second[:, axis + 2])
        side -= np.maximum(first[:, axis, None], second[:, axis])
        side += border_px
        sides.append(np.maximum(side, 0, out=side))
    area: npt.NDArray[np.float64] = np.multiply(sides[0], sides[1], out=sides[0])
    return area


def _areas(boxes: npt.NDArray[np.float64], border_px: float) -> npt.NDArray[np.float64]:
    area: npt.NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2] + border_px).prod(axis=1)
    return area
