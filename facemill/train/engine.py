"""The training loop: evaluate → save → stop? → step → log → state, in this order, on one page.

The engine knows neither networks nor files of pictures: an objective gives losses (`facemill.train.objectives`), a feed
gives batches, callbacks look at what happens. It owns the learning rate, the averaged weights, the checkpoints, the way
back when a loss is not finite, and the reasons to stop. A run that was killed and goes on ends with the same bits as
one that was not.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

import torch

from facemill.device import DeviceSettings, compile_parts
from facemill.errors import FacemillError
from facemill.train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_weights,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from facemill.train.distributed import ALONE, Ranks
from facemill.train.ema import Ema
from facemill.train.objectives import Objective
from facemill.train.settings import TrainingPlan
from facemill.train.step import BatchSource, Losses, NotFiniteError, Stepper
from facemill.train.termination import termination

__all__ = ["BatchSource", "Outcome", "StopReason", "TrainingPlan", "TrainingState", "fit"]


VERSION = 3
"""Of checkpoints; raised when what they hold changes."""


class StopReason(StrEnum):
    STEPS = "steps"
    DEADLINE = "deadline"
    PLATEAU = "plateau"
    SIGNAL = "signal"


@dataclass
class TrainingState:
    """What has happened so far; with weights, moments and the feed's place it is all that resuming needs."""

    step: int = 0
    seconds: float = 0.0  # of training, over all runs
    evaluated: int = -1  # step of the last evaluation
    sums: dict[str, float] = field(default_factory=dict)  # losses since the last log line
    count: int = 0  # steps in `sums`
    best: float | None = None  # value of the best evaluation
    stale: int = 0  # evaluations since then
    rollbacks: int = 0  # each halved the learning rate


@dataclass(frozen=True)
class Outcome:
    """How a training run ended: why, after which step, after how many seconds."""

    reason: StopReason
    step: int
    seconds: float  # of training, over all runs
    resumed_from: int
    waited_share: float = 0.0  # of this run's seconds, spent in waiting for faces
    rollbacks: int = 0


Evaluate = Callable[[int], float | None]
Log = Callable[[int, Mapping[str, float]], None]


