"""CycleGAN's objective: its losses, the pool of drawn pictures, and that it learns and can be resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_training import CPU, plain_batch, plain_set

from facemill.errors import FacemillError
from facemill.nets.cyclegan import CycleGan, CycleGanConfig
from facemill.train.augment import Batch
from facemill.train.data import FaceSet, Feed
from facemill.train.engine import fit
from facemill.train.evaluate import validation_losses
from facemill.train.objectives import build_objective
from facemill.train.objectives.cyclegan import CycleGanObjective, PicturePool
from facemill.train.settings import Augmentation, CosinePlan

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = CycleGanConfig(input_px=32, width=8, blocks=1, critic_width=8)
STILL = Augmentation(colour_match=0, brightness=0)


@pytest.fixture
def model() -> CycleGan:
    torch.manual_seed(0)
    return CycleGan(["anna", "bert"], TINY)


@pytest.fixture
def sets() -> dict[str, FaceSet]:
    """Six faces each: a red or a green square on grey, at a place of its own."""
    found = {}
    for who, colour in (("anna", (200.0, 40.0, 40.0)), ("bert", (40.0, 200.0, 40.0))):
        faces = torch.full((6, 3, 40, 40), 90.0)
        for at in range(6):
            faces[at, :, 8 + at : 24 + at, 10:30] = torch.tensor(colour)[:, None, None]
        found[who] = plain_set(who, faces.byte())
    return found


def batch(pictures: Tensor) -> dict[str, Batch]:
    return {who: plain_batch(pictures, pictures) for who in ("anna", "bert")}


def test_losses_are_named_by_identity_and_only_the_turn_s_weights_get_gradients(model: CycleGan) -> None:
    objective, faces = CycleGanObjective(model), batch(torch.rand(2, 3, 32, 32))
    names = {turn: list(objective.losses(turn, faces)) for turn in objective.turns}
    parts = ("adversarial", "cycle", "identity")
    assert names == {
        "generator": [f"{part}/{who}" for who in ("anna", "bert") for part in parts],
        "discriminator": ["discriminator/anna", "discriminator/bert"],
    }
    for turn, other in (("discriminator", "generator"), ("generator", "discriminator")):
        objective.module.zero_grad()
        torch.stack(list(objective.losses(turn, faces).values())).sum().backward()
        assert all(p.grad is not None for p in objective.parameters(turn))
        assert all(p.grad is None for p in objective.parameters(other))


def test_cycle_and_identity_losses_have_weights_10_and_5(model: CycleGan) -> None:
    """Generators whose last layer is 0 draw mid-grey: 0.5 away from white's 1 in −1…1, twice that from 0…1."""
    for generator in model.generators.values():
        torch.nn.init.zeros_(generator[-1].weight)
    losses = CycleGanObjective(model).losses("generator", batch(torch.full((2, 3, 32, 32), 0.75)))
    assert losses["cycle/anna"].item() == pytest.approx(10 * 0.5)
    assert losses["identity/bert"].item() == pytest.approx(5 * 0.5)


def test_the_pool_fills_then_shows_old_pictures_half_of_the_time() -> None:
    torch.manual_seed(0)
    pool = PicturePool(4, 2)
    first = torch.linspace(-1, 1, 4)[:, None, None, None].expand(4, 3, 2, 2)
    assert torch.equal(pool.exchange(first), first)
    shown = torch.cat([pool.exchange(torch.full((10, 3, 2, 2), 0.3)) for _ in range(20)])
    old = (shown[:, 0, 0, 0] - 0.3).abs() > 1e-4
    assert 1 <= old.sum() <= 4  # each of the first four is shown once more at most, then it is gone
    assert pool.filled == 4
    assert torch.allclose(pool.pictures / 32767, torch.tensor(0.3), atol=1e-4)


def test_pictures_that_find_no_room_any_more_push_nobody_out() -> None:
    pool, pictures = PicturePool(5, 2), torch.linspace(-1, 1, 6)[:, None, None, None].expand(6, 3, 2, 2)
    assert torch.equal(torch.cat([pool.exchange(piece) for piece in pictures.split(3)]), pictures)
    assert torch.allclose(pool.pictures / 32767, pictures[:5], atol=1e-4)
    assert pool.filled == 5


