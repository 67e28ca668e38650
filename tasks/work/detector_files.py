"""The files that a detector's options name: where they lie, and what lies in them.

`detector_options` of params.yaml are those of a detector's builder, or of several by their names. Which of them are
files the builders say (`facemill.options`); what lies in one decides what is found as much as a parameter does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from facemill.detect import DETECTORS, detector_names
from facemill.errors import FacemillError
from facemill.files import file_sha256, folder_sha256
from facemill.options import path_options
from tasks.paths import place


def placed_detector_options(detector: str, options: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The options with every file and folder as an absolute path, so that any process finds it.

    Raises:
        FacemillError: no such detector, or a path that cannot be.
    """
    return _with_paths(detector, options, lambda path: str(place(path, root).resolve()))


def deciding_options(detector: str, options: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The options with the SHA-256 of each file or folder in its path's stead: what decides, on every machine alike.

    Raises:
        FacemillError: no such detector, or a file that is not there.
    """
    return _with_paths(detector, options, lambda path: _sha256(place(path, root)))


def detector_weights(detector: str, options: Mapping[str, Any], root: Path) -> dict[str, str]:
    """SHA-256 of each file or folder by the option that names it, `weights` or of several `dsfd.weights`.

    Raises:
        FacemillError: as `deciding_options`.
    """
    names = detector_names(detector)
    if len(names) > 1:
        each = {name: options[name] for name in names if isinstance(options.get(name), Mapping)}
        found = {name: detector_weights(name, own, root) for name, own in each.items()}
        return {f"{name}.{option}": sha256 for name, files in found.items() for option, sha256 in files.items()}
    decided = deciding_options(detector, options, root)
    return {name: decided[name] for name in path_options(DETECTORS[detector]) if isinstance(options.get(name), str)}


def _with_paths(detector: str, options: Mapping[str, Any], of: Callable[[str], str]) -> dict[str, Any]:
    names = detector_names(detector)
    if len(names) > 1:
        return {
            name: _with_paths(name, own, of) if name in names and isinstance(own, Mapping) else own
            for name, own in options.items()
        }
    paths = path_options(DETECTORS[detector])
    return {name: of(value) if name in paths and isinstance(value, str) else value for name, value in options.items()}


def _sha256(path: Path) -> str:
    if not path.exists():
        raise FacemillError(f"there is no file or folder {path}; correct the path")
    return folder_sha256(path) if path.is_dir() else file_sha256(path)
