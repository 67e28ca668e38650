"""Which box of one frame is which box of another: intersection over union, the best pair first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.boxes import SAME_FACE_IOU, iou

Array = npt.NDArray[Any]

JUMP_IOU = 0.5
"""Below this the same face has moved further than faces do from one frame to the next."""


def overlap(first: Array, second: Array) -> float:
    """Intersection over union of two boxes (4,), 0…1."""
    return float(iou(first[None], second[None])[0, 0])


def best_match(box: Array, candidates: Array, least_iou: float = SAME_FACE_IOU) -> int | None:
    """Row of the candidate (N, 4) that overlaps the box (4,) most, None where none overlaps by `least_iou`."""
    if len(candidates) == 0:
        return None
    overlaps = iou(box[None], candidates)[0]
    best = int(np.argmax(overlaps))
    return best if overlaps[best] >= least_iou else None


def match(first: Array, second: Array, least_iou: float = SAME_FACE_IOU) -> list[tuple[int, int]]:
    """Pairs of rows of (N, 4) and (M, 4) boxes, each row in one pair at most, those that overlap most first.

    Rows with NaN (a face that was lost) match nothing.
    """
    if len(first) == 0 or len(second) == 0:
        return []
    overlaps = np.nan_to_num(iou(first, second))
    pairs = []
    while overlaps.max() >= least_iou:
        row, column = (int(index) for index in np.unravel_index(np.argmax(overlaps), overlaps.shape))
        pairs.append((row, column))
        overlaps[row], overlaps[:, column] = -1.0, -1.0
    return pairs