def test_a_full_pool_takes_in_and_shows_as_many() -> None:
    torch.manual_seed(0)
    pool, pictures = PicturePool(8, 1), torch.rand(200, 3, 1, 1)
    shown = torch.cat([pool.exchange(piece) for piece in pictures.split(4)])
    given, got = (
        (p[:, 0, 0, 0] * 32767).round().tolist() for p in (pictures, torch.cat([shown, pool.pictures / 32767]))
    )
    # the first eight are shown when they come, and once more when they leave
    assert sorted(got) == sorted(given + given[:8])
    exchanged = (shown[8:] - pictures[8:]).abs().amax(dim=(1, 2, 3)) > 1e-4
    assert 0.4 < exchanged.float().mean() < 0.6


def test_a_pool_is_part_of_the_state_and_of_no_average() -> None:
    state = PicturePool(50, 8).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {"pictures": (50, 3, 8, 8), "filled": ()}
    assert not any(tensor.is_floating_point() for tensor in state.values())


def test_without_a_pool_the_newest_pictures_are_shown() -> None:
    drawn = torch.rand(3, 3, 4, 4)
    assert torch.equal(PicturePool(0, 4).exchange(drawn), drawn)


def test_the_rate_is_constant_and_then_falls_in_a_line(model: CycleGan) -> None:
    objective = CycleGanObjective(model)
    assert [objective.rate("generator", step, 100) for step in (0, 50, 75, 100)] == [1.0, 1.0, 0.5, 0.0]
    published = CycleGanObjective.published
    assert (published.learning_rate, published.optimizer.betas) == (2e-4, (0.5, 0.999))
    assert objective.published == replace(published, learning_rate=5e-4, ema_decay=0.998)  # a narrow net


def test_a_cyclegan_learns_to_redraw(model: CycleGan, sets: dict[str, FaceSet], tmp_path: Path) -> None:
    """anna is red and bert is green: a red square redrawn as bert is greener than red, and comes back red."""
    before = validation_losses(model, sets)
    plan = CosinePlan(steps=70, learning_rate=5e-3, warmup_steps=1, final_rate=1.0)
    fit(build_objective("cyclegan", model), Feed(sets, 32, 3, STILL, seed=0), plan, tmp_path, CPU)
    after = validation_losses(model, sets)
    assert all(after[name] < 0.5 * before[name] for name in ("mae/anna", "mae/bert"))
    anna = sets["anna"].view(32)
    drawn = model(anna, "bert")
    back = model(drawn, "anna")
    assert drawn[:, 1, 14:17, 14:17].mean() > drawn[:, 0, 14:17, 14:17].mean()
    assert (back - anna).abs().mean() < 0.1


def test_a_resumed_training_ends_with_the_same_bits_pool_included(sets: dict[str, FaceSet], tmp_path: Path) -> None:
    plan = CosinePlan(steps=8, learning_rate=1e-3, warmup_steps=1, save_every=3)

    def train(folder: Path, stop_after: int | None = None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        objective = CycleGanObjective(CycleGan(["anna", "bert"], TINY), pool=5)
        feed = Stopping(sets, stop_after) if stop_after else Feed(sets, 32, 2, STILL, seed=0)
        fit(objective, feed, plan, folder, CPU, say=lambda line: None)
        return objective.module.state_dict()

    with pytest.raises(KeyError):
        train(tmp_path / "cut", 13)
    whole, resumed = train(tmp_path / "whole"), train(tmp_path / "cut")
    assert whole["pools.0.filled"] == 5
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


class Stopping(Feed):
    """Dies at a draw, as a process does that is killed: nothing is saved."""

    def __init__(self, sets: dict[str, FaceSet], draws: int) -> None:
        super().__init__(sets, 32, 2, STILL, seed=0)
        self._left = draws

    def draw(self) -> Any:
        self._left -= 1
        if self._left < 0:
            raise KeyError("killed")
        return super().draw()


def test_gradients_are_finite_on_black_pictures(model: CycleGan) -> None:
    objective = CycleGanObjective(model)
    for turn in objective.turns:
        objective.module.zero_grad()
        torch.stack(list(objective.losses(turn, batch(torch.zeros(2, 3, 32, 32))).values())).sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters(turn))


def test_a_pool_of_less_than_nothing_is_refused(model: CycleGan) -> None:
    with pytest.raises(FacemillError, match=r"train.options.pool must be 0 or more"):
        build_objective("cyclegan", model, pool=-1)
