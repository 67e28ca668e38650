"""What a person may ask of a device; `facemill.device` makes settings for torch of it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from facemill.settings import Settings

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class DeviceChoice(Settings):
    """What a person may ask of the device and of how it computes; `auto` takes what was measured to be fastest."""

    device: Device = "auto"
    """Device that computes; auto: a GPU where there is one, else the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the forward passes; auto: bf16 on a GPU for all but small nets, else fp32."""
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Memory layout of weights and pictures; auto: channels_last on a GPU and for small nets."""
    compile: bool | Literal["auto"] = "auto"
    """Whether torch.compile is used; auto: on a GPU where it works, for all but small nets."""
    deterministic: bool = False
    """Only operations that give equal bits each time, on a GPU too; slower."""
