"""Small functions on boxes that detectors share; none edits its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def nms(
    boxes_xyxy: npt.NDArray[Any],
    scores: npt.NDArray[Any],
    threshold: float,
    *,
    mode: str = "union",
    border_px: float = 0.0,
) -> npt.NDArray[np.intp]:
    """Indices of the boxes that greedy non-maximum suppression keeps, highest score first.

    A box falls when its overlap with a kept one exceeds `threshold`. mode "union": intersection over union; "min":
    intersection over the smaller box, which also removes a box inside another. border_px: 1 where right and bottom
    are the last pixel of the box and not its edge (MTCNN counts so). Equal scores keep their order.
    """
    if mode not in ("union", "min"):
        raise ValueError(f"mode must be 'union' or 'min', got {mode!r}")
    order = np.argsort(-scores, kind="stable")
    boxes = boxes_xyxy[order].astype(np.float64)
    areas = _areas(boxes, border_px)
    alive = np.ones(len(boxes), bool)
    kept = []
    for row in range(len(boxes)):
        if not alive[row]:
            continue
        kept.append(row)
        rest = slice(row + 1, None)
        shared = _intersections(boxes[row], boxes[rest], border_px)
        whole = areas[row] + areas[rest] - shared if mode == "union" else np.minimum(areas[row], areas[rest])
        alive[rest] &= shared <= threshold * whole
    return order[kept]


def iou(boxes_xyxy: npt.NDArray[Any], others_xyxy: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(N, 4) and (M, 4) -> (N, M) intersection over union, 0…1."""
    first, second = boxes_xyxy.astype(np.float64), others_xyxy.astype(np.float64)
    shared = np.stack([_intersections(box, second, 0.0) for box in first]) if len(first) else np.zeros((0, len(second)))
    whole = _areas(first, 0.0)[:, None] + _areas(second, 0.0)[None] - shared
    return shared / np.maximum(whole, 1e-12)


def squared(boxes_xyxy: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The boxes widened along their shorter side to squares with the same centres."""
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    half = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).max(axis=1, keepdims=True) / 2
    return np.hstack([centres - half, centres + half]).astype(np.float64)


def _intersections(
    box: npt.NDArray[np.float64], boxes: npt.NDArray[np.float64], border_px: float
) -> npt.NDArray[np.float64]:
    size_wh = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]) + border_px
    area: npt.NDArray[np.float64] = np.maximum(size_wh, 0).prod(axis=1)
    return area


def _areas(boxes: npt.NDArray[np.float64], border_px: float) -> npt.NDArray[np.float64]:
    area: npt.NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2] + border_px).prod(axis=1)
    return area
