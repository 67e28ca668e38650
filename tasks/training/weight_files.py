"""Weights that a training is given beside its dataset: a model to start from, networks that its losses ask.

`train.start` and options of `train.options` name them, relative to the project. What lies in them decides the result as
much as a parameter does, so that they count by content, wherever a training is recognised again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import file_sha256, folder_sha256
from facemill.train import ENCODER
from tasks.catalogue import Data
from tasks.params import TrainParams
from tasks.paths import place


def weight_files(train: TrainParams, root: Path) -> dict[str, str]:
    """SHA-256 by key, `start` or the option's name, of each file or folder.

    Raises:
        FacemillError: an option names a file that is not there; `train.start` names no folder, or the one that the
            training itself writes.
    """
    found = {name: _sha256(path) for name, value in train.options.items() if (path := _path(name, value, root))}
    start = start_folder(train, root)
    return found | ({"start": _sha256(start)} if start else {})


def start_folder(train: TrainParams, root: Path) -> Path | None:
    """The folder of the model to start from. Raises as `weight_files`."""
    if train.start is None:
        return None
    folder = place(train.start, root).resolve()
    if folder == (root / Data.MODEL).resolve():
        raise FacemillError(
            f"train.start is {train.start}, which this training writes itself: copy the folder and name the copy"
        )
    if not folder.is_dir():
        raise FacemillError(f"train.start: there is no folder {folder}; name one that holds a trained model")
    return folder


def placed_options(train: TrainParams, root: Path) -> dict[str, Any]:
    """`train.options` with the files that they name as absolute paths, so that any process finds them."""
    return {
        name: f"{ENCODER if str(value).startswith(ENCODER) else ''}{path}"
        if (path := _path(name, value, root))
        else value
        for name, value in train.options.items()
    }


def _path(name: str, value: Any, root: Path) -> Path | None:
    """The file or folder that an option names; None for a number or a word such as `download`."""
    if not isinstance(value, str):
        return None
    stated = value.removeprefix(ENCODER)
    if stated == value and not re.search(r"[./~]", stated):
        return None
    path = place(stated, root).resolve()
    if not path.exists():
        raise FacemillError(f"train.options.{name}: there is no file or folder {path}; correct the path")
    return path


def _sha256(path: Path) -> str:
    return folder_sha256(path) if path.is_dir() else file_sha256(path)
