"""Checkpoints to go on from. No pickle is ever written or read.

A checkpoint is a folder `step-00001500` with everything that resuming to the same bits needs: weights, averages and
optimizer moments as tensors, the rest as JSON. It is written under a temporary name and becomes visible by one rename;
the newest whole one is the one to go on from, and the one before it is kept for the day when it is needed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.files import atomic_folder, read_json, write_json
from facemill.weights import check_tensor_file, load_into, load_tensors, save_tensors

TENSORS_FILE, STATE_FILE = "tensors.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a training run is, between two steps: tensors by name, and plain values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Writes `folder/step-…` whole, then removes what is beyond the newest `keep`, and damaged ones of later steps.

    Raises:
        FacemillError: the disk is full; the older checkpoints are untouched.
    """
    target = folder / f"step-{step:08d}"
    with atomic_folder(target) as temporary:
        save_tensors(temporary / TENSORS_FILE, checkpoint.tensors)
        write_json(temporary / STATE_FILE, checkpoint.values)
    found = _checkpoints(folder)
    at = found.index(target)
    for other in (*found[: max(0, at + 1 - keep)], *found[at + 1 :]):
        shutil.rmtree(other)
    return target


def load_checkpoint(
    folder: Path, device: torch.device, say: Callable[[str], None] = lambda line: None
) -> Checkpoint | None:
    """The newest whole checkpoint in `folder`; None where there is none at all. `say` is told of damaged ones.

    Raises:
        FacemillError: there are checkpoints, and all are damaged.
    """
    found = _newest_whole(folder)
    if found is None:
        return None
    path, damaged = found
    for problem in damaged:
        say(f"{problem}; goes on from {path.name} instead")
    return Checkpoint(load_tensors(path / TENSORS_FILE, device), read_json(path / STATE_FILE))


def saved_step(folder: Path) -> int:
    """The step that a run in this folder would go on from; 0 for a fresh one. Raises as `load_checkpoint`."""
    found = _newest_whole(folder)
    return int(found[0].name.removeprefix("step-")) if found else 0


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """An optimizer's moments as `prefix/PARAMETER_INDEX/NAME`."""
    states = optimizer.state_dict()["state"]
    return {f"{prefix}/{at}/{name}": tensor for at, state in states.items() for name, tensor in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Puts moments back. They take their parameter's memory layout: a fused step walks both in one order."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, tensor in tensors.items():
        if key.startswith(f"{prefix}/"):
            _, at, name = key.rsplit("/", 2)
            parameter = parameters[int(at)]
            shaped = tensor.shape == parameter.shape
            kept = torch.empty_like(parameter).copy_(tensor) if shaped else tensor.to(parameter.device, copy=True)
            optimizer.state[parameter][name] = kept.detach()


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, origin: Path) -> None:
    """Puts the weights named `prefix/…` into a module. Raises FacemillError as `facemill.weights.load_into`."""
    weights = {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}
    load_into(module, weights, origin, "this training")


def _newest_whole(folder: Path) -> tuple[Path, list[str]] | None:
    """The newest checkpoint that can be read, and what is wrong with newer ones. Header and length are looked at: a
    machine that loses power may cut a file though it was flushed and renamed."""
    problems: list[str] = []
    for path in reversed(_checkpoints(folder)):
        try:
            check_tensor_file(path / TENSORS_FILE)
            read_json(path / STATE_FILE)
        except FacemillError as error:
            problems.append(str(error))
        else:
            return path, problems
    if problems:
        raise FacemillError(problems[0])
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """By rising step; only those whose writing ended bear this name."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())
