"""What a model is trained for, apart from how: the seam between the models and the engine.

An objective says whose turn it is, which parameters move in that turn, and what the losses of a batch are; the engine
owns the loop, the optimizers, the guard against NaN and the checkpoints. The autoencoder has one turn; a GAN is an
objective with two (`("discriminator", "generator")`), which draw a batch each and share nothing else.

An objective is one module of this package whose file name is the model's name; it registers its builder with
``@register(name)``: a function of the model and of keyword options, those of `train.options` in ``params.yaml``. The
terms of networks that its losses ask stand in its `TERMS`, or in its `terms` of the options (`facemill.terms`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from facemill.nets import SwapModel
from facemill.options import checked_options
from facemill.registry import Registry
from facemill.terms import Terms, terms_of
from facemill.train.augment import Batch
from facemill.train.data import FaceSet

__all__ = [
    "Batches",
    "Objective",
    "ObjectiveBase",
    "OptimizerSettings",
    "Published",
    "build_objective",
    "objective_names",
    "objective_terms",
    "register",
]

Batches = Mapping[str, Batch]
"""One batch for each identity, all with as many faces."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """Of Adam, which is AdamW with a weight decay above 0, or of stochastic gradient descent."""

    kind: Literal["adam", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)  # of Adam
    momentum: float = 0.9  # of SGD
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Published:
    """How a model wants to be trained: what `auto` in ``params.yaml`` stands for."""

    learning_rate: float = 5e-4
    optimizer: OptimizerSettings = OptimizerSettings()
    rate_factors: Mapping[str, float] = field(default_factory=dict)  # on the learning rate, by turn; 1 where not named
    warmup_steps: int = 50
    final_rate: float = 0.02  # of the learning rate, where the cosine ends; 1 for a constant one
    ema_decay: float | None = None  # of the averaged weights; None for no average
    judged_by: Literal["reconstruction", "identity_distance"] = "reconstruction"
    """What must fall for the training to be getting anywhere (`train.plateau`): how faces are drawn as themselves, or,
    for a model that never learns to do that, how near swaps come to the person they should be."""


class Objective(Protocol):
    """What the engine needs to know of a model and its losses. `ObjectiveBase` has the plain answers."""

    module: nn.Module
    """Everything with weights that a checkpoint has to keep, helpers such as discriminators included."""

    @property
    def turns(self) -> Sequence[str]:
        """Names of the turns of one step, in their order."""

    @property
    def published(self) -> Published:
        """The settings with which the model's authors trained it, or ours where they fit it better."""

    @property
    def exact_in_parts(self) -> bool:
        """Whether the mean of the losses over micro-batches, or over processes, is that of the whole batch."""

    @property
    def remarks(self) -> Sequence[str]:
        """What a person should know before the training begins, such as a loss that is left out and why."""

    def prepare(self, sets: Mapping[str, FaceSet]) -> None:
        """Called once before training, with all training faces by identity, wherever they lie: on host or device."""

    def describe(self) -> dict[str, Any]:
        """What the model's description should say of its losses, as plain values, once training is over."""

    def parameters(self, turn: str) -> list[nn.Parameter]:
        """What moves in that turn; every turn has an optimizer of its own."""

    def begin_step(self, step: int, total: int) -> bool | None:
        """Called once before each step with the number of finished ones and of all: events of a schedule live here.

        Everything here must be a pure function of (step, total), what happens once (decoders change places) included:
        checkpoints lie between a step and the call for the next. True says that parameters were changed here, so that
        averages of them start afresh.
        """

    def rate(self, turn: str, step: int, total: int) -> float:
        """Factor on the learning rate of that turn, on top of warm-up and cosine; a pure function."""

    def losses(self, turn: str, batch: Any) -> dict[str, Tensor]:
        """Named scalar losses, weights included: their sum is what the turn lessens. Names are unique over turns.

        batch: what the feed draws, or a micro-batch of it; `Batches` where faces are swapped.

        A loss is a mean over faces of something that each face has alone, where that can be: see `exact_in_parts`.
        Random numbers come from torch's global generator, which begins anew with each call.
        """


class ObjectiveBase:
    """The plain answers, for an objective without a schedule: a subclass adds `turns`, `parameters` and `losses`."""

    turns: Sequence[str]
    published: Published = Published()
    exact_in_parts: bool = True
    remarks: Sequence[str] = ()

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def prepare(self, sets: Mapping[str, FaceSet]) -> None:
        """Does nothing: a plain objective learns nothing of its faces beforehand."""

    def describe(self) -> dict[str, Any]:
        """An empty description: a plain objective has nothing to add to the model's."""
        return {}

    def parameters(self, turn: str) -> list[nn.Parameter]:
        """All parameters of `module`, in every turn."""
        return list(self.module.parameters())

    def begin_step(self, step: int, total: int) -> bool | None:
        """Does nothing: without a schedule every step is like the others."""
        return None

    def rate(self, turn: str, step: int, total: int) -> float:
        """1 in every turn and step: no factor on the learning rate."""
        return 1.0

    def losses(self, turn: str, batch: Any) -> dict[str, Tensor]:
        """To be written by each objective; see `Objective.losses`."""
        raise NotImplementedError  # there are no plain losses: a subclass has its own


def build_objective(name: str, model: SwapModel, **options: Any) -> Objective:
    """The objective of the model of that name.

    Args:
        name: of the model.
        model: what it trains, anywhere.
        options: those of its builder; the defaults are the published ones.

    Raises:
        FacemillError: no such objective or option, or a value of another type; the message names what there is.
    """
    return _OBJECTIVES[name](model, **objective_options(name, options))


def objective_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as the builder of the model's objective takes them. Raises as `build_objective`."""
    return checked_options(_OBJECTIVES[name], options, whose=name, key="train.options")


def objective_names() -> list[str]:
    """The models that there are objectives for."""
    return _OBJECTIVES.names()


def objective_terms(name: str, options: Mapping[str, Any]) -> tuple[Terms, ...]:
    """The terms of what the losses of the model of that name ask. Raises FacemillError: no such objective."""
    return terms_of(_OBJECTIVES.module(name), f"the objective of model {name}", options)


Builder = Callable[..., Objective]

_OBJECTIVES: Registry[Builder] = Registry("training objective for model", __name__)
register = _OBJECTIVES.register
