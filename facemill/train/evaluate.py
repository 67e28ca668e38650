"""How well a model does on faces that it was not trained on: nothing is random, so steps can be compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from facemill.nets import SwapModel
from facemill.train.data import FaceSet
from facemill.train.losses import DSSIM_SHARE, dssim, mae, psnr

BATCH = 32


def validation_losses(model: SwapModel, sets: Mapping[str, FaceSet]) -> dict[str, float]:
    """How every identity is drawn as itself: `mae/IDENTITY`, `dssim/…`, `ssim/…` (1 is perfect), `psnr/…` in dB.

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
            for rows in torch.split(torch.arange(len(faces)), BATCH):
                views = faces.take(rows).to(device).view(model.input_px)
                drawn = model(views, identity).float()
                found = torch.stack([mae(drawn, views), dssim(drawn, views), psnr(drawn, views)])
                sums += len(rows) * found.double().cpu()
            mean_mae, mean_dssim, mean_psnr = (sums / len(faces)).tolist()
            losses[f"mae/{identity}"] = mean_mae
            losses[f"dssim/{identity}"] = mean_dssim
            losses[f"ssim/{identity}"] = 1 - 2 * mean_dssim
            losses[f"psnr/{identity}"] = mean_psnr
    model.train(was_training)
    return losses


def validation_value(losses: Mapping[str, float]) -> float:
    """One number that falls as a model gets better: mean of mae + DSSIM_SHARE · dssim over identities."""
    people = [name.removeprefix("mae/") for name in losses if name.startswith("mae/")]
    return sum(losses[f"mae/{who}"] + DSSIM_SHARE * losses[f"dssim/{who}"] for who in people) / len(people)
