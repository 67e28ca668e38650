"""Precision, memory layout and compilation by device.

CUDA: bf16 autocast, channels last, torch.compile where it can compile, a guard that looks one step late; of small nets
fp32 and eager, since their steps take as long as it takes to start their kernels, and casts are kernels, too. CPU: fp32
and eager, since bf16 autocast made a step of the autoencoder 2.5 times slower and compilation 1.7 times; channels last
pays for narrow layers only. Adam is fused on both: six times faster than the plain one on a CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from facemill.device_choice import Device, DeviceChoice
from facemill.errors import FacemillError
from facemill.nets import SwapModel

NARROW = 20_000_000
"""Below so many parameters channels last is faster on a CPU (a quarter for the small preset), above it is slower."""
SHORT_STEP = 20_000_000_000
"""Parameters times pixels of the input below which a GPU waits for its next kernel most of a step. On an H100 the small
presets are below, where fp32 without compilation takes 58 steps a second, bf16 48 and compiled bf16 46 (autoencoder);
those of 128 px are above, where compiled bf16 takes 45 to eager fp32's 32 (classic128)."""


@dataclass(frozen=True)
class DeviceSettings:
    """Where and how a model is trained: device, precision, memory layout, compilation, and how strictly alike."""

    device: torch.device
    autocast_dtype: torch.dtype | None
    memory_format: torch.memory_format
    compile: bool = False
    deterministic: bool = False  # only operations that give the same bits each time; slower on a GPU
    guard_lag: int = 0  # steps after which losses are looked at: 1 keeps a GPU from waiting for the host

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which forward passes run: torch's autocast, or nothing for fp32."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast_dtype)

    def place(self, module: nn.Module) -> None:
        """Moves a module to the device in the chosen layout, in place."""
        module.to(device=self.device)
        module.to(memory_format=self.memory_format)  # type: ignore[call-overload]  # torch types no format alone

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, torch's process-wide switches are as these settings want them; afterwards as they were."""
        was = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS wants for equal bits
            torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = self.device.type == "cuda" and not self.deterministic
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was[0])
            torch.backends.cudnn.benchmark = was[1]


def choose_device(wanted: Device, key: str) -> torch.device:
    """`auto` takes CUDA where there is some.

    Args:
        wanted: auto, cpu or cuda.
        key: what the person typed to ask for it, such as `train.device` or `--device`: the message names it.

    Raises:
        FacemillError: `cuda` on a machine where torch finds no GPU.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise FacemillError(f"{key} is cuda, but torch finds no GPU here: take auto or cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def settings_for(
    device: torch.device, parameters: int, choice: DeviceChoice | None = None, *, side_px: int | None = None
) -> DeviceSettings:
    """The settings for a model of so many parameters on a device, as it was chosen.

    Args:
        device: which is to compute.
        parameters: of all that is trained.
        choice: what a person says; all `auto`, unless it is given.
        side_px: of the pictures that the model is given; without it they are taken to be large.
    """
    choice = choice or DeviceChoice()
    on_gpu = device.type == "cuda"
    busy = keeps_busy(device, parameters, side_px)
    bf16 = busy if choice.precision == "auto" else choice.precision == "bf16"
    last = on_gpu or parameters < NARROW if choice.layout == "auto" else choice.layout == "channels_last"
    compiled = choice.compile
    if compiled == "auto":
        compiled = busy and compile_problem(device) is None
    return DeviceSettings(
        device,
        torch.bfloat16 if bf16 else None,
        torch.channels_last if last else torch.contiguous_format,
        compile=compiled,
        deterministic=choice.deterministic,
        guard_lag=1 if on_gpu and not choice.deterministic else 0,
    )


def keeps_busy(device: torch.device, parameters: int, side_px: int | None) -> bool:
    """Whether a step of such a model is more than the start of its kernels on a GPU; arguments as `settings_for`."""
    return device.type == "cuda" and (side_px is None or parameters * side_px**2 >= SHORT_STEP)


@cache
def compile_problem(device: torch.device) -> str | None:
    """Why torch.compile does not work here; None where it does. Found by trying: besides Triton it wants a C compiler,
    Python's headers and a GPU that is young enough."""
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(8, device=device))
    except Exception as error:  # whatever is missing shows in its own way
        return (str(error).strip() or repr(error)).splitlines()[0]
    return None


def compile_parts(module: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compiles the parts of an objective's module in place: names of weights stay, calls become faster.

    Containers and models that only pass on to their parts are not compiled themselves, so that a name given as an
    argument, such as an identity, costs no compilation.
    """
    for child in module.children():
        if isinstance(child, SwapModel | nn.ModuleDict | nn.ModuleList):
            compile_parts(child, backend)
        else:
            # not child.compile(), which compiles nothing of an nn.Sequential: its forward lies in torch's own files
            child.forward = torch.compile(child.forward, backend=backend)


@contextmanager
def memory_for(what: str, remedy: str) -> Iterator[None]:
    """Raises FacemillError that says `what` and `remedy` where memory runs out inside."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        raise FacemillError(f"out of memory while {what} ({reason}): take {remedy}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, on a GPU or (where the system says so at all) on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate" in str(error)
