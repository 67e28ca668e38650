"""What the machine can do by itself: rates that floors are worked out from, and a clock that waits for the device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def describe(device: torch.device) -> str:
    """Device, threads and torch, for the head of a table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


@torch.inference_mode()
def seconds_of(work: Callable[[], object], device: torch.device, repeats: int = 3) -> list[float]:
    """The time of each repeat, after one that does not count."""
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times[1:]


def matrix_product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square product that is large enough to be held by arithmetic alone; best of twelve."""
    side = 8192 if device.type == "cuda" else 1536
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / min(seconds_of(lambda: left @ right, device, 12))


def copy_rate(device: torch.device) -> float:
    """Bytes/s, read and written, of a copy that fits no cache; best of eight."""
    values = torch.rand(2**28 if device.type == "cuda" else 2**25, device=device)
    target = torch.empty_like(values)
    return 2 * values.nbytes / min(seconds_of(lambda: target.copy_(values), device, 8))
