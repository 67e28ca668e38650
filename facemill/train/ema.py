"""Averaged weights: an exponential moving average over steps (Polyak & Juditsky 1992, as GANs use it).

The average wanders less than the weights do, so that what is shown, measured and handed out does not depend on the
last batch. Early on it forgets faster, as Adam's bias correction does: mean ← lerp(mean, weight, 1 − d) with
d = min(decay, (1 + t) / (10 + t)).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """The averages of a module's floating-point weights and buffers, on its device; counters are left alone."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """`decay`: share of the average that a step keeps, 0 ≤ decay < 1."""
        state: dict[str, Tensor] = module.state_dict(keep_vars=True)
        self._live = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
        self._mean = [tensor.detach().clone() for tensor in self._live.values()]
        self._decay, self._updates = decay, 0

    def update(self) -> None:
        """Takes the weights as they are after a step into the average."""
        keep = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._mean, self._detached(), 1 - keep)
        self._updates += 1

    def reset(self) -> None:
        """Starts afresh from the weights as they are, after an event that changed them other than by a step."""
        torch._foreach_copy_(self._mean, self._detached())
        self._updates = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the module has the averaged weights; afterwards its own again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def adopt(self) -> None:
        """Gives the module the averaged weights for good."""
        torch._foreach_copy_(self._detached(), self._mean)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """What a checkpoint has to hold, as `prefix/NAME`."""
        means = {f"{prefix}/{name}": mean for name, mean in zip(self._live, self._mean, strict=True)}
        return means | {f"{prefix}/": torch.tensor(self._updates)}  # no parameter has an empty name

    def restore(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `tensors` gave; starts from the weights where a checkpoint was made without averages."""
        if f"{prefix}/" not in tensors:
            self.reset()
            return
        torch._foreach_copy_(self._mean, [tensors[f"{prefix}/{name}"] for name in self._live])
        self._updates = int(tensors[f"{prefix}/"])

    def _detached(self) -> list[Tensor]:
        return [tensor.detach() for tensor in self._live.values()]

    def _exchange(self) -> None:
        for at, tensor in enumerate(self._live.values()):
            tensor.data, self._mean[at] = self._mean[at], tensor.data
