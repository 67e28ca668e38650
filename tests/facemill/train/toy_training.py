"""A toy objective with a known minimum, and a toy feed, so that the engine is tested without a net or a mock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from facemill.train.augment import Batch
from facemill.train.device import DeviceSettings

CPU = DeviceSettings(torch.device("cpu"), None, torch.contiguous_format)


class ToyFeed:
    """Noisy copies of one number; `poisoned` names the draw that holds a NaN."""

    def __init__(self, poisoned: int | None = None) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.place: Any = {"drawn": 0}
        self._poisoned = poisoned

    def draw(self) -> dict[str, Batch]:
        self.place = {"drawn": self.place["drawn"] + 1}
        value = 3.0 + 0.1 * torch.randn(4, 1, 1, 1, generator=self.generator)
        if self.place["drawn"] == self._poisoned:
            value[2] = torch.nan
        return {"anna": Batch(value, value, torch.ones_like(value))}

    def describe(self) -> str:
        return f"anna: row {self.place['drawn']}"


class ToyObjective:
    """(x - 3)² and, where there are two turns, (y - x)²: ends with x and y near 3."""

    def __init__(self, turns: tuple[str, ...] = ("x",)) -> None:
        self.turns = turns
        self.module = nn.ParameterDict({turn: nn.Parameter(torch.zeros(2, 3)) for turn in turns})
        self.history: list[str] = []

    def parameters(self, turn: str) -> list[nn.Parameter]:
        return [self.module[turn]]

    def losses(self, turn: str, batch: Mapping[str, Batch]) -> dict[str, Tensor]:
        self.history.append(turn)
        wanted = batch["anna"].target.mean() if turn == self.turns[0] else self.module[self.turns[0]].detach()
        return {f"square/{turn}": ((self.module[turn] - wanted) ** 2).mean()}

    def weights(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.module.parameters()])
