"""The training loop: evaluate → save → stop? → step → log → state, in this order, on one page.

The engine knows neither networks nor files of pictures: an objective gives losses (`facemill.train.objectives`), a feed
gives batches, two callbacks look at what happens. It owns the optimizers, the learning rate, the guard against NaN, the
checkpoints and the reasons to stop. A run that was killed and goes on ends with the same bits as one that was not.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from facemill.train.device import DeviceSettings
from facemill.train.objectives import Objective


class NotFiniteError(FacemillError):
    """A loss or gradient is NaN or infinite; nothing was updated."""


class StopReason(StrEnum):
    STEPS = "steps"
    DEADLINE = "deadline"
    SIGNAL = "signal"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast; two runs with equal plans, feeds and seeds give equal weights."""

    steps: int
    learning_rate: float
    deadline_s: float | None = None  # of training, over all runs that made it
    betas: tuple[float, float] = (0.9, 0.999)  # of Adam; S13 has 0.5 for its rate of 5e-5
    warmup_steps: int = 50
    final_rate: float = 0.02  # of the learning rate, where the cosine ends
    save_every: int = 250
    evaluate_every: int = 250
    log_every: int = 25
    clip_norm: float | None = None  # longest gradient; longer ones are scaled down to it
    recoveries: int = 0  # how often a loss that is not finite leads back to the last checkpoint, at half the rate

    def optimizer(self, parameters: Sequence[nn.Parameter], fused: bool) -> torch.optim.Optimizer:
        """A fresh optimizer of one turn's parameters."""
        return torch.optim.Adam(parameters, lr=self.learning_rate, betas=self.betas, fused=fused)

    def rate(self, step: int) -> float:
        """Learning rate of the step after `step` finished ones: linear warm-up, then half a cosine."""
        warm = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * cosine)


@dataclass
class State:
    """What has happened so far; with weights, moments and the feed's place it is all that resuming needs."""

    step: int = 0
    seconds: float = 0.0  # of training, over all runs
    evaluated: int = -1  # step of the last evaluation
    sums: dict[str, float] = field(default_factory=dict)  # losses since the last log line
    count: int = 0  # steps in `sums`
    recoveries: int = 0  # how often the run went back; each halves the rate for good


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    reason: StopReason
    step: int
    seconds: float  # of training, over all runs
    resumed_from: int


class BatchSource(Protocol):
    """What `fit` draws from; `facemill.train.data.Feed` is one."""

    generator: torch.Generator
    place: Any

    def draw(self) -> Any:
        """The next batch, as the objective takes it."""

    def describe(self) -> str:
        """Which rows the last batch held."""


Evaluate = Callable[[int], None]
Log = Callable[[int, Mapping[str, float]], None]


def fit(
    objective: Objective,
    feed: BatchSource,
    plan: Plan,
    folder: Path,
    settings: DeviceSettings,
    *,
    evaluate: Evaluate = lambda step: None,
    log: Log = lambda step, losses: None,
) -> Outcome:
    """Trains until the steps are done, the deadline is over or the process is told to end; goes on after a kill.

    Args:
        objective: already on `settings.device`.
        feed: batches on that device.
        plan: how long and how fast.
        folder: of the checkpoints; one training run only.
        settings: precision and memory layout, see `facemill.train.device`.
        evaluate: called every `plan.evaluate_every` steps and at the end, after which the state is saved.
        log: called every `plan.log_every` steps with the mean of each loss since the last call.

    Raises:
        FacemillError: a loss or gradient that is not finite (nothing was updated) once `plan.recoveries` are used up, a
            checkpoint of another model.
    """
    optimizers = {
        turn: plan.optimizer(objective.parameters(turn), settings.fused_optimizer) for turn in objective.turns
    }
    state = _load(folder, objective, optimizers, feed, settings)
    resumed_from = state.step
    saved, start = resumed_from, time.monotonic() - state.seconds
    if plan.recoveries and not resumed_from:
        _save(folder, objective, optimizers, feed, state)  # where to go back to before the first regular one
    with _termination() as told:
        while True:
            state.seconds = time.monotonic() - start
            reason = _stop_reason(state, plan, told)
            if state.evaluated != state.step and (
                reason not in (None, StopReason.SIGNAL) or _due(state.step, plan.evaluate_every)
            ):
                evaluate(state.step)
                state.evaluated = state.step
            if state.step != saved and (reason or _due(state.step, plan.save_every)):
                _save(folder, objective, optimizers, feed, state)
                saved = state.step
            if reason:
                return Outcome(reason, state.step, state.seconds, resumed_from)
            rate = plan.rate(state.step) * 0.5**state.recoveries
            try:
                losses = _train_step(objective, optimizers, feed, rate, plan.clip_norm, settings, state.step + 1)
            except NotFiniteError as error:
                if state.recoveries >= plan.recoveries:
                    raise
                used = state.recoveries + 1
                state = _load(folder, objective, optimizers, feed, settings)
                state.recoveries, saved = used, state.step
                print(f"{error}; going on from step {state.step} at {0.5**used:g} of the rate", flush=True)
                _save(folder, objective, optimizers, feed, state)
                continue
            state.step += 1
            state.count += 1
            state.sums = {name: state.sums.get(name, 0.0) + value for name, value in losses.items()}
            if _due(state.step, plan.log_every):
                log(state.step, {name: total / state.count for name, total in state.sums.items()})
                state.sums, state.count = {}, 0


