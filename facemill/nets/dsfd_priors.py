"""Prior boxes (anchors) of single-shot face detectors: where they lie, which face each answers for, offsets.

Li et al. 2019, "DSFD: Dual Shot Face Detector", section 3.3 and table 2: one prior a cell, 1.5 times as high as wide,
sides 16…512 px on six maps with strides 4…128 px for the second shot and half of that for the first. At 640×640 they
are 160² + 80² + 40² + 20² + 10² + 5² = 34,125.

Boxes are x, y of the left top and right bottom *edges* in pixels, as annotation files have them: pixel j covers
j…j + 1, and a box mirrored in a picture W wide is W − right, W − left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, sqrt

import torch
from torch import Tensor

CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
"""Offsets are divided by these (Liu et al. 2016, SSD, the authors' code), so that a net's outputs are near 1."""
BACKGROUND = -1
CACHED_SIZES = 16
"""Picture sizes whose priors are kept: at 640 px half a megabyte each; videos and letterboxed batches need few."""
_BOXES_AT_ONCE = 128
"""Boxes in one block of `match`: bounds its memory on crowd pictures (34,125 priors: about 70 MB)."""
_LARGEST_LOG_SIZE = 10.0
"""Cap of a decoded log width or height: e^10 times the prior is beyond any picture, e^89 is infinity in float32."""


@dataclass(frozen=True)
class PriorConfig:
    """Which priors there are. The first shot's are `first_shot_scale` times as large, for the shallower features."""

    strides: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    sizes_px: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    """√(width · height) of the second shot's priors, map by map."""
    aspect: float = 1.5
    """Height : width."""
    first_shot_scale: float = 0.5


@lru_cache(maxsize=CACHED_SIZES)
def priors(height_px: int, width_px: int, config: PriorConfig, shot: int, device: str | torch.device = "cpu") -> Tensor:
    """(P, 4) float32 xyxy in pixels, map after map, each row by row; they may reach past the picture.

    The tensor is shared by all callers: do not write into it.

    Args:
        height_px: of the picture.
        width_px: of the picture.
        config: strides and sizes.
        shot: 1 or 2.
        device: where the tensor is wanted.
    """
    if shot not in (1, 2):
        raise ValueError(f"shot must be 1 or 2, got {shot}")
    scale = config.first_shot_scale if shot == 1 else 1.0
    maps = [
        _map_priors(ceil(height_px / stride), ceil(width_px / stride), stride, scale * size_px, config.aspect)
        for stride, size_px in zip(config.strides, config.sizes_px, strict=True)
    ]
    return torch.cat(maps).to(device)


def match(priors_xyxy: Tensor, boxes_xyxy: Tensor, iou: float = 0.4) -> Tensor:
    """(P, 4) priors and (G, 4) boxes -> (P,) int64: the box that each prior answers for, `BACKGROUND` for none.

    A prior takes the box that it overlaps most, from `iou` on. Each box also gets the prior that overlaps it most,
    however little; where two boxes want one prior, a box that has others yields, then the smaller overlap. A box
    without area or out of reach of all priors gets none. There may be no box at all.
    """
    best = torch.zeros(len(priors_xyxy), device=priors_xyxy.device)
    taken = torch.full((len(priors_xyxy),), BACKGROUND, dtype=torch.int64, device=priors_xyxy.device)
    favourites = []
    for start in range(0, len(boxes_xyxy), _BOXES_AT_ONCE):
        overlap = iou_matrix(priors_xyxy, boxes_xyxy[start : start + _BOXES_AT_ONCE])  # (P, ≤ 128)
        favourites.append(overlap.max(dim=0))
        block_best, block_box = overlap.max(dim=1)
        better = block_best > best
        best, taken = torch.where(better, block_best, best), torch.where(better, block_box + start, taken)
    taken[best < iou] = BACKGROUND
    if favourites:
        overlaps = torch.cat([favourite.values for favourite in favourites])
        chosen = torch.cat([favourite.indices for favourite in favourites])
        count = torch.bincount(taken[taken != BACKGROUND], minlength=len(boxes_xyxy))
        order = torch.where(count > 1, overlaps, overlaps + 1).argsort(stable=True)  # who comes last gets it
        for box in order[overlaps[order] > 0].tolist():  # one by one: an indexed assignment keeps any of equal indices
            taken[chosen[box]] = box
    return taken


def encode(priors_xyxy: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """(P, 4) priors and the box of each -> (P, 4) offsets of centre (x, y) and log size (w, h), over the variances."""
    prior_centre, prior_size = _centre_size(priors_xyxy)
    centre, size = _centre_size(boxes_xyxy)
    shift = (centre - prior_centre) / prior_size / CENTRE_VARIANCE
    growth = (size / prior_size).log() / SIZE_VARIANCE
    return torch.cat([shift, growth], dim=-1)


def decode(priors_xyxy: Tensor, offsets: Tensor) -> Tensor:
    """The inverse of `encode`: (…, P, 4) priors and offsets -> (…, P, 4) xyxy boxes in pixels."""
    prior_centre, prior_size = _centre_size(priors_xyxy)
    centre = prior_centre + offsets[..., :2] * CENTRE_VARIANCE * prior_size
    size = prior_size * (offsets[..., 2:] * SIZE_VARIANCE).clamp(max=_LARGEST_LOG_SIZE).exp()
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def iou_matrix(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """(N, 4) and (M, 4) -> (N, M) intersection over union, 0…1; 0 where a box has no area."""
    left_top = torch.maximum(first_xyxy[:, None, :2], second_xyxy[None, :, :2])
    right_bottom = torch.minimum(first_xyxy[:, None, 2:], second_xyxy[None, :, 2:])
    shared = (right_bottom - left_top).clamp(min=0).prod(dim=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1) for boxes in (first_xyxy, second_xyxy)]
    return shared / (areas[0][:, None] + areas[1][None] - shared).clamp(min=1e-9)


def _map_priors(rows: int, columns: int, stride_px: int, size_px: float, aspect: float) -> Tensor:
    y = (torch.arange(rows) + 0.5) * stride_px
    x = (torch.arange(columns) + 0.5) * stride_px
    centres = torch.stack([x.repeat(rows), y.repeat_interleave(columns)], dim=1)  # (rows · columns, 2)
    half = torch.tensor([size_px / sqrt(aspect), size_px * sqrt(aspect)]) / 2
    return torch.cat([centres - half, centres + half], dim=1)


def _centre_size(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2, boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]
