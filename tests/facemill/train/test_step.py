"""One step: micro-batches, short memory, averaged weights, the way back from a NaN. All end where they should."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from toy_training import CPU, ToyFeed, ToyObjective, plain_set

from facemill.device import DeviceSettings
from facemill.errors import FacemillError
from facemill.nets.autoencoder import Autoencoder, AutoencoderConfig
from facemill.train.augment import Batch
from facemill.train.checkpoint import saved_step
from facemill.train.data import Feed
from facemill.train.ema import Ema
from facemill.train.engine import StopReason, fit
from facemill.train.objectives.autoencoder import AutoencoderObjective
from facemill.train.settings import Augmentation, CosinePlan

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = AutoencoderConfig(
    input_px=16, encoder_channels=(8, 16), bottleneck=16, unfold_channels=8, code_channels=8, decoder_channels=(8,)
)
PLAN = CosinePlan(steps=4, learning_rate=1e-2, warmup_steps=1, save_every=3)


class Greedy(AutoencoderObjective):
    """Wants more memory than there is for more than two faces of each identity."""

    def losses(self, turn: str, batch: Mapping[str, Batch]) -> dict[str, Tensor]:
        if len(batch["anna"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")
        return super().losses(turn, batch)


def train(
    folder: Path,
    plan: CosinePlan = PLAN,
    kind: type[AutoencoderObjective] = AutoencoderObjective,
    settings: DeviceSettings = CPU,
    **options,
) -> Tensor:
    """The weights of a tiny autoencoder after a plan; everything else is equal each time."""
    torch.manual_seed(1)
    model = Autoencoder(["anna", "bert"], TINY)
    pictures = torch.randint(0, 256, (2, 7, 3, 24, 24), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    sets = {who: plain_set(who, faces) for who, faces in zip(model.identities, pictures, strict=True)}
    fit(kind(model), Feed(sets, 16, 6, Augmentation(), seed=3), plan, folder, settings, **options)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_end_where_the_whole_batch_ends(tmp_path: Path, micro_batch: int) -> None:
    whole = train(tmp_path / "whole")
    pieces = train(tmp_path / "pieces", replace(PLAN, micro_batch=micro_batch))
    assert (whole - pieces).abs().max() < 2e-3  # Adam turns the last bits of tiny gradients into whole steps of 1e-2
    assert (whole - pieces).abs().mean() < 2e-5


def test_short_memory_takes_smaller_micro_batches_to_the_same_bits_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    greedy = train(tmp_path / "greedy", kind=Greedy, say=said.append)
    # 6 → 3 → 1: the same as if it had been told so
    assert torch.equal(greedy, train(tmp_path / "told", replace(PLAN, micro_batch=1)))
    assert len(said) == 2
    assert said[0].startswith("out of memory with a micro-batch of 6: goes on with 3")


def test_what_changed_before_memory_ran_out_is_put_back(tmp_path: Path) -> None:
    class Remembering(Greedy):
        """Counts the faces that it saw in a buffer, before it asks for memory."""

        exact_in_parts = False

        def __init__(self, model: Autoencoder) -> None:
            super().__init__(model)
            self.module.register_buffer("seen", torch.zeros((), dtype=torch.int64))
            seen.append(self.module.get_buffer("seen"))

        def losses(self, turn: str, batch: Mapping[str, Batch]) -> dict[str, Tensor]:
            self.module.get_buffer("seen").add_(len(batch["anna"]))
            return super().losses(turn, batch)

    seen, said = list[Tensor](), list[str]()
    train(tmp_path, replace(PLAN, steps=2), kind=Remembering, say=said.append)
    assert seen[0].item() == 2 * 6
    assert "to a similar result (its losses compare faces)" in said[0]


def test_memory_that_is_short_for_one_face_is_an_error(tmp_path: Path) -> None:
    class Insatiable(AutoencoderObjective):
        def losses(self, turn: str, batch: Mapping[str, Batch]) -> dict[str, Tensor]:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(FacemillError, match=r"out of memory with a micro-batch of 1 .*smaller preset"):
        train(tmp_path, kind=Insatiable, say=lambda line: None)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ((ToyFeed, "draw"), r"while a batch is drawn \(CUDA .* MiB\.\): take a smaller train.batch"),
        ((torch.optim.Adam, "step"), r"while the weights are updated \(CUDA .* MiB\.\): take a smaller preset"),
    ],
)
def test_memory_that_is_short_outside_of_the_net_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str], says: str
) -> None:
    def short(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")

    monkeypatch.setattr(*where, short)
    with pytest.raises(FacemillError, match=says):
        fit(ToyObjective(), ToyFeed(), PLAN, tmp_path, CPU)


def test_deterministic_runs_end_with_the_same_bits_and_leave_torch_as_it_was(tmp_path: Path) -> None:
    settings = replace(CPU, deterministic=True)
    first, second = (train(tmp_path / name, PLAN, settings=settings) for name in "ab")
    assert torch.equal(first, second)
    with settings.applied():
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_averages_follow_the_weights_and_are_exchanged_for_them() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    ema = Ema(module, 0.5)
    torch.nn.init.ones_(module.weight)
    ema.update()  # keeps 1/10 of 0 at first
    with ema.applied():
        assert module.weight.item() == pytest.approx(0.9)
    assert module.weight.item() == 1
    ema.adopt()
    assert module.weight.item() == pytest.approx(0.9)


def test_averaged_weights_are_evaluated_saved_and_left_in_the_module(tmp_path: Path) -> None:
    toy, seen = ToyObjective(), list[Tensor]()
    plan = CosinePlan(steps=20, learning_rate=0.1, ema_decay=0.9, evaluate_every=10)
    fit(toy, ToyFeed(), plan, tmp_path, CPU, evaluate=lambda step: seen.append(toy.weights().clone()))
    raw = ToyObjective()
    fit(raw, ToyFeed(), replace(plan, ema_decay=None), tmp_path / "raw", CPU)
    assert torch.equal(seen[-1], toy.weights())
    assert 0 < toy.weights()[0] < raw.weights()[0]


def test_averages_go_on_to_the_same_bits_after_a_kill(tmp_path: Path) -> None:
    plan = CosinePlan(steps=20, learning_rate=0.1, ema_decay=0.9, save_every=5)
    whole, fresh = ToyObjective(), ToyObjective()
    fit(whole, ToyFeed(), plan, tmp_path / "whole", CPU)
    with pytest.raises(RuntimeError, match="killed"):
        fit(ToyObjective(), DyingFeed(13), plan, tmp_path / "cut", CPU)
    assert fit(fresh, ToyFeed(), plan, tmp_path / "cut", CPU).resumed_from == 10
    assert torch.equal(whole.weights(), fresh.weights())


class DyingFeed(ToyFeed):
    """Dies at a draw, as a process does that is killed: nothing is saved."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def draw(self) -> dict[str, Batch]:
        if self.place["drawn"] == self._at:
            raise RuntimeError("killed")
        return super().draw()