def fit(
    objective: Objective,
    feed: BatchSource,
    plan: TrainingPlan,
    folder: Path,
    settings: DeviceSettings,
    *,
    evaluate: Evaluate = lambda step: None,
    log: Log = lambda step, losses: None,
    rolled_back: Callable[[int], None] = lambda step: None,
    say: Callable[[str], None] = print,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Trains until the steps are done, time is over, nothing gets better or it is told to end; goes on after a kill.

    At the end (but for a signal) the module has its averaged weights, if the plan asks for an average.

    Args:
        objective: already on `settings.device`.
        feed: batches on that device.
        plan: how long and how fast.
        folder: of the checkpoints; one training run only.
        settings: precision and memory layout, see `facemill.device`.
        evaluate: called every `plan.evaluate_every` steps and at the end, after which the state is saved; with the
            averaged weights in place. It may return a value that is to fall, which is what a plateau is seen by.
        log: called every `plan.log_every` steps with the mean of each loss since the last call.
        rolled_back: called with the step that a run was sent back to.
        say: is told what a person should know: memory was short, a checkpoint is damaged, a loss was not finite.
        ranks: this process among others; only the first evaluates, logs, saves and speaks.

    Raises:
        FacemillError: a loss or gradient that is not finite again and again, a checkpoint of another model.
    """
    run = _Run(objective, feed, plan, folder, settings, ranks, say if ranks.first else lambda line: None)
    with termination() as told, settings.applied():
        state = run.load()
        resumed_from = saved = state.step
        start, begun = time.monotonic() - state.seconds, time.monotonic()
        run.save_first(state)
        while True:
            try:
                state.seconds = time.monotonic() - start
                reason = run.agreed(_stop_reason(state, plan, told), state)
                if state.evaluated != state.step and (
                    reason not in (None, StopReason.SIGNAL) or _due(state.step, plan.evaluate_every)
                ):
                    _note(state, run.evaluate(state.step, evaluate))
                    reason = run.agreed(_stop_reason(state, plan, told), state)
                if state.step != saved and (reason or _due(state.step, plan.save_every)):
                    run.save(state)
                    saved = state.step
                if reason:
                    run.finish(reason)
                    share = feed.waited_s / max(time.monotonic() - begun, 1e-9)
                    return Outcome(reason, state.step, state.seconds, resumed_from, share, state.rollbacks)
                run.step(state)
                if _due(state.step, plan.log_every):
                    if ranks.first:
                        log(state.step, {name: total / state.count for name, total in state.sums.items()})
                    state.sums, state.count = {}, 0
            except NotFiniteError as error:
                state = run.roll_back(state, error)
                saved = state.step
                if ranks.first:
                    rolled_back(state.step)


class _Run:
    """What `fit` holds together: steps, averages, files, and the agreement of several processes."""

    def __init__(
        self,
        objective: Objective,
        feed: BatchSource,
        plan: TrainingPlan,
        folder: Path,
        settings: DeviceSettings,
        ranks: Ranks,
        say: Callable[[str], None],
    ) -> None:
        self._objective, self._feed, self._plan, self._folder = objective, feed, plan, folder
        self._settings, self._ranks, self._say = settings, ranks, say
        self._stepper = Stepper(
            objective,
            objective.published.optimizer,
            settings,
            ranks,
            micro_batch=plan.micro_batch,
            clip_norm=plan.clip_norm,
            seed=plan.seed,
            say=say,
        )
        self._ema = Ema(objective.module, plan.ema_decay) if plan.ema_decay is not None else None
        self._pending: deque[list[Losses]] = deque()
        if settings.compile:
            compile_parts(objective.module)

    def step(self, state: TrainingState) -> None:
        """One update of every turn, each on a batch of its own; counts the losses that have arrived.

        Raises:
            NotFiniteError: a loss of this step, or of one shortly before it.
        """
        objective, plan = self._objective, self._plan
        objective.module.train()
        jumped = objective.begin_step(state.step, plan.steps)
        if jumped and self._ema:
            self._ema.reset()
        losses = []
        for turn in objective.turns:
            factor = objective.rate(turn, state.step, plan.steps) * objective.published.rate_factors.get(turn, 1.0)
            rate = plan.rate(state.step) * factor * 0.5**state.rollbacks
            losses.append(self._stepper.turn(turn, self._feed, rate, state.step + 1))
        if self._ema:
            self._ema.update()
        self._pending.append(losses)
        state.step += 1
        state.count += 1
        boundary = any(
            _due(state.step, every) for every in (plan.log_every, plan.save_every, plan.evaluate_every, plan.steps)
        )
        self._resolve(state, 0 if boundary else self._settings.guard_lag)

    def _resolve(self, state: TrainingState, lag: int) -> None:
        while len(self._pending) > lag:
            for losses in self._pending.popleft():
                for name, value in losses.resolve().items():
                    state.sums[name] = state.sums.get(name, 0.0) + value

    def evaluate(self, step: int, evaluate: Evaluate) -> float | None:
        """The caller's value, with the averaged weights in place."""
        with self._ema.applied() if self._ema else nullcontext():
            return self._ranks.on_first(lambda: evaluate(step))

    def agreed(self, reason: StopReason | None, state: TrainingState) -> StopReason | None:
        """The same answer in all processes: the last in the order of `StopReason` wins. Before an end, all losses of
        `state` are looked at. Raises NotFiniteError."""
        order = [None, *StopReason]
        answer: StopReason | None = order[self._ranks.largest(order.index(reason))]
        if answer:
            self._resolve(state, 0)
        return answer

    def finish(self, reason: StopReason) -> None:
        """Leaves the averaged weights in the module, unless the run is to go on."""
        if self._ema and reason is not StopReason.SIGNAL:
            self._ema.adopt()

    def roll_back(self, state: TrainingState, error: NotFiniteError) -> TrainingState:
        """The last checkpoint, to go on with half the rate. Raises FacemillError when that was tried too often."""
        if state.rollbacks >= self._plan.rollbacks:
            tried = f" (after {state.rollbacks} returns, each with half the rate)" if state.rollbacks else ""
            raise FacemillError(f"{error}{tried}") from error
        self._pending.clear()
        old = self.load()
        old.rollbacks, old.seconds = state.rollbacks + 1, state.seconds
        self._say(f"{error}. Back to step {old.step}, return {old.rollbacks} of {self._plan.rollbacks}, half the rate")
        return old

    def save_first(self, state: TrainingState) -> None:
        """A checkpoint at step 0, so that there always is one to go back to. All processes have loaded before it."""
        fresh = self._ranks.largest(int(not any(self._folder.glob("step-*"))))
        if fresh and self._plan.rollbacks:
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """The first process writes; the others wait, so that all can go back to it."""
        self._ranks.on_first(lambda: self._write(state))

    def _write(self, state: TrainingState) -> None:
        tensors = {f"weights/{name}": tensor for name, tensor in self._objective.module.state_dict().items()}
        for turn, optimizer in self._stepper.optimizers.items():
            tensors |= optimizer_tensors(optimizer, f"optimizer/{turn}")
        if self._ema:
            tensors |= self._ema.tensors("ema")
        values = {"version": VERSION, "state": asdict(state), "place": self._feed.place}
        save_checkpoint(self._folder, state.step, Checkpoint(tensors, values), self._plan.keep_checkpoints)

    def load(self) -> TrainingState:
        """Puts everything back as it was; a fresh state where there is no checkpoint."""
        # by way of the host: a GPU that training fills has no room for everything twice
        checkpoint = load_checkpoint(self._folder, torch.device("cpu"), self._say)
        if checkpoint is None:
            return TrainingState()
        if (found := checkpoint.values.get("version")) != VERSION:
            raise FacemillError(
                f"the checkpoints in {self._folder} are of version {found}, this facemill writes version {VERSION}: "
                "delete the folder to start afresh, or go on with the facemill that wrote them"
            )
        load_weights(self._objective.module, checkpoint.tensors, "weights", self._folder)
        for turn, optimizer in self._stepper.optimizers.items():
            optimizer.state.clear()
            restore_optimizer(optimizer, f"optimizer/{turn}", checkpoint.tensors)
        if self._ema:
            self._ema.restore("ema", checkpoint.tensors)
        try:
            self._feed.place = checkpoint.values["place"]
            return TrainingState(**checkpoint.values["state"])
        except (KeyError, TypeError) as error:
            raise FacemillError(
                f"the newest checkpoint in {self._folder} does not say where it stands: delete it"
            ) from error


def _stop_reason(state: TrainingState, plan: TrainingPlan, told: list[int]) -> StopReason | None:
    if state.step >= plan.steps:
        return StopReason.STEPS
    if told:
        return StopReason.SIGNAL
    if plan.deadline_s is not None and state.seconds >= plan.deadline_s:
        return StopReason.DEADLINE
    if plan.plateau is not None and state.stale >= plan.plateau:
        return StopReason.PLATEAU
    return None


def _note(state: TrainingState, value: float | None) -> None:
    """Remembers an evaluation: a value that is not finite is no better than any."""
    state.evaluated = state.step
    if value is None:
        return
    if math.isfinite(value) and (state.best is None or value < state.best):
        state.best, state.stale = value, 0
    else:
        state.stale += 1


def _due(step: int, every: int) -> bool:
    return step > 0 and step % every == 0
