"""The loop: its order, its reasons to stop, and that a killed run ends with the same bits as one that was not."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from toy_training import CPU, ToyFeed, ToyObjective

from facemill.errors import FacemillError
from facemill.files import read_json, write_json
from facemill.train import checkpoint
from facemill.train.engine import VERSION, StopReason, fit
from facemill.train.settings import CosinePlan

PLAN = CosinePlan(steps=20, learning_rate=0.1, warmup_steps=5, save_every=5, evaluate_every=10, log_every=5)


def test_it_finds_the_known_minimum(tmp_path: Path) -> None:
    toy = ToyObjective()
    plan = CosinePlan(steps=150, learning_rate=0.3, warmup_steps=5)
    outcome = fit(toy, ToyFeed(), plan, tmp_path, CPU)
    assert outcome.reason is StopReason.STEPS
    assert toy.weights().tolist() == pytest.approx([3.0] * 6, abs=0.05)


def test_twenty_steps_equal_ten_and_resumed_ten_to_the_bit(tmp_path: Path) -> None:
    whole, cut = ToyObjective(("x", "y")), ToyObjective(("x", "y"))
    fit(whole, ToyFeed(), PLAN, tmp_path / "whole", CPU)

    def stop_at_ten(step: int) -> None:
        if step == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    first = fit(cut, ToyFeed(), PLAN, tmp_path / "cut", CPU, evaluate=stop_at_ten)
    fresh = ToyObjective(("x", "y"))
    second = fit(fresh, ToyFeed(), PLAN, tmp_path / "cut", CPU)
    assert (first.reason, second.resumed_from, second.step) == (StopReason.SIGNAL, first.step, 20)
    assert torch.equal(fresh.weights(), whole.weights())


def test_logged_losses_are_the_same_after_a_resume_between_two_log_lines(tmp_path: Path) -> None:
    def run(folder: Path, interrupted: bool) -> dict[int, dict[str, float]]:
        lines: dict[int, dict[str, float]] = {}

        def log(step: int, losses: Mapping[str, float]) -> None:
            lines[step] = dict(losses)

        if interrupted:
            toy = ToyObjective()
            with pytest.raises(KeyError):
                fit(toy, Interrupting(13), PLAN, folder, CPU, log=log)
        fit(ToyObjective(), ToyFeed(), PLAN, folder, CPU, log=log)
        return lines

    assert run(tmp_path / "a", interrupted=True) == run(tmp_path / "b", interrupted=False)


class Interrupting(ToyFeed):
    """Dies at a draw, as a process does that is killed: nothing is saved."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def draw(self):
        if self.place["drawn"] == self._at:
            raise KeyError("killed")
        return super().draw()


def test_the_order_is_evaluate_save_stop_step_log(tmp_path: Path) -> None:
    seen: list[str] = []

    class Watched(ToyObjective):
        def losses(self, turn, batch):
            seen.append("step")
            return super().losses(turn, batch)

    def evaluate(step: int) -> None:
        seen.append(f"evaluate {step}, saved {checkpoint.saved_step(tmp_path)}")

    plan = CosinePlan(steps=4, learning_rate=0.1, save_every=2, evaluate_every=2, log_every=2)
    fit(Watched(), ToyFeed(), plan, tmp_path, CPU, evaluate=evaluate, log=lambda step, _: seen.append(f"log {step}"))
    assert seen == [
        *("step", "step", "log 2", "evaluate 2, saved 0"),
        *("step", "step", "log 4", "evaluate 4, saved 2"),
    ]
    assert checkpoint.saved_step(tmp_path) == 4


def test_turns_come_in_the_stated_order_each_with_a_batch_of_its_own(tmp_path: Path) -> None:
    toy, feed = ToyObjective(("critic", "drawer")), ToyFeed()
    fit(toy, feed, CosinePlan(steps=2, learning_rate=0.1), tmp_path, CPU)
    assert toy.history == ["critic", "drawer"] * 2
    assert feed.place == {"drawn": 4}


def test_a_nan_stops_before_the_update_and_names_step_loss_and_rows(tmp_path: Path) -> None:
    toy = ToyObjective()
    before = {}

    def keep(step: int, losses: Mapping[str, float]) -> None:
        before[step] = toy.weights().clone()

    plan = CosinePlan(steps=20, learning_rate=0.1, log_every=1)
    with pytest.raises(FacemillError, match=r"step 7: square/x = nan.*anna: row 7"):
        fit(toy, ToyFeed(7), plan, tmp_path, CPU, log=keep)
    assert torch.equal(toy.weights(), before[6])


def test_a_deadline_counts_the_time_of_all_runs(tmp_path: Path) -> None:
    plan = CosinePlan(steps=10**9, learning_rate=0.1, deadline_s=0.05)
    first = fit(ToyObjective(), ToyFeed(), plan, tmp_path, CPU)
    second = fit(ToyObjective(), ToyFeed(), plan, tmp_path, CPU)
    assert first.reason is second.reason is StopReason.DEADLINE
    assert second.step == first.step == checkpoint.saved_step(tmp_path)


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    fit(ToyObjective(), ToyFeed(), PLAN, tmp_path, CPU)
    again, evaluated = ToyObjective(), []
    outcome = fit(again, ToyFeed(), PLAN, tmp_path, CPU, evaluate=evaluated.append)
    assert (outcome.resumed_from, again.history, evaluated) == (20, [], [])


def test_killed_between_write_and_rename_the_old_checkpoint_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(ToyObjective(), ToyFeed(), CosinePlan(steps=5, learning_rate=0.1, save_every=5), tmp_path, CPU)

    def die(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            fit(ToyObjective(), ToyFeed(), PLAN, tmp_path, CPU)
    assert checkpoint.saved_step(tmp_path) == 5
    assert fit(ToyObjective(), ToyFeed(), PLAN, tmp_path, CPU).resumed_from == 5


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    fit(ToyObjective(("x",)), ToyFeed(), PLAN, tmp_path, CPU)
    with pytest.raises(FacemillError, match="another model"):
        fit(ToyObjective(("z",)), ToyFeed(), PLAN, tmp_path, CPU)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    fit(ToyObjective(), ToyFeed(), PLAN, tmp_path, CPU)
    state = tmp_path / "step-00000020" / "state.json"
    write_json(state, read_json(state) | {"version": 1})
    with pytest.raises(FacemillError, match=f"are of version 1, this facemill writes version {VERSION}"):
        fit(ToyObjective(), ToyFeed(), PLAN, tmp_path, CPU)


def test_the_rate_warms_up_and_falls_along_a_cosine() -> None:
    plan = CosinePlan(steps=1000, learning_rate=1.0, warmup_steps=100, final_rate=0.1)
    assert plan.rate(0) == pytest.approx(0.01)
    assert plan.rate(500) == pytest.approx(0.55)
    assert plan.rate(1000) == pytest.approx(0.1)


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    fit(ToyObjective(), ToyFeed(), PLAN, tmp_path, CPU)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
