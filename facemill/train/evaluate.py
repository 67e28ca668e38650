"""How well a model does on faces that it was not trained on: nothing is random, so steps can be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from facemill.device import is_out_of_memory
from facemill.nets import SwapModel
from facemill.similarity import psnr
from facemill.train.data import FaceSet
from facemill.train.losses import DSSIM_SHARE, dssim, mae

AT_ONCE = 32
"""Faces that go through a net together; fewer where memory is short."""


def in_parts(draw: Callable[[Tensor], Tensor], faces: Tensor) -> Tensor:
    """What a net draws of faces (N, 3, P, P), a part at a time, in float32; out of memory only for a single one."""
    at_once = AT_ONCE
    while True:
        try:
            return torch.cat([draw(part).float() for part in torch.split(faces, at_once)])
        except RuntimeError as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
        at_once //= 2


def validation_losses(model: SwapModel, sets: Mapping[str, FaceSet]) -> dict[str, float]:
    """How every identity is drawn as itself: `mae/IDENTITY`, `dssim/…`, `ssim/…` (1 is perfect), `psnr/…` in dB.

    Of a model with a mask it is the picture before the mask lets the given face through, which would always be right.

    Args:
        model: in any mode; it is left in the mode it was in.
        sets: faces of each identity, on the host or on the model's device.
    """
    was_training, device = model.training, next(model.parameters(), torch.empty(0)).device
    model.eval()
    losses: dict[str, float] = {}
    with torch.inference_mode():
        for identity, faces in sets.items():
            sums = torch.zeros(3, dtype=torch.float64)
            for rows in torch.split(torch.arange(len(faces)), AT_ONCE):
                views = faces.take(rows).to(device).view(model.input_px)
                drawn = in_parts(partial(_raw, model, identity), views)
                found = torch.stack([mae(drawn, views), dssim(drawn, views), psnr(drawn, views).mean()])
                sums += len(rows) * found.double().cpu()
            mean_mae, mean_dssim, mean_psnr = (sums / len(faces)).tolist()
            losses[f"mae/{identity}"] = mean_mae
            losses[f"dssim/{identity}"] = mean_dssim
            losses[f"ssim/{identity}"] = 1 - 2 * mean_dssim
            losses[f"psnr/{identity}"] = mean_psnr
    model.train(was_training)
    return losses


def validation_value(measured: Mapping[str, float], judged_by: str = "reconstruction") -> float:
    """One number that falls as a model gets better: mean of mae + DSSIM_SHARE · dssim over identities.

    With `judged_by` "identity_distance" the mean of those distances, if some were measured.
    """
    distances = [value for name, value in measured.items() if name.startswith("identity_distance/")]
    if judged_by == "identity_distance" and distances:
        return sum(distances) / len(distances)
    people = [name.removeprefix("mae/") for name in measured if name.startswith("mae/")]
    return sum(measured[f"mae/{who}"] + DSSIM_SHARE * measured[f"dssim/{who}"] for who in people) / len(people)


def _raw(model: SwapModel, identity: str, faces: Tensor) -> Tensor:
    return model.draw(faces, identity)[0]
