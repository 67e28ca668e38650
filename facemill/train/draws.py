"""Everything random of a batch as plain numbers, one row a face, drawn before a pixel is touched.

A row is a pure function of (seed, number of the draw): nothing has to be remembered to draw it again, on any device, in
any number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GRID = 5  # points along a side of the warp grid
LIGHT = 3  # points along a side of the shading field
UNIT = (
    *("angle", "zoom", "mirror", "shift_x", "shift_y"),
    *("match", "match_share", "brightness"),
    *("blur", "blur_length", "blur_angle"),
    *("lab", "lab_l", "lab_a", "lab_b"),
)
"""Columns that are uniform in 0…1."""
NORMAL = {"warp": 2 * GRID**2, "light": LIGHT**2}
"""Columns that are N(0, 1), and how many numbers each has."""
_FIRST = {"warp": len(UNIT), "light": len(UNIT) + NORMAL["warp"]}


@dataclass(frozen=True)
class Draws:
    """The random numbers by which N faces are changed, one row a face."""

    numbers: Tensor  # (N, 15 + 59) float32: the columns of UNIT, then those of NORMAL
    partner: Tensor  # (N,) int64: row of the face in the whole draw whose colours are lent

    def __len__(self) -> int:
        return len(self.numbers)

    def unit(self, name: str) -> Tensor:
        """The column of that name: (N,) numbers, uniform in 0…1."""
        return self.numbers[:, UNIT.index(name)]

    def signed(self, name: str) -> Tensor:
        """The column of that name: (N,) numbers, uniform in −1…1."""
        return 2 * self.unit(name) - 1

    def normal(self, name: str) -> Tensor:
        """The columns of that name: (N, NORMAL[name]) numbers, normal with mean 0 and deviation 1."""
        return self.numbers[:, _FIRST[name] : _FIRST[name] + NORMAL[name]]

    def take(self, rows: Tensor) -> Draws:
        """The numbers of these faces; `rows` is (M,) int64."""
        return Draws(self.numbers[rows], self.partner[rows])

    def to(self, device: torch.device) -> Draws:
        """The same numbers on that device."""
        return Draws(self.numbers.to(device, non_blocking=True), self.partner.to(device, non_blocking=True))


def draw_numbers(count: int, seed: int, draw: int) -> Draws:
    """The random numbers of `count` faces for draw number `draw` of a seed, on the CPU."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + draw) % 2**63)
    unit = torch.rand(count, len(UNIT), generator=generator)
    normal = torch.randn(count, sum(NORMAL.values()), generator=generator)
    return Draws(torch.cat([unit, normal], 1), torch.randperm(count, generator=generator))
