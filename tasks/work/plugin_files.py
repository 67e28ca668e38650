"""Options of plug-ins as people give them: typed on a command line, and the files that they name.

`detector_options`, `landmark_options` and `occlusion_options` of params.yaml are those of a builder, or of several by
their names. Which of them are files the builders say (`facemill.options`); what lies in one decides a result as much as
a parameter does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Protocol

import yaml

from facemill.detect import DETECTORS, detector_names
from facemill.errors import FacemillError
from facemill.files import file_sha256, folder_sha256, foreign_stamp
from facemill.landmarks import PREDICTORS
from facemill.options import checked_options, options_of, path_options
from facemill.swap.occlusion.methods import METHODS as OCCLUSION
from facemill.swap.settings import SwapSettings
from tasks.paths import place


class LooksForFaces(Protocol):
    """A group of params.yaml that names a detector and a landmark predictor, each with options."""

    @property
    def detector(self) -> str: ...
    @property
    def detector_options(self) -> dict[str, Any]: ...
    @property
    def landmarks(self) -> str: ...
    @property
    def landmark_options(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class PluginOptions:
    """The options of a group's detector and of its landmark predictor."""

    detector: dict[str, Any]
    landmarks: dict[str, Any]

    def keys(self) -> dict[str, dict[str, Any]]:
        """The options by the keys of a group of params.yaml."""
        return {"detector_options": self.detector, "landmark_options": self.landmarks}


def placed_options(group: LooksForFaces, root: Path) -> PluginOptions:
    """The group's options with every file and folder as an absolute path, so that any process finds it.

    Raises:
        FacemillError: no such plug-in, or a path that cannot be.
    """
    return PluginOptions(*(one.with_paths(_placed_in(root)) for one in _chosen(group)))


def deciding_options(group: LooksForFaces, root: Path) -> PluginOptions:
    """The group's options with the SHA-256 of each file or folder in its path's stead: what decides, on every machine
    alike.

    Raises:
        FacemillError: no such plug-in, or a file that is not there.
    """
    return PluginOptions(*(one.with_paths(lambda path: _sha256(place(path, root))) for one in _chosen(group)))


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
    builders = {name: DETECTORS[name] for name in detector_names(detector)}
    checked = _typed_options("--detector-option", "detector options", builders, texts, root)
    return {name: own for name, own in checked.items() if own} if len(builders) > 1 else checked[detector.strip()]


def typed_predictor_options(predictor: str, texts: Sequence[str], root: Path) -> dict[str, Any]:
    """The same of a landmark predictor, ready for `build_predictor`. Raises as `typed_detector_options`."""
    builders = {predictor: PREDICTORS[predictor]}
    return _typed_options("--predictor-option", "landmark options", builders, texts, root)[predictor]


def _typed_options(
    flag: str, called: str, builders: Mapping[str, Callable[..., Any]], texts: Sequence[str], root: Path
) -> dict[str, dict[str, Any]]:
    """The options of each plug-in by its name; `called`: what messages call them."""
    names = [*builders]
    given: dict[str, dict[str, Any]] = {name: {} for name in names}
    for text in texts:
        key, equals, value = text.partition("=")
        owner, dot, option = key.partition(".") if len(names) > 1 else (names[0], ".", key)
        if not equals or not dot or not option or owner not in given:
            form = f"DETECTOR.NAME=VALUE with one of {', '.join(names)}" if len(names) > 1 else "NAME=VALUE"
            raise FacemillError(f"{flag}: {text!r} must be {form}")
        if option in given[owner]:
            raise FacemillError(f"{flag}: {key} is given twice")
        given[owner][option] = _typed(options_of(builders[owner]).get(option, ()), key, value, flag)
    checked = {}
    for name, own in given.items():
        placed = _Chosen({name: builders[name]}, own).with_paths(_placed_in(root))
        checked[name] = checked_options(builders[name], placed, whose=name, key=called)
    return checked


