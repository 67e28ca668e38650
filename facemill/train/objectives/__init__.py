"""What a model is trained for, apart from how: the seam between the models and the engine.

An objective says whose turn it is, which parameters move in that turn, and what the losses of a batch are; the engine
owns the loop, the optimizers, the guard against NaN and the checkpoints. The autoencoder has one turn; a GAN is an
objective with two (`("discriminator", "generator")`), which share a batch source and nothing else.

An objective is one module of this package whose file name is the model's name; it registers its builder with
``@register(name)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from facemill.nets import SwapModel
from facemill.registry import Registry
from facemill.train.augment import Batch

__all__ = ["Objective", "build_objective", "register"]

Batches = Mapping[str, Batch]
"""One batch for each identity."""


class Objective(Protocol):
    """What the engine needs to know of a model and its losses."""

    module: nn.Module
    """Everything with weights that a checkpoint has to keep, helpers such as discriminators included."""

    @property
    def turns(self) -> Sequence[str]:
        """Names of the turns of one step, in their order."""

    def parameters(self, turn: str) -> list[nn.Parameter]:
        """What moves in that turn; every turn has an optimizer of its own."""

    def losses(self, turn: str, batch: Any) -> dict[str, Tensor]:
        """Named scalar losses, weights included: their sum is what the turn lessens. Names are unique over turns.

        batch: what the feed draws; `Batches` where faces are swapped.
        """


def build_objective(name: str, model: SwapModel) -> Objective:
    """The objective of the model of that name.

    Raises:
        FacemillError: there is none; the message names those that there are.
    """
    return _OBJECTIVES[name](model)


Builder = Callable[[SwapModel], Objective]

_OBJECTIVES: Registry[Builder] = Registry("training objective for model", __name__)
register = _OBJECTIVES.register