def _train_step(
    objective: Objective,
    optimizers: Mapping[str, torch.optim.Optimizer],
    feed: BatchSource,
    rate: float,
    clip_norm: float | None,
    settings: DeviceSettings,
    step: int,
) -> dict[str, float]:
    """One update of every turn, each on a batch of its own; the losses as numbers."""
    objective.module.train()
    numbers: dict[str, float] = {}
    for turn, optimizer in optimizers.items():
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = feed.draw()
        with settings.autocast():
            losses = objective.losses(turn, batch)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        _guard(losses, optimizer, clip_norm, step, feed)
        optimizer.step()
        numbers |= {name: float(loss.detach()) for name, loss in losses.items()}
    return numbers


def _guard(
    losses: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    clip_norm: float | None,
    step: int,
    feed: BatchSource,
) -> None:
    """Stops before the update when a loss or gradient is not finite, else clips. One wait for the device in a step."""
    moving = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in moving if p.grad is not None])
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(moving, clip_norm, norm)
    if math.isfinite(float(norm.detach() + torch.stack(list(losses.values())).detach().sum())):
        return
    shown = ", ".join(f"{name} = {float(loss.detach()):.4g}" for name, loss in losses.items())
    raise NotFiniteError(
        f"step {step}: {shown}, gradient norm {float(norm):.4g}: not finite, so nothing was updated. Lower the "
        f"learning rate, or look at what the step saw: {feed.describe()}"
    )


def _save(
    folder: Path,
    objective: Objective,
    optimizers: Mapping[str, torch.optim.Optimizer],
    feed: BatchSource,
    state: State,
) -> None:
    tensors = {f"weights/{name}": tensor for name, tensor in objective.module.state_dict().items()}
    for turn, optimizer in optimizers.items():
        tensors |= optimizer_tensors(optimizer, f"optimizer/{turn}")
    tensors |= {"random/feed": feed.generator.get_state(), "random/cpu": torch.get_rng_state()}
    save_checkpoint(folder, state.step, Checkpoint(tensors, {"state": asdict(state), "place": feed.place}))


def _load(
    folder: Path,
    objective: Objective,
    optimizers: Mapping[str, torch.optim.Optimizer],
    feed: BatchSource,
    settings: DeviceSettings,
) -> State:
    """Puts everything back as it was; a fresh state where there is no checkpoint."""
    checkpoint = load_checkpoint(folder, settings.device)
    if checkpoint is None:
        return State()
    load_weights(objective.module, checkpoint.tensors, "weights", folder)
    for turn, optimizer in optimizers.items():
        optimizer.state.clear()
        restore_optimizer(optimizer, f"optimizer/{turn}", checkpoint.tensors)
    feed.generator.set_state(checkpoint.tensors["random/feed"].cpu())
    torch.set_rng_state(checkpoint.tensors["random/cpu"].cpu())
    feed.place = checkpoint.values["place"]
    return State(**checkpoint.values["state"])


def _stop_reason(state: State, plan: Plan, told: list[int]) -> StopReason | None:
    if state.step >= plan.steps:
        return StopReason.STEPS
    if told:
        return StopReason.SIGNAL
    if plan.deadline_s is not None and state.seconds >= plan.deadline_s:
        return StopReason.DEADLINE
    return None


def _due(step: int, every: int) -> bool:
    return step > 0 and step % every == 0


@contextmanager
def _termination() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them, so that the step is finished and saved.

    A second signal is not held back any more. Outside the main thread, where handlers cannot be set, nothing is caught.
    """
    told: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        told.append(number)
        for each, handler in previous.items():
            signal.signal(each, handler)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    except ValueError:
        previous.clear()
    try:
        yield told
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