def _typed(kinds: Sequence[type], key: str, text: str, flag: str) -> Any:
    """The value that a text means: what can only be text or a path is taken as it stands."""
    if kinds and {*kinds} <= {str, Path, NoneType}:
        return None if text == "null" and NoneType in kinds else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise FacemillError(f"{flag}: {key} cannot be {text!r}, which means nothing in params.yaml") from None


def plugin_weights(group: LooksForFaces, root: Path) -> dict[str, str]:
    """SHA-256 of each file or folder by the option that names it: `detector_options.weights`, or of several
    `detector_options.dsfd.weights`.

    Raises:
        FacemillError: as `deciding_options`.
    """
    return {
        f"{key}.{name}": _sha256(place(path, root))
        for key, one in zip(("detector_options", "landmark_options"), _chosen(group), strict=True)
        for name, path in one.paths().items()
    }


def file_stamps(group: LooksForFaces) -> str:
    """How the files that the options name look now, for who keeps what was made of them in a process that lives on:
    another file may lie there when the next run comes. Of options that are placed already; files that are gone are left
    out, for who opens them says so.
    """
    files = [Path(path) for one in _chosen(group) for path in one.paths().values()]
    found = [file for path in files for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return json.dumps([[str(file), *foreign_stamp(file).values()] for file in found if file.is_file()])


def placed_occlusion(convert: SwapSettings, root: Path) -> dict[str, Any]:
    """`convert.occlusion_options` with every file as an absolute path. Raises FacemillError for an unknown method."""
    return _occlusion(convert).with_paths(_placed_in(root))


def deciding_occlusion(convert: SwapSettings, root: Path) -> dict[str, Any]:
    """`convert.occlusion_options` with the SHA-256 of each file in its path's stead.

    Raises:
        FacemillError: no such method, or a file that is not there.
    """
    return _occlusion(convert).with_paths(lambda path: _sha256(place(path, root)))


def occlusion_weights(convert: SwapSettings, root: Path) -> dict[str, str]:
    """SHA-256 of each file by the option that names it, `occlusion_options.weights`. Raises as `deciding_occlusion`."""
    return {
        f"occlusion_options.{name}": _sha256(place(path, root)) for name, path in _occlusion(convert).paths().items()
    }


def _occlusion(convert: SwapSettings) -> _Chosen:
    return _Chosen({convert.occlusion: OCCLUSION[convert.occlusion]}, convert.occlusion_options)


@dataclass(frozen=True)
class _Chosen:
    """A plug-in, or several one after another, with the options that were given."""

    builders: Mapping[str, Callable[..., Any]]
    options: Mapping[str, Any]

    def with_paths(self, of: Callable[[str], str]) -> dict[str, Any]:
        if len(self.builders) > 1:
            return {
                name: _Chosen({name: self.builders[name]}, own).with_paths(of)
                if name in self.builders and isinstance(own, Mapping)
                else own
                for name, own in self.options.items()
            }
        named = self.paths()
        return {name: of(value) if name in named else value for name, value in self.options.items()}

    def paths(self) -> dict[str, str]:
        """The files and folders by the option that names them."""
        if len(self.builders) > 1:
            each = {name: own for name in self.builders if isinstance(own := self.options.get(name), Mapping)}
            found = {name: _Chosen({name: self.builders[name]}, own).paths() for name, own in each.items()}
            return {f"{name}.{option}": path for name, paths in found.items() for option, path in paths.items()}
        (builder,) = self.builders.values()
        return {name: self.options[name] for name in path_options(builder) if isinstance(self.options.get(name), str)}


def _chosen(group: LooksForFaces) -> tuple[_Chosen, _Chosen]:
    """The detector, or several, and the landmark predictor."""
    detectors = {name: DETECTORS[name] for name in detector_names(group.detector)}
    predictor = {group.landmarks: PREDICTORS[group.landmarks]}
    return _Chosen(detectors, group.detector_options), _Chosen(predictor, group.landmark_options)


def _placed_in(root: Path) -> Callable[[str], str]:
    return lambda path: str(place(path, root).resolve())


def _sha256(path: Path) -> str:
    if not path.exists():
        raise FacemillError(f"there is no file or folder {path}; correct the path")
    return folder_sha256(path) if path.is_dir() else file_sha256(path)
