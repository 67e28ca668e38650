"""Precision and memory layout by device, each setting chosen by measurement (`benchmarks/train.py`).

CUDA: bf16 autocast, channels last, fused Adam. CPU: fp32, since bf16 autocast makes a step 2.5 times slower, and
fused Adam, which is six times faster than the plain one; channels last pays for narrow layers only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from facemill.errors import FacemillError

NARROW = 20_000_000
"""Below so many parameters channels last is faster on a CPU (a quarter for the small preset), above it is slower."""


@dataclass(frozen=True)
class DeviceSettings:
    """How a model is trained on a device."""

    device: torch.device
    autocast_dtype: torch.dtype | None
    memory_format: torch.memory_format
    fused_optimizer: bool = True

    def autocast(self) -> AbstractContextManager[None]:
        """The context for forward passes."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast_dtype)

    def place(self, module: nn.Module) -> None:
        """Moves a module to the device in the chosen layout, in place."""
        module.to(device=self.device)
        module.to(memory_format=self.memory_format)  # type: ignore[call-overload]  # torch types no format alone


def choose_device(wanted: str) -> torch.device:
    """`auto` takes CUDA where there is some. Raises FacemillError for `cuda` on a machine without it."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise FacemillError("train.device is cuda, but torch finds no GPU here: use auto or cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def settings_for(device: torch.device, parameters: int) -> DeviceSettings:
    """The settings for a model of so many parameters."""
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        return DeviceSettings(device, torch.bfloat16, torch.channels_last)
    layout = torch.channels_last if parameters < NARROW else torch.contiguous_format
    return DeviceSettings(device, None, layout)
