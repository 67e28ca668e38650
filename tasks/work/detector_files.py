"""A detector's options as people give them: typed on a command line, and the files that they name.

`detector_options` of params.yaml are those of a detector's builder, or of several by their names. Which of them are
files the builders say (`facemill.options`); what lies in one decides what is found as much as a parameter does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from facemill.detect import DETECTORS, detector_names
from facemill.errors import FacemillError
from facemill.files import file_sha256, folder_sha256
from facemill.options import checked_options, options_of, path_options
from tasks.paths import place

_FLAG = "--detector-option"


def placed_detector_options(detector: str, options: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """The options with every file and folder as an absolute path, so that any process finds it.

    Raises:
        FacemillError: no such detector, or a path that cannot be.
    """
    return _with_paths(detector, options, lambda path: str(place(path, root).resolve()))


def typed_detector_options(detector: str, texts: Sequence[str], root: Path) -> dict[str, Any]:
    """Options as a command line has them, ready for `build_detector`; files are paths in `root` or absolute.

    Args:
        detector: one detector, or several with commas between.
        texts: each `NAME=VALUE` with the value as `detector_options` of params.yaml has it; of one detector among
            several `dsfd.weights=VALUE`.
        root: where relative paths begin.

    Raises:
        FacemillError: no such detector or option, or a value that it does not take, in one sentence.
    """
    names = detector_names(detector)
    given: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in texts:
        key, equals, value = text.partition("=")
        owner, dot, option = key.partition(".") if len(names) > 1 else (names[0], ".", key)
        if not equals or not dot or not option or owner not in given:
            form = f"DETECTOR.NAME=VALUE with one of {', '.join(names)}" if len(names) > 1 else "NAME=VALUE"
            raise FacemillError(f"{_FLAG}: {text!r} must be {form}")
        if option in given[owner]:
            raise FacemillError(f"{_FLAG}: {key} is given twice")
        given[owner][option] = _typed(options_of(DETECTORS[owner]).get(option, ()), key, value)
    checked = {
        name: checked_options(
            DETECTORS[name], placed_detector_options(name, own, root), whose=name, key="detector options"
        )
        for name, own in given.items()
    }
    return {name: own for name, own in checked.items() if own} if len(names) > 1 else checked[names[0]]


def _typed(kinds: Sequence[type], key: str, text: str) -> Any:
    """The value that a text means: what can only be text or a path is taken as it stands."""
    if kinds and {*kinds} <= {str, Path, NoneType}:
        return None if text == "null" and NoneType in kinds else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise FacemillError(f"{_FLAG}: {key} cannot be {text!r}, which means nothing in params.yaml") from None


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
