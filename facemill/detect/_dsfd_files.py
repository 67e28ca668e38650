"""DSFD on disk: the folder that training writes, and the checkpoints that people bring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from facemill.errors import FacemillError
from facemill.files import file_sha256, read_json, write_bytes, write_json
from facemill.nets.dsfd import PUBLIC_VARIANT, Dsfd, DsfdConfig, from_public_names
from facemill.weights import load_into, read_weights, require_finite

WEIGHTS_FILE, MODEL_FILE = "weights.safetensors", "model.json"


def save_detector(folder: Path, model: Dsfd, meta: Mapping[str, Any] | None = None, *, half: bool = False) -> None:
    """Writes `folder`/weights.safetensors and model.json, each whole; half a pair does not load.

    Args:
        folder: where they go.
        model: the net.
        meta: what else to keep in model.json (steps, data, scores), plain values.
        half: weights as float16, 100 MB instead of 200.

    Raises:
        FacemillError: a weight is NaN or infinite, or the disk is full.
    """
    dtype = torch.float16 if half else torch.float32
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    for name, value in weights.items():
        require_finite(value, name, folder / WEIGHTS_FILE)
    write_bytes(folder / WEIGHTS_FILE, save(weights))
    described = {"name": "dsfd", "config": asdict(model.config), "sha256": file_sha256(folder / WEIGHTS_FILE)}
    write_json(folder / MODEL_FILE, {**(meta or {}), **described})


def load_detector(
    path: Path, sha256: str | None = None, device: str | torch.device = "cpu", *, aspect: float | None = None
) -> Dsfd:
    """The net of a folder that `save_detector` wrote, or of a checkpoint file, in evaluation mode.

    Args:
        path: a folder; a safetensors file; or a `.pth` (bare or {'epoch', 'weight'}). A file may use our names or the
            public VGG16 checkpoint's; with the latter priors are square and match_iou is 0.35, as that was trained.
        sha256: 64 hex digits that the file must have; a `.pth` is not read without.
        device: where the net goes.
        aspect: height : width of the priors, where a file has other ones.

    Raises:
        FacemillError: what `read_weights` and `load_into` raise, or a folder whose two files do not belong together.
    """
    if path.is_dir():
        model_file, path = path / MODEL_FILE, path / WEIGHTS_FILE
        config, sha256 = _described(model_file, sha256)
        state: Mapping[str, Any] = read_weights(path, sha256=sha256)
    else:
        found = read_weights(path, sha256=sha256)
        state = from_public_names(found)
        config = DsfdConfig() if set(state) <= set(found) else PUBLIC_VARIANT
    if aspect is not None:
        config = replace(config, aspect=aspect)
    model = Dsfd(config)
    load_into(model, state, path, f"DSFD (VGG16, width {config.width:g})")
    return model.to(device).eval()


def _described(model_file: Path, sha256: str | None) -> tuple[DsfdConfig, str]:
    meta = read_json(model_file)
    try:
        if meta["name"] != "dsfd":
            raise FacemillError(f"{model_file} describes {meta['name']!r}, not a DSFD: name the folder of a detector")
        config, stated = DsfdConfig(**meta["config"]), str(meta["sha256"])
    except (KeyError, TypeError) as error:
        raise FacemillError(f"{model_file} does not describe a DSFD ({error!r}): train it again") from error
    if sha256 is not None and sha256.strip().lower() != stated:
        raise FacemillError(f"{model_file} names weights of SHA-256 {stated}, stated is {sha256}: another training's")
    return config, stated
