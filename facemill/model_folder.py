"""Model folders, all that conversion needs: `weights.safetensors` with `model.json` beside it, and a card for people.

Training writes one, conversion and export read one; no pickle is ever written or read. A folder may hold exemplars,
real pictures of the people whom the model draws (`facemill.swap.detail.exemplars`), as a Parquet file; `model.json`
then says under `exemplars` how many there are of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from facemill import tables
from facemill.embeddings import DIMENSIONS
from facemill.errors import FacemillError
from facemill.files import atomic_folder, put_back, read_json, write_bytes, write_json
from facemill.nets import SwapModel, build_model
from facemill.weights import load_into, load_tensors, save_tensors

WEIGHTS_FILE, MODEL_FILE, CARD_FILE = "weights.safetensors", "model.json", "MODEL_CARD.md"
EXEMPLARS_FILE, EXEMPLARS_KEY = "exemplars.parquet", "exemplars"
MODEL_KEYS = (
    "name", "preset", "identities", "input_px", "crop_px", "crop_coverage", "train_coverage", "landmarks", "references"
)  # fmt: skip


def save_model(
    folder: Path, model: SwapModel, meta: Mapping[str, Any], card: str = "", exemplars: pa.Table | None = None
) -> None:
    """Writes a model folder atomically, in place of one that may be there.

    Args:
        folder: its name and place.
        model: the trained model.
        meta: at least `MODEL_KEYS`; `references` is `{identity: [[128 floats], …]}`.
        card: what a person should know of the model (a model card in Markdown), beside the weights.
        exemplars: a table as `exemplar_table` of `facemill.swap.detail.exemplars` makes it; without rows as if it were
            not given.

    Raises:
        FacemillError: a key is missing, `meta` names other identities than the model, or the disk is full.
    """
    _check_meta(folder, meta)
    if list(meta["identities"]) != list(model.identities):
        raise FacemillError(f"the model draws {list(model.identities)}, its description says {meta['identities']}")
    described = dict(meta)
    if exemplars is not None and len(exemplars):
        found = exemplars["identity"].to_pylist()
        described[EXEMPLARS_KEY] = {identity: found.count(identity) for identity in model.identities}
    with atomic_folder(folder) as temporary:
        save_tensors(temporary / WEIGHTS_FILE, model.state_dict())
        write_json(temporary / MODEL_FILE, described)
        if EXEMPLARS_KEY in described:
            tables.write_part(temporary / EXEMPLARS_FILE, exemplars)
        if card:
            write_bytes(temporary / CARD_FILE, card.encode())


def load_model(folder: Path, device: str | torch.device = "cpu") -> tuple[SwapModel, dict[str, Any]]:
    """A trained model in evaluation mode, and its description.

    Raises:
        FacemillError: no model there, a pickle, a damaged file, or weights that are not this model's.
    """
    meta = read_meta(folder)
    weights = load_tensors(folder / WEIGHTS_FILE, torch.device(device))
    model = build_model(meta["name"], meta["preset"], meta["identities"])
    model.to(device)
    load_into(model, weights, folder / WEIGHTS_FILE, f"{meta['name']}, preset {meta['preset']}")
    return model.eval(), meta


def read_meta(folder: Path) -> dict[str, Any]:
    """The description of a trained model, without its weights.

    Raises:
        FacemillError: no model there, or one of another version.
    """
    if not folder.is_dir():
        put_back(folder)
    return _check_meta(folder, read_json(folder / MODEL_FILE))


def references_of(meta: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    """(K, 128) embeddings of every identity that a model's description has some of.

    Those of people who are not replaced keep a face that is nearer to one of them from being taken for somebody else's.
    """
    stored = meta.get("references", {})
    return {
        name: np.asarray(stored[name], np.float32).reshape(-1, DIMENSIONS)
        for name in meta["identities"]
        if stored.get(name)
    }


def _check_meta(folder: Path, meta: Any) -> dict[str, Any]:
    missing = [key for key in MODEL_KEYS if not isinstance(meta, Mapping) or key not in meta]
    if missing:
        raise FacemillError(
            f"{folder / MODEL_FILE} lacks {', '.join(missing)}: it is not a facemill model; train it again"
        )
    return dict(meta)
