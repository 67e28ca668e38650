"""Checkpoints to go on from, and model folders to hand out. No pickle is ever written or read.

A checkpoint is a folder `step-00001500` with everything that resuming to the same bits needs: weights, averages and
optimizer moments as tensors, the rest as JSON. It is written under a temporary name and becomes visible by one rename;
the newest whole one is the one to go on from, and the one before it is kept for the day when it is needed. A model
folder is `weights.safetensors` with `model.json` beside it, all that conversion needs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.files import TEMPORARY_PREFIX, is_full, read_json, write_bytes, write_json
from facemill.nets import SwapModel, build_model
from facemill.weights import is_pickle

WEIGHTS_FILE, MODEL_FILE, CARD_FILE = "weights.safetensors", "model.json", "MODEL_CARD.md"
TENSORS_FILE, STATE_FILE = "tensors.safetensors", "state.json"
MODEL_KEYS = ("name", "preset", "identities", "input_px", "crop_px", "crop_coverage", "train_coverage", "references")


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
    with _atomic_folder(target) as temporary:
        _save_tensors(temporary / TENSORS_FILE, checkpoint.tensors)
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
    return Checkpoint(_load_tensors(path / TENSORS_FILE, device), read_json(path / STATE_FILE))


def saved_step(folder: Path) -> int:
    """The step that a run in this folder would go on from; 0 for a fresh one. Raises as `load_checkpoint`."""
    found = _newest_whole(folder)
    return int(found[0].name.removeprefix("step-")) if found else 0


def save_model(folder: Path, model: SwapModel, meta: Mapping[str, Any], card: str = "") -> None:
    """Writes a model folder atomically, in place of one that may be there.

    Args:
        folder: its name and place.
        model: the trained model.
        meta: at least `MODEL_KEYS`; `references` is `{identity: [[128 floats], …]}`.
        card: what a person should know of the model (`facemill.train.card`), beside the weights.

    Raises:
        FacemillError: a key is missing, `meta` names other identities than the model, or the disk is full.
    """
    _check_meta(folder, meta)
    if list(meta["identities"]) != list(model.identities):
        raise FacemillError(f"the model draws {list(model.identities)}, its description says {meta['identities']}")
    with _atomic_folder(folder) as temporary:
        _save_tensors(temporary / WEIGHTS_FILE, model.state_dict())
        write_json(temporary / MODEL_FILE, dict(meta))
        if card:
            write_bytes(temporary / CARD_FILE, card.encode())


def load_model(folder: Path, device: str | torch.device = "cpu") -> tuple[SwapModel, dict[str, Any]]:
    """A trained model in evaluation mode, and its description.

    Raises:
        FacemillError: no model there, a pickle, a damaged file, or weights that are not this model's.
    """
    meta = _check_meta(folder, read_json(folder / MODEL_FILE))
    weights = _load_tensors(folder / WEIGHTS_FILE, torch.device(device))
    model = build_model(meta["name"], meta["preset"], meta["identities"])
    _check_weights(folder / WEIGHTS_FILE, weights, model.state_dict())
    model.to(device)
    model.load_state_dict(weights)
    return model.eval(), meta


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
    """Puts the weights named `prefix/…` into a module. Raises FacemillError where names or shapes differ."""
    weights = {key.removeprefix(f"{prefix}/"): value for key, value in tensors.items() if key.startswith(f"{prefix}/")}
    _check_weights(origin, weights, module.state_dict())
    module.load_state_dict(weights)


def _check_meta(folder: Path, meta: Any) -> dict[str, Any]:
    missing = [key for key in MODEL_KEYS if not isinstance(meta, Mapping) or key not in meta]
    if missing:
        raise FacemillError(
            f"{folder / MODEL_FILE} lacks {', '.join(missing)}: it is not a facemill model; train it again"
        )
    return dict(meta)


def _check_weights(path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    if missing := sorted(set(wanted) - set(found)):
        raise FacemillError(
            f"{path} lacks {len(missing)} weights, first {missing[0]}: it belongs to another model or preset"
        )
    if extra := sorted(set(found) - set(wanted)):
        raise FacemillError(
            f"{path} has {len(extra)} weights too many, first {extra[0]}: it belongs to another model or preset"
        )
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise FacemillError(
                f"{path}: {name} is {tuple(found[name].shape)}, this model wants {tuple(tensor.shape)}: "
                "it belongs to another model or preset"
            )


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path)
    except SafetensorError as error:
        # safetensors wraps the system's errors in one of its own
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), str(error)) from error
        raise


def _load_tensors(path: Path, device: torch.device) -> dict[str, Tensor]:
    _check_file(path)
    try:
        return load_file(path, device=str(device))
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _check_file(path: Path) -> None:
    """Raises FacemillError for a file that is missing, a pickle, cut short or no safetensors; reads the header only."""
    if not path.is_file():
        pickled = [p.name for p in path.parent.glob("*") if p.suffix in (".pt", ".pth", ".pkl", ".bin", ".ckpt", ".h5")]
        hint = (
            f"; {', '.join(pickled)} cannot be used: pickles can run code, only safetensors are read" if pickled else ""
        )
        raise FacemillError(f"{path} is missing{hint}: train the model, or name the folder that holds it")
    with path.open("rb") as stream:
        if is_pickle(stream.read(9), path.stat().st_size):
            raise FacemillError(f"{path} is a pickle under another name: pickles can run code and are never loaded")
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> FacemillError:
    return FacemillError(f"{path} is damaged ({error}): delete its folder and train again")


def _newest_whole(folder: Path) -> tuple[Path, list[str]] | None:
    """The newest checkpoint that can be read, and what is wrong with newer ones. Header and length are looked at: a
    machine that loses power may cut a file though it was flushed and renamed."""
    problems: list[str] = []
    for path in reversed(_checkpoints(folder)):
        try:
            _check_file(path / TENSORS_FILE)
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


@contextmanager
def _atomic_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `target` that takes its place after the block, flushed, or leaves no trace."""
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{target.name}")
    retired = temporary.with_name(f"{temporary.name}-old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        if target.exists():
            target.rename(retired)
        temporary.rename(target)
        _flush(target.parent)
    except OSError as error:
        if is_full(error):
            raise FacemillError(
                f"no space left to write {target.name}: free some and run the same command again"
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
