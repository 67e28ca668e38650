"""The autoencoder's objective (S13): give back the unbent face from the bent one, everybody with their own decoder.

All identities go through the shared encoder in one batch; the loss of an identity reaches the encoder and that
identity's decoder only.

The published net is trained with MAE alone, Adam at 5e-5 with β₁ 0.5, a constant rate. Ours for the wide presets are
that optimizer and rate; the loss adds half of DSSIM, which keeps edges where MAE would blur them. A narrow net, such as
`small`, learns ten times as fast, with warm-up and cosine.
"""

from __future__ import annotations

import torch
from torch import Tensor

from facemill.errors import FacemillError
from facemill.nets import SwapModel
from facemill.nets.autoencoder import Autoencoder
from facemill.terms import Terms
from facemill.train.losses import reconstruction
from facemill.train.objectives import Batches, ObjectiveBase, OptimizerSettings, Published, register

TURN = "autoencoder"
NARROW = 20_000_000
CLASSIC = Published(learning_rate=5e-5, optimizer=OptimizerSettings(betas=(0.5, 0.999)), warmup_steps=1, final_rate=1.0)


class AutoencoderObjective(ObjectiveBase):
    """One turn, one loss for each identity, named `reconstruction/IDENTITY`."""

    turns = (TURN,)

    def __init__(self, model: Autoencoder) -> None:
        super().__init__(model)
        self._model = model
        self.published = CLASSIC if sum(p.numel() for p in model.parameters()) > NARROW else Published()

    def losses(self, turn: str, batch: Batches) -> dict[str, Tensor]:
        """The weighted reconstruction loss of each identity in the batch."""
        codes = self._model.encode(torch.cat([faces.warped for faces in batch.values()]))
        pieces = torch.split(codes, [len(faces.warped) for faces in batch.values()])
        losses = {}
        for (identity, faces), code in zip(batch.items(), pieces, strict=True):
            output = self._model.decode(code, identity)
            losses[f"reconstruction/{identity}"] = reconstruction(output, faces.target, faces.weight)
        return losses


TERMS: tuple[Terms, ...] = ()
"""Its losses compare pixels and ask no network that somebody else has trained."""


@register("autoencoder")
def build(model: SwapModel) -> AutoencoderObjective:
    """The objective of a model that `facemill.nets.autoencoder` built."""
    if not isinstance(model, Autoencoder):
        raise FacemillError(f"the autoencoder's objective cannot train a {type(model).__name__}")
    return AutoencoderObjective(model)
