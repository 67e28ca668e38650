"""Several processes, one model: torch's DistributedDataParallel, started by torchrun.

    torchrun --nproc-per-node 4 -m tasks stage train

Each process has a device, a copy of the model and its share of every batch; gradients are averaged, so that all take
the same step. Process 0 alone evaluates, writes and speaks. Without torchrun there is one process, and nothing here
costs anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = timedelta(minutes=30)
"""How long processes wait for each other before they give up: longer than an evaluation or a checkpoint takes."""


class Ranks:
    """This process among `processes`; number 0 is the one that writes."""

    def __init__(self, number: int, processes: int) -> None:
        self.number, self.processes = number, processes

    @property
    def first(self) -> bool:
        """Whether this is the process that evaluates, writes and speaks."""
        return self.number == 0

    def wrap(self, module: nn.Module, parameters: list[nn.Parameter]) -> nn.Module:
        """A module whose backward pass averages the gradients of these parameters; those of others stay local."""
        if self.processes == 1:
            return module
        wanted = {id(parameter) for parameter in parameters}
        ignored = [name for name, parameter in module.named_parameters() if id(parameter) not in wanted]
        # torch's own way to say it, underscore and all: there is no other
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, ignored)
        return DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=True)

    def quiet(self, module: nn.Module, quiet: bool) -> AbstractContextManager[None]:
        """Inside, gradients are gathered and not yet averaged: for all micro-batches but the last."""
        if quiet and isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return nullcontext()

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean of a tensor over all processes; the same object where there is one."""
        if self.processes > 1:
            dist.all_reduce(numbers)
            numbers = numbers / self.processes
        return numbers

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers, so that all decide alike. Goes by the hosts: no GPU is waited for."""
        if self.processes == 1:
            return number
        shared = torch.tensor(number)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def on_first(self, work: Callable[[], float | None]) -> float | None:
        """Lets process 0 do something while the others wait; what it returned, everywhere."""
        value = work() if self.first else None
        if self.processes == 1:
            return value
        shared = torch.tensor([value is not None, value or 0.0], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared[1]) if shared[0] else None


ALONE = Ranks(0, 1)


def all_rows(mine: Tensor) -> tuple[Tensor, slice]:
    """(N, …) of this process → those of all processes, in their order, and which of them are this one's.

    No gradients pass. The shapes of all processes are equal. Where there is one process, it is the same tensor.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return mine, slice(None)
    parts = [torch.empty_like(mine, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine.detach().contiguous())
    first = dist.get_rank() * len(mine)
    return torch.cat(parts), slice(first, first + len(mine))


@contextmanager
def ranks_of_torchrun(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """This process's place and device under torchrun (NCCL between GPUs, gloo between hosts); `ALONE` elsewhere."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes == 1:
        yield ALONE, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), processes), device
    finally:
        dist.destroy_process_group()
