"""One step of training: a batch for each turn, gradients in micro-batches, a guard, an update.

The guard does not wait for the device: losses that are not finite let the fused optimizer skip its update on the spot
(as loss scaling does), and their numbers are looked at when they have arrived, on a GPU one step later. So the device
always has work, and nothing that is not finite ever reaches a weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from facemill.device import DeviceSettings, is_out_of_memory, memory_for
from facemill.errors import FacemillError
from facemill.train.distributed import Ranks
from facemill.train.objectives import Objective, OptimizerSettings


class BatchSource(Protocol):
    """What training draws from; `facemill.train.data.Feed` is one."""

    place: Any
    """All that is needed to draw on from here, as plain values."""
    waited_s: float
    """Seconds that training has waited in `draw` so far."""

    def draw(self) -> Any:
        """The next batch: something with a length and `rows(slice)`, or a mapping of such with equal lengths."""

    def describe(self, place: Any) -> str:
        """Which rows the batch held after which `place` was that."""


class NotFiniteError(Exception):
    """A loss or gradient that is not a number; its update was skipped."""


@dataclass
class Losses:
    """The numbers of one turn, perhaps still on their way from the device."""

    step: int
    names: tuple[str, ...]
    numbers: Tensor  # the losses, then the norm of the gradient; on the CPU once `arrived` has happened
    arrived: torch.cuda.Event | None
    describe: Callable[[], str]

    def resolve(self) -> dict[str, float]:
        """The losses. Waits for them. Raises NotFiniteError with step, losses and faces."""
        if self.arrived:
            self.arrived.synchronize()
        *losses, norm = self.numbers.tolist()
        named = dict(zip(self.names, losses, strict=True))
        if all(map(math.isfinite, (*losses, norm))):
            return named
        shown = ", ".join(f"{name} = {loss:.4g}" for name, loss in named.items())
        raise NotFiniteError(
            f"step {self.step}: {shown}, gradient norm {norm:.4g}: not finite, so that update was skipped. Lower "
            f"train.learning_rate, or look at these faces: {self.describe()}"
        )


class Stepper:
    """Optimizers and micro-batches of an objective."""

    def __init__(
        self,
        objective: Objective,
        optimizer: OptimizerSettings,
        settings: DeviceSettings,
        ranks: Ranks,
        *,
        micro_batch: int | None,
        clip_norm: float | None,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        """
        Args:
            objective: on `settings.device`.
            optimizer: of every turn.
            settings: precision.
            ranks: this process among others.
            micro_batch: faces of each identity that go through the net together; None for all.
            clip_norm: longest gradient, longer ones are scaled down to it; None for any.
            seed: of what the objective draws itself, such as noise.
            say: is told when memory was short.
        """
        self.optimizers = {turn: _optimizer(objective.parameters(turn), optimizer) for turn in objective.turns}
        self._modules = {
            turn: ranks.wrap(_Turn(objective, turn), objective.parameters(turn)) for turn in objective.turns
        }
        self._objective, self._settings, self._ranks = objective, settings, ranks
        self._micro_batch, self._clip_norm, self._seed, self._say = micro_batch, clip_norm, seed, say

    def turn(self, turn: str, feed: BatchSource, rate: float, step: int) -> Losses:
        """One update of what moves in that turn. `step` counts from 1."""
        optimizer = self.optimizers[turn]
        for group in optimizer.param_groups:
            group["lr"] = rate
        with memory_for("a batch is drawn", "a smaller train.batch"):
            batch = feed.draw()
        losses = self._gradients(turn, batch, step)
        moving = [p for p in self._objective.parameters(turn) if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in moving if p.grad is not None])
        if self._clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(moving, self._clip_norm, norm)
        numbers = self._ranks.mean(torch.stack([*losses.values(), norm]).float())
        # fused optimizers skip an update by this attribute, which torch's types do not know
        optimizer.found_inf = (~numbers.sum().isfinite()).float()  # type: ignore[attr-defined]
        with memory_for("the weights are updated", "a smaller preset"):
            optimizer.step()
        return self._sent(step, tuple(losses), numbers, feed)

    def _gradients(self, turn: str, batch: Any, step: int) -> dict[str, Tensor]:
        """Gradients of the whole batch in the parameters; the losses. Smaller micro-batches where memory is short."""
        count = len(next(iter(batch.values()))) if isinstance(batch, Mapping) else len(batch)
        buffers = list(self._objective.module.buffers())
        while True:
            short = None
            before = [buffer.clone() for buffer in buffers]  # an objective may have changed some when memory runs out
            self.optimizers[turn].zero_grad(set_to_none=True)
            micro_batch = min(self._micro_batch or count, count)
            seed = _mixed(self._seed, step, list(self._modules).index(turn))
            try:
                return self._accumulated(turn, batch, count, micro_batch, seed)
            except RuntimeError as error:
                if "deterministic implementation" in str(error):
                    raise FacemillError(
                        f"train.deterministic cannot be had with this model on a GPU: {error}"
                    ) from error
                if not is_out_of_memory(error):
                    raise
                short = str(error).splitlines()[0]
            # outside the handler, which holds on to the tensors of the frames that failed
            for buffer, kept in zip(buffers, before, strict=True):
                buffer.copy_(kept)
            self._shrink(micro_batch, short)

    def _accumulated(self, turn: str, batch: Any, count: int, micro_batch: int, seed: int) -> dict[str, Tensor]:
        module, sums = self._modules[turn], dict[str, Tensor]()
        for first in range(0, count, micro_batch):
            # what an objective draws itself is a function of the step: nothing to remember, the same once more, and
            # the same in every micro-batch and process, as it would be for the whole batch
            torch.manual_seed(seed)
            piece = _rows(batch, slice(first, first + micro_batch))
            share = min(micro_batch, count - first) / count
            with self._ranks.quiet(module, first + micro_batch < count):
                with self._settings.autocast():
                    losses: dict[str, Tensor] = module(piece)
                (share * torch.stack(list(losses.values())).sum()).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + share * loss.detach()
        return sums

    def _shrink(self, micro_batch: int, short: str) -> None:
        if micro_batch == 1 or self._ranks.processes > 1:
            remedy = "a smaller train.micro_batch" if micro_batch > 1 else "a smaller preset"
            raise FacemillError(f"out of memory with a micro-batch of {micro_batch} ({short}): take {remedy}")
        self._micro_batch = micro_batch // 2
        if self._settings.device.type == "cuda":
            torch.cuda.empty_cache()
        result = "the same result" if self._objective.exact_in_parts else "a similar result (its losses compare faces)"
        self._say(
            f"out of memory with a micro-batch of {micro_batch}: goes on with {self._micro_batch}, to {result}; "
            f"train.micro_batch: {self._micro_batch} says so from the start"
        )

    def _sent(self, step: int, names: tuple[str, ...], numbers: Tensor, feed: BatchSource) -> Losses:
        describe = partial(feed.describe, feed.place)
        if numbers.device.type != "cuda":
            return Losses(step, names, numbers, None, describe)
        buffer = torch.empty(numbers.shape, pin_memory=True)
        buffer.copy_(numbers, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return Losses(step, names, buffer, arrived, describe)


class _Turn(nn.Module):
    """An objective's losses as a module, which is what averages gradients over processes."""

    def __init__(self, objective: Objective, turn: str) -> None:
        super().__init__()
        self.module = objective.module
        self._objective, self._turn = objective, turn

    def forward(self, batch: Any) -> dict[str, Tensor]:
        return self._objective.losses(self._turn, batch)


def _rows(batch: Any, rows: slice) -> Any:
    if isinstance(batch, Mapping):
        return {who: faces.rows(rows) for who, faces in batch.items()}
    return batch.rows(rows)


def _optimizer(parameters: list[nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Fused on every device: six times faster than the plain one on a CPU, and it can skip an update by itself."""
    if settings.kind == "sgd":
        momentum, decay = settings.momentum, settings.weight_decay
        return torch.optim.SGD(parameters, lr=0.0, momentum=momentum, weight_decay=decay, fused=True)
    kind = torch.optim.AdamW if settings.weight_decay else torch.optim.Adam
    return kind(parameters, lr=0.0, betas=settings.betas, weight_decay=settings.weight_decay, fused=True)


def _mixed(*numbers: int) -> int:
    """One seed from several numbers."""
    mixed = 0
    for number in numbers:
        mixed = (mixed * 6364136223846793005 + number + 1442695040888963407) % 2**63
    return mixed
