"""Non-maximum suppression of many pictures at once, on the host or on the device."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facemill.boxes import nms

BLOCK = 1024
"""Boxes of a picture that are compared with each other at a time."""
PAIRS = 1 << 24
"""Pairs in one pass: bounds memory (float64, some eight tables: about 1 GB)."""


def nms_groups(
    groups: Tensor, boxes_xyxy: Tensor, scores: Tensor, threshold: float, *, mode: str = "union", border_px: float = 0.0
) -> Tensor:
    """Rows that greedy suppression keeps when boxes of the same group alone compete: `nms` for each group.

    Args:
        groups: (N,) integers from 0.
        boxes_xyxy: (N, 4) float64.
        scores: (N,).
        threshold: as in `nms`, and so are `mode` and `border_px`.

    Returns:
        (K,) rows, by group, highest score first.
    """
    if not len(groups):
        return torch.zeros(0, dtype=torch.int64, device=groups.device)
    if groups.is_cuda:
        return nms_dense(groups, boxes_xyxy, scores, threshold, mode=mode, border_px=border_px)
    order = np.argsort(groups.numpy(), kind="stable")
    boxes, values = boxes_xyxy.numpy()[order], scores.numpy()[order]
    ends = [0, *(np.flatnonzero(np.diff(groups.numpy()[order])) + 1), len(order)]
    rule = _nms_by_union if mode == "union" else partial(nms, mode=mode)
    kept = [
        order[first:last][rule(boxes[first:last], values[first:last], threshold, border_px=border_px)]
        for first, last in pairwise(ends)
    ]
    return torch.from_numpy(np.concatenate(kept))


def _nms_by_union(
    boxes_xyxy: npt.NDArray[np.float64], scores: npt.NDArray[Any], threshold: float, *, border_px: float
) -> npt.NDArray[np.intp]:
    """`nms` by OpenCV, which compares as greedy suppression does and no pair more: half the time on these candidates.

    It takes positive scores, and rounds overlaps to float32.
    """
    size_wh = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2] + border_px
    positive = (scores - scores.min() + 1).astype(np.float32)
    boxes_xywh: Any = np.hstack([boxes_xyxy[:, :2], size_wh])
    scored: Any = positive
    return np.asarray(cv2.dnn.NMSBoxes(boxes_xywh, scored, 0.0, threshold), np.intp)


def nms_dense(
    groups: Tensor, boxes_xyxy: Tensor, scores: Tensor, threshold: float, *, mode: str = "union", border_px: float = 0.0
) -> Tensor:
    """`nms_groups` without a loop over boxes or groups: every group padded to the longest, in blocks.

    Greedy suppression is the one fixed point of "a box stays unless a stronger one that stays covers it"; repeating the
    rule settles each box after at most as many rounds as its chain of stronger neighbours is long, here three to six.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    order = order[torch.argsort(groups[order], stable=True)]
    _, group, counts = torch.unique_consecutive(groups[order], return_inverse=True, return_counts=True)
    place = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[group]
    longest, total = int(counts.max()), len(counts)
    table = boxes_xyxy.new_zeros(total, longest, 4)
    table[group, place] = boxes_xyxy[order]
    present = torch.zeros(total, longest, dtype=torch.bool, device=order.device)
    present[group, place] = True
    at_once = max(1, PAIRS // min(longest, BLOCK) ** 2)
    kept = torch.cat(
        [
            _kept(boxes, there, threshold, mode, border_px)
            for boxes, there in zip(torch.split(table, at_once), torch.split(present, at_once), strict=True)
        ]
    )
    return order[kept[group, place]]


def _kept(boxes: Tensor, present: Tensor, threshold: float, mode: str, border_px: float) -> Tensor:
    """(G, M, 4) boxes, strongest first, and (G, M) which of them exist -> (G, M) which stay."""
    kept = torch.zeros_like(present)
    for start in range(0, boxes.shape[1], BLOCK):
        block = slice(start, start + BLOCK)
        alive = present[:, block].clone()
        for before in range(0, start, BLOCK):
            stronger = slice(before, before + BLOCK)
            falls = _overlapping(boxes[:, stronger], boxes[:, block], threshold, mode, border_px)
            alive &= ~(falls & kept[:, stronger, None]).any(1)
        falls = _overlapping(boxes[:, block], boxes[:, block], threshold, mode, border_px).triu(1)
        settled = alive
        while True:
            again = alive & ~(falls & settled[:, :, None]).any(1)
            if torch.equal(again, settled):
                break
            settled = again
        kept[:, block] = settled
    return kept


def _overlapping(first: Tensor, second: Tensor, threshold: float, mode: str, border_px: float) -> Tensor:
    """(G, N, 4) and (G, M, 4) -> (G, N, M), where the overlap exceeds the threshold."""
    own, other = first[:, :, None], second[:, None]
    size_wh = torch.minimum(own[..., 2:], other[..., 2:]) - torch.maximum(own[..., :2], other[..., :2]) + border_px
    shared = size_wh.clamp(min=0).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2] + border_px).prod(-1) for boxes in (own, other)]
    whole = areas[0] + areas[1] - shared if mode == "union" else torch.minimum(areas[0], areas[1])
    return shared > threshold * whole