def test_an_objective_that_moves_weights_itself_starts_the_averages_afresh(tmp_path: Path) -> None:
    class Jumping(ToyObjective):
        def begin_step(self, step: int, total: int) -> bool:
            if step == total - 1:
                torch.nn.init.constant_(self.module["x"], 50.0)
            return step == total - 1

    toy = Jumping()
    fit(toy, ToyFeed(), CosinePlan(steps=5, learning_rate=0.1, ema_decay=0.99), tmp_path, CPU)
    assert toy.weights()[0].item() == pytest.approx(50, abs=0.2)


class OnceFeed(ToyFeed):
    """Holds a NaN the first time that it comes to a draw, and none the second time."""

    def draw(self) -> dict[str, Batch]:
        batch = super().draw()
        self._poisoned.discard(self.place["drawn"])
        return batch


def test_a_nan_sends_the_run_back_to_the_last_checkpoint_with_half_the_rate(tmp_path: Path) -> None:
    said, back = list[str](), list[int]()
    plan = CosinePlan(steps=20, learning_rate=0.1, save_every=5)
    toy = ToyObjective()
    outcome = fit(toy, OnceFeed(8, 17), plan, tmp_path, CPU, say=said.append, rolled_back=back.append)
    assert (outcome.reason, outcome.rollbacks, back) == (StopReason.STEPS, 2, [5, 15])
    assert "step 8: square/x = nan" in said[0]
    assert "Back to step 5, return 1 of 3, half the rate" in said[0]
    assert toy.weights().isfinite().all()


def test_a_nan_before_the_first_save_sends_the_run_back_to_its_start(tmp_path: Path) -> None:
    back: list[int] = []
    plan = CosinePlan(steps=10, learning_rate=0.1)
    fit(ToyObjective(), OnceFeed(3), plan, tmp_path, CPU, say=lambda line: None, rolled_back=back.append)
    assert back == [0]
    assert saved_step(tmp_path) == 10


def test_a_nan_that_comes_again_and_again_ends_the_run_and_names_the_faces(tmp_path: Path) -> None:
    said: list[str] = []
    plan = CosinePlan(steps=10, learning_rate=0.1, save_every=5, rollbacks=2)
    with pytest.raises(FacemillError, match=r"step 7: .*anna: row 7 \(after 2 returns, each with half the rate\)"):
        fit(ToyObjective(), ToyFeed(7), plan, tmp_path, CPU, say=said.append)
    assert len(said) == 2


def test_a_guard_that_looks_one_step_late_finds_the_same_step_and_lets_nothing_into_the_weights(tmp_path: Path) -> None:
    late = replace(CPU, guard_lag=1)
    toy = ToyObjective()
    with pytest.raises(FacemillError, match=r"step 7: square/x = nan.*anna: row 7$"):
        fit(toy, ToyFeed(7), CosinePlan(steps=20, learning_rate=0.1, rollbacks=0), tmp_path, late)
    assert toy.weights().isfinite().all()
    on_time, lagging = ToyObjective(), ToyObjective()
    for each, settings, name in ((on_time, CPU, "a"), (lagging, late, "b")):
        fit(each, ToyFeed(), CosinePlan(steps=9, learning_rate=0.1, save_every=4), tmp_path / name, settings)
    assert torch.equal(on_time.weights(), lagging.weights())


def test_a_plateau_stops_after_so_many_evaluations_without_a_better_value(tmp_path: Path) -> None:
    values = {2: 0.5, 4: 0.4, 6: 0.45, 8: float("nan"), 10: 0.4}
    plan = CosinePlan(steps=100, learning_rate=0.1, evaluate_every=2, plateau=3)
    outcome = fit(ToyObjective(), ToyFeed(), plan, tmp_path, CPU, evaluate=values.__getitem__)
    assert (outcome.reason, outcome.step, saved_step(tmp_path)) == (StopReason.PLATEAU, 10, 10)
