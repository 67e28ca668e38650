"""Losses on pictures, as pure functions of tensors N×C×H×W in 0…1; every one returns a scalar.

Each is the mean over faces of what a face has by itself, weighted or not: the mean over micro-batches, or over several
processes, is that of the whole batch.
"""

from __future__ import annotations

from torch import Tensor

from facemill.similarity import WINDOW_PX, ssim_map

DSSIM_SHARE = 0.5


def reconstruction(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """mae + DSSIM_SHARE · dssim, both weighted: absolute differences set the colours, structure the features."""
    return mae(output, target, weight) + DSSIM_SHARE * dssim(output, target, weight)


def mae(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error; with `weight` (N, 1, H, W) the mean over a face's pixels is a weighted one."""
    difference = (output - target).abs().mean(dim=1, keepdim=True)
    return difference.mean() if weight is None else _weighted(difference, weight)


def dssim(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """(1 − SSIM) / 2 in 0…1, see `facemill.similarity.ssim_map`; weighted as `mae`."""
    margin = WINDOW_PX // 2
    difference = (1 - ssim_map(output, target)).mean(dim=1, keepdim=True) / 2
    if weight is None:
        return difference.mean()
    return _weighted(difference, weight[:, :, margin:-margin, margin:-margin])


def _weighted(difference: Tensor, weight: Tensor) -> Tensor:
    """Mean over faces of each face's weighted mean. A face whose weights are all 0 counts as 0."""
    return ((difference * weight).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp_min(1e-6)).mean()
