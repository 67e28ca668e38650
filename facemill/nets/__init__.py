"""Networks by the name and preset that ``params.yaml`` uses.

A model is one module of this package whose file name is its name; it registers its builder with ``@register(name)``
and lists its presets in ``PRESETS``. Nothing is imported before it is asked for, and adding a model touches no other
file. How a model is trained stands apart, under the same name, in `facemill.train.objectives`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.registry import Registry

__all__ = ["SwapModel", "build_model", "model_names", "of_preset", "register", "state_key"]

Config = TypeVar("Config")


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

    def require(self, identity: str) -> None:
        """Raises FacemillError for an identity that the model does not draw; the message names those that it does."""
        if identity not in self.identities:
            raise FacemillError(f"this model knows no identity {identity!r}; it draws {', '.join(self.identities)}")

    def start_from(self, trained: SwapModel) -> tuple[str, ...]:
        """Takes over what a trained model knows: all that is shared, and what belongs to people whom both draw.

        Returns:
            The identities that the trained one does not draw; their parts keep their random weights.

        Raises:
            FacemillError: weights of another model or preset.
        """
        own, known = self.state_dict(), trained.state_dict()
        fresh = tuple(identity for identity in self.identities if identity not in trained.identities)
        new = {state_key(identity) for identity in fresh}
        for name, tensor in own.items():
            if new & set(name.split(".")):
                continue
            if name not in known or known[name].shape != tensor.shape:
                raise FacemillError(
                    f"{type(self).__name__} cannot start from this {type(trained).__name__}: {name} is missing or has "
                    "another shape; take a model of the same name and preset"
                )
        self.load_state_dict({name: known.get(name, tensor) for name, tensor in own.items()})
        return fresh


def of_preset(model: str, presets: Mapping[str, Config], preset: str) -> Config:
    """A model's settings by the preset's name. Raises FacemillError that names the presets that there are."""
    if preset not in presets:
        raise FacemillError(f"model {model!r} has no preset {preset!r}; there are {', '.join(presets)}")
    return presets[preset]


def state_key(identity: str) -> str:
    """An identity's name as a module name, which must hold no dot and hide no method of ModuleDict."""
    return "to_" + identity.replace(".", "%2E")


Builder = Callable[[str, Sequence[str]], SwapModel]


_MODELS: Registry[Builder] = Registry("model", __name__)
register = _MODELS.register
