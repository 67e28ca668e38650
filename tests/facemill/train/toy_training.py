"""A toy objective with a known minimum, and a toy feed, so that the engine is tested without a net or a mock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from facemill.device import DeviceSettings
from facemill.train.augment import Batch
from facemill.train.data import FaceSet
from facemill.train.objectives import ObjectiveBase

CPU = DeviceSettings(torch.device("cpu"), None, torch.contiguous_format)


def plain_batch(warped: Tensor, target: Tensor, weight: Tensor | None = None) -> Batch:
    """A batch without eyes, with all landmarks in one corner."""
    weight = torch.ones_like(target[:, :1]) if weight is None else weight
    return Batch(warped, target, weight, torch.zeros_like(weight), torch.zeros(len(target), 68, 2))


def plain_set(identity: str, faces: Tensor, field: float = 1.25) -> FaceSet:
    """Stored faces (N, 3, W, W) uint8 with full weight everywhere, without eyes, landmarks in the middle."""
    full = torch.full_like(faces[:, :1], 255)
    landmarks = torch.full((len(faces), 68, 2), faces.shape[-1] / 2)
    ids = tuple(f"{identity}-{at}" for at in range(len(faces)))
    return FaceSet(identity, ids, faces, full, torch.zeros_like(full), landmarks, field)


class ToyFeed:
    """Noisy copies of one number, a function of the place; `poisoned` names the draws that hold a NaN."""

    def __init__(self, *poisoned: int) -> None:
        self.place: Any = {"drawn": 0}
        self.waited_s = 0.0
        self._poisoned = set(poisoned)

    def draw(self) -> dict[str, Batch]:
        self.place = {"drawn": self.place["drawn"] + 1}
        noise = torch.randn(4, 1, 1, 1, generator=torch.Generator().manual_seed(self.place["drawn"]))
        value = 3.0 + 0.1 * noise
        if self.place["drawn"] in self._poisoned:
            value[2] = torch.nan
        return {"anna": plain_batch(value, value)}

    def describe(self, place: Any) -> str:
        return f"anna: row {place['drawn']}"


class ToyObjective(ObjectiveBase):
    """(x - 3)² and, where there are two turns, (y - x)²: ends with x and y near 3."""

    def __init__(self, turns: tuple[str, ...] = ("x",)) -> None:
        super().__init__(nn.ParameterDict({turn: nn.Parameter(torch.zeros(2, 3)) for turn in turns}))
        self.turns = turns
        self.history: list[str] = []

    def parameters(self, turn: str) -> list[nn.Parameter]:
        return [self.module[turn]]

    def losses(self, turn: str, batch: Mapping[str, Batch]) -> dict[str, Tensor]:
        self.history.append(turn)
        wanted = batch["anna"].target.mean() if turn == self.turns[0] else self.module[self.turns[0]].detach()
        return {f"square/{turn}": ((self.module[turn] - wanted) ** 2).mean()}

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.module.parameters()])
