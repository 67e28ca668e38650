"""CycleGAN's objective: look like the other one, and come back as yourself (Zhu et al. 2017, sections 3 and 4).

With G_A, which redraws anybody as A, and D_A, which tells A's pictures from drawn ones, for each of two identities:

    adversarial   mean (D_A(G_A(b)) − 1)²                 cycle      10 · L1(G_A(G_B(a)), a)
    identity      5 · L1(G_A(a), a)                       discriminator   ½ · mean (D_A(a) − 1)² + ½ · mean D_A(pool)²

The discriminators see drawn pictures from a pool of the last 50 of each person, and half of the time the newest;
several processes share one pool. The rate is constant for half of the training and then falls to nothing. Pictures are
the unbent ones: there is no pair to learn from here.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.nets import SwapModel
from facemill.nets.cyclegan import CycleGan, patch_discriminator
from facemill.terms import Terms
from facemill.train.adversarial import frozen, least_squares
from facemill.train.distributed import all_rows
from facemill.train.objectives import Batches, ObjectiveBase, OptimizerSettings, Published, register

DRAW, JUDGE = "generator", "discriminator"
CYCLE = 10.0
IDENTITY = 0.5 * CYCLE
POOL = 50  # pictures of each identity
NARROW = 2_000_000
"""Nets of fewer parameters, such as the preset `small`, learn at a higher rate than the published one, and average:
grain that comes and goes with every step is not in the average."""


class CycleGanObjective(ObjectiveBase):
    """Trains a `CycleGan`. `module` holds the model, both discriminators and both pools."""

    turns = (DRAW, JUDGE)
    published = Published(
        learning_rate=2e-4,
        optimizer=OptimizerSettings(betas=(0.5, 0.999)),
        warmup_steps=1,
        final_rate=1.0,
        judged_by="identity_distance",
    )
    exact_in_parts = False  # what the pools show depends on who came before

    def __init__(self, model: CycleGan, *, pool: int = POOL) -> None:
        self.model = model
        first, second = model.identities
        self._others = {first: second, second: first}
        self._critics = nn.ModuleList(patch_discriminator(model.config) for _ in model.identities)
        self._pools = [PicturePool(pool, model.input_px) for _ in model.identities]
        parts = {"model": model, "discriminators": self._critics, "pools": nn.ModuleList(self._pools)}
        super().__init__(nn.ModuleDict(parts).to(next(model.parameters()).device))
        if sum(parameter.numel() for parameter in model.parameters()) < NARROW:
            self.published = replace(self.published, learning_rate=5e-4, ema_decay=0.998)

    def parameters(self, turn: str) -> list[nn.Parameter]:
        """Both discriminators, or both generators."""
        return list((self._critics if turn == JUDGE else self.model).parameters())

    def rate(self, turn: str, step: int, total: int) -> float:
        """1 for the first half of the training, then down to 0 in a straight line."""
        return min(1.0, 2 * (1 - step / max(total, 1)))

    def losses(self, turn: str, batch: Batches) -> dict[str, Tensor]:
        """The losses of the module's table, as `NAME/IDENTITY`."""
        faces = {identity: batch[identity].target * 2 - 1 for identity in self.model.identities}
        if turn == JUDGE:
            return self._judge(faces)
        with frozen(self._critics):
            return self._draw(faces)

    def _draw(self, faces: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = {}
        drawn = {name: self.model.redraw(faces[other], name) for name, other in self._others.items()}
        for critic, (name, other) in zip(self._critics, self._others.items(), strict=True):
            losses[f"adversarial/{name}"] = least_squares(critic(drawn[name]), 1.0)
            losses[f"cycle/{name}"] = CYCLE * _l1(self.model.redraw(drawn[other], name), faces[name])
            losses[f"identity/{name}"] = IDENTITY * _l1(self.model.redraw(faces[name], name), faces[name])
        return losses

    def _judge(self, faces: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = {}
        for critic, pool, (name, other) in zip(self._critics, self._pools, self._others.items(), strict=True):
            with torch.no_grad():
                everybody, mine = all_rows(self.model.redraw(faces[other], name))
                shown = pool.exchange(everybody)[mine]
            real, drawn = least_squares(critic(faces[name]), 1.0), least_squares(critic(shown), 0.0)
            losses[f"discriminator/{name}"] = (real + drawn) / 2
        return losses


class PicturePool(nn.Module):
    """The last pictures that were drawn, as buffers: a checkpoint holds them (Shrivastava et al. 2017, section 2.3).

    Every picture that comes goes in while there is room; later, by the toss of a coin, it is either shown itself or
    takes the place of a random one, which is shown instead. Pictures that come together take different places, so
    that nothing here has to wait for the device. Coins come from torch's global generator on the CPU.
    Pictures are kept as 16-bit integers: half the memory, no weights to be averaged, and steps of 1/32767, which no
    discriminator can see.
    """

    pictures: Tensor  # (size, 3, P, P) int16, 32767 is 1
    filled: Tensor  # how many there are, a scalar
    SCALE = 32767

    def __init__(self, size: int, side_px: int) -> None:
        super().__init__()
        self.register_buffer("pictures", torch.zeros(size, 3, side_px, side_px, dtype=torch.int16))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, drawn: Tensor) -> Tensor:
        """(N, 3, P, P) newly drawn, in −1…1 → as many to be shown to a discriminator. Not `forward`: no weights."""
        size = len(self.pictures)
        taking, beyond = drawn[:size].float(), drawn[size:].float()  # more than the pool holds are shown themselves
        count = len(taking)
        if not count:
            return beyond
        coins, places = (t.to(drawn.device) for t in (torch.rand(count) < 0.5, torch.randperm(size)[:count]))
        full, following = self.filled >= size, self.filled + torch.arange(count, device=drawn.device)
        slots = torch.where(full, places, following % size)
        old = self.pictures[slots]
        shown = torch.where(_each(full & coins), old / self.SCALE, taking)
        enters = _each(torch.where(full, coins, following < size))
        self.pictures[slots] = torch.where(enters, (taking * self.SCALE).round().to(old.dtype), old)
        self.filled.add_(count).clamp_(max=size)
        return torch.cat([shown, beyond])


TERMS: tuple[Terms, ...] = ()
"""Its losses compare pixels and ask no network that somebody else has trained."""


@register("cyclegan")
def build(model: SwapModel, *, pool: int = POOL) -> CycleGanObjective:
    """The objective of a model that `facemill.nets.cyclegan` built.

    Args:
        model: the two generators.
        pool: how many drawn pictures of each identity are kept for the discriminators; 0 for none.

    Raises:
        FacemillError: another model, or a negative pool.
    """
    if not isinstance(model, CycleGan):
        raise FacemillError(f"the cyclegan's objective cannot train a {type(model).__name__}")
    if pool < 0:
        raise FacemillError(f"train.options.pool must be 0 or more, got {pool}")
    return CycleGanObjective(model, pool=pool)


def _each(rows: Tensor) -> Tensor:
    """(N,) → (N, 1, 1, 1)."""
    return rows[:, None, None, None]


def _l1(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).abs().mean()
