"""Networks by the name and preset that ``params.yaml`` uses.

A model is one module of this package whose file name is its name; it registers its builder with ``@register(name)``
and lists its presets in ``PRESETS``. Nothing is imported before it is asked for, and adding a model touches no other
file. How a model is trained stands apart, under the same name, in `facemill.train.objectives`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from facemill.registry import Registry

__all__ = ["SwapModel", "build_model", "model_names", "register"]


def build_model(name: str, preset: str, identities: Sequence[str]) -> SwapModel:
    """An untrained model with random weights, on the CPU.

    Raises:
        FacemillError: no such model or preset (the message names those that there are), or identities it cannot take.
    """
    return _MODELS[name](preset, identities)


def model_names() -> list[str]:
    """Names that `build_model` takes, sorted."""
    return _MODELS.names()


class SwapModel(nn.Module):
    """What every model offers to training, previews and conversion."""

    identities: tuple[str, ...]
    """The people it can draw."""
    input_px: int
    """Side of the square face that goes in and comes out."""

    def forward(self, face: Tensor, identity: str) -> Tensor:
        """(N, 3, P, P) RGB in 0…1 → the same pose, expression and light as `identity`, same shape and range.

        Raises:
            FacemillError: an identity that the model was not built for; the message names those that it knows.
        """
        raise NotImplementedError

    def draw(self, face: Tensor, identity: str) -> tuple[Tensor, Tensor]:
        """Colours and mask: RGB (N, 3, P, P) and alpha (N, 1, P, P), both in 0…1; `forward` is what they make together.

        A model without a mask of its own answers with ones.
        """
        drawn = self(face, identity)
        return drawn, torch.ones_like(drawn[:, :1])


Builder = Callable[[str, Sequence[str]], SwapModel]


_MODELS: Registry[Builder] = Registry("model", __name__)
register = _MODELS.register
