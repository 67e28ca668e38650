"""Weights that a person brings: read without running code, checked before a net gets them.

safetensors are data and are read as they are. A `.pth` is a pickle: it is read with torch's weights-only unpickler and
only when its SHA-256 is stated, so that a file which arrived damaged, or is not the one that was meant, never gets as
far as the unpickler. The bytes that were hashed are the bytes that are loaded.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from facemill.errors import FacemillError

_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")  # pickle protocol 2 and up; the zip that torch.save makes


def read_weights(path: Path, *, sha256: str | None = None) -> dict[str, Any]:
    """The tensors of a file by name, on the CPU; from a `.pth` whatever dictionary it holds.

    Args:
        path: the file.
        sha256: 64 hex digits that it must have; without it only safetensors are read.

    Raises:
        FacemillError: no such file, another hash, a pickle without a stated hash, a truncated or foreign file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FacemillError(f"{path} cannot be read ({error.strerror}): check the path of the weights") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.strip().lower():
        raise FacemillError(
            f"{path} has SHA-256 {found}, stated is {sha256}: it is damaged or another file; fetch it anew"
        )
    if not is_pickle(data[:9], len(data)):
        return _from_safetensors(path, data)
    if sha256 is None:
        raise FacemillError(
            f"{path} is a pickle, which could run code: state the SHA-256 that its source gives for it, "
            "or convert it to safetensors"
        )
    return _from_pickle(path, data)


def load_into(module: nn.Module, weights: Mapping[str, Any], origin: Path, what: str) -> None:
    """Puts weights into a module, all of them or none.

    Args:
        module: gets them, on its own device.
        weights: tensors by the names that the module's `state_dict` has.
        origin: the file, for the message.
        what: the net, as in "DSFD of width 1".

    Raises:
        FacemillError: names or shapes are another net's, or a value is NaN or infinite; the module is as it was.
    """
    wanted = module.state_dict()
    for names, problem in (
        (wanted.keys() - weights.keys(), "lacks {count} weight(s), first {first}"),
        (weights.keys() - wanted.keys(), "has {count} weight(s) too many, first {first}"),
    ):
        if names:
            said = problem.format(count=len(names), first=min(names))
            raise FacemillError(f"{origin} {said}: these are weights of another model, wanted are those of {what}")
    for name, tensor in wanted.items():
        value = weights[name]
        if not isinstance(value, Tensor) or value.shape != tensor.shape:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise FacemillError(
                f"{origin}: {name} is {shape}, {what} wants {tuple(tensor.shape)}: these are weights of another model"
            )
        require_finite(value, name, origin)
    module.load_state_dict(dict(weights))


def require_finite(value: Tensor, name: str, origin: Path | str) -> None:
    """Raises FacemillError when a weight holds NaN or infinity."""
    if not bool(torch.isfinite(value).all()):
        raise FacemillError(f"{origin}: {name} holds NaN or infinity: the training failed or the file is damaged")


def _from_safetensors(path: Path, data: bytes) -> dict[str, Any]:
    try:
        return dict(safetensors.torch.load(data))
    except (SafetensorError, ValueError) as error:
        raise FacemillError(f"{path} is truncated or not safetensors ({error}): fetch it anew") from error


def _from_pickle(path: Path, data: bytes) -> dict[str, Any]:
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise FacemillError(f"{path} is truncated or holds more than weights ({reason}): fetch it anew") from error
    if not isinstance(content, Mapping):
        raise FacemillError(f"{path} holds a {type(content).__name__}, not weights by name: name a state dictionary")
    return dict(content)


def is_pickle(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins with `head` (9 bytes) is one. A safetensors file, which begins with
    the length of its header, then `{`, may begin like one."""
    safetensors = len(head) > 8 and int.from_bytes(head[:8], "little") < size and head[8:9] == b"{"
    return head.startswith(_PICKLE_STARTS) and not safetensors


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors as safetensors, from any device, with texts by name in the file's header.

    Raises:
        OSError: as the system has it: a full disk, no right.
    """
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, dict(metadata) if metadata else None)
    except SafetensorError as error:
        # safetensors wraps the system's errors in one of its own
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), str(error)) from error
        raise


def load_tensors(path: Path, device: torch.device) -> dict[str, Tensor]:
    """The tensors of a safetensors file on a device. Raises FacemillError as `check_tensor_file`."""
    check_tensor_file(path)
    try:
        return load_file(path, device=str(device))
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def check_tensor_file(path: Path) -> None:
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
