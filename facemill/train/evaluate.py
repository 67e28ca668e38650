"""How well a model does on faces that it was not trained on: nothing is random, so steps can be compared."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from facemill.nets import SwapModel
from facemill.train.data import FaceSet
from facemill.train.losses import dssim, mae

BATCH = 32


def validation_losses(model: SwapModel, sets: Mapping[str, FaceSet]) -> dict[str, float]:
    """MAE and DSSIM of every identity drawn as itself, as `mae/IDENTITY` and `dssim/IDENTITY`.

    Args:
        model: in any mode; it is left in the mode it was in.
        sets: faces of each identity, on the model's device.
    """
    was_training = model.training
    model.eval()
    losses: dict[str, float] = {}
    with torch.inference_mode():
        for identity, faces in sets.items():
            views = faces.view(model.input_px)
            drawn = torch.cat([model(piece, identity) for piece in torch.split(views, BATCH)]).float()
            losses[f"mae/{identity}"] = float(mae(drawn, views))
            losses[f"dssim/{identity}"] = float(dssim(drawn, views))
    model.train(was_training)
    return losses
