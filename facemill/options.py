"""The keywords of a plug-in's builder, as people give them: named by the builder's signature, checked before it runs.

    @register("hog")
    def build(min_face_px: int, device: str = "cpu", *, upsample: int = 0, threshold: float = 0.0) -> Detector: ...

Its keyword-only parameters are its options: their names, types and defaults stand there and nowhere else. An option of
type `Path` names a file or folder.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from facemill.errors import FacemillError
from facemill.settings import WORDS


def options_of(builder: Callable[..., Any]) -> dict[str, tuple[type, ...]]:
    """Name of each option → the types that it may have."""
    hints = get_type_hints(builder)
    named = [
        parameter.name
        for parameter in inspect.signature(builder).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    return {name: _kinds(hints.get(name, object)) for name in named}


def path_options(builder: Callable[..., Any]) -> list[str]:
    """The options that name a file or folder."""
    return [name for name, kinds in options_of(builder).items() if Path in kinds]


def checked_options(builder: Callable[..., Any], options: Mapping[str, Any], *, whose: str, key: str) -> dict[str, Any]:
    """The options as the builder takes them: those that name a file are paths.

    Args:
        builder: of the plug-in.
        options: as they were given, plain values; text can be a path.
        whose: name of the plug-in, for messages.
        key: where options are given, for messages, such as `train.options`.

    Raises:
        FacemillError: an option that it does not have, or a value of another type; the message names what there is.
    """
    known = options_of(builder)
    if unknown := sorted(set(options) - set(known)):
        raise FacemillError(
            f"{key}: {whose} has no option {', '.join(unknown)}; there are {', '.join(known) or 'none'}"
        )
    for name, value in options.items():
        if not any(_fits(value, kind) for kind in known[name]):
            named = " or ".join(_NAMES.get(kind, kind.__name__) for kind in known[name])
            raise FacemillError(f"{key}.{name} of {whose} must be {named}, got {value!r}")
    return {
        name: Path(value) if isinstance(value, str) and Path in known[name] else value
        for name, value in options.items()
    }


_NAMES = {**WORDS, list: "a list"}


def _kinds(hint: Any) -> tuple[type, ...]:
    """The types that a hint allows; every sequence is a list."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(list if get_origin(part) is Sequence else part for part in parts)


def _fits(value: Any, kind: type) -> bool:
    if kind is Path:
        return isinstance(value, str | Path)
    if kind is list:
        return isinstance(value, list | tuple)
    if isinstance(value, bool):
        return kind in (bool, object)
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)  # 2 is as good as 2.0
