"""Classes of settings as options of a command line: what an option is called, says and takes, and the value it means.

    parser = argparse.ArgumentParser()
    for option in options(Blur):
        parser.add_argument(option.flag, metavar=option.metavar, help=option.help)
    blur = from_options(Blur, vars(parser.parse_args()))

Options are texts until `from_options` reads them, whatever library took them from the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from facemill.errors import FacemillError
from facemill.settings import WORDS, Limits, Settings, SettingsError, descriptions, hints

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Option:
    """A field of settings.

    Attributes:
        name: of the field.
        help: the text below the field, with its limits and its default.
        metavar: what stands for its value in a usage line.
    """

    name: str
    help: str
    metavar: str

    @property
    def flag(self) -> str:
        """The option as a person types it, such as `--batch-size` for the field `batch_size`."""
        return "--" + self.name.replace("_", "-")

    @property
    def takes_path(self) -> bool:
        """Whether a file or folder can be its value."""
        return _METAVARS[Path] in self.metavar.split("|")


def options(settings: type[Settings]) -> list[Option]:
    """One for each field, in their order."""
    texts, known = descriptions(settings), hints(settings)
    found = []
    for field in fields(settings):  # type: ignore[arg-type]  # mypy does not see the dataclass
        hint = known[field.name]
        more = [f"({limits})" for limits in _limits(hint) if str(limits)]
        if field.default is not None and field.default is not MISSING:
            more.append(f"(default: {_typed(field.default)})")
        found.append(Option(field.name, " ".join([texts.get(field.name, ""), *more]).strip(), _metavar(hint)))
    return found


def from_options(settings: type[S], given: Mapping[str, str | None]) -> S:
    """Settings from what was typed.

    Args:
        given: by the fields' names; what is missing or None is as the class has it.

    Raises:
        FacemillError: what is wrong, each value under its flag.
    """
    values, problems = {}, {}
    for name, hint in hints(settings).items():
        if (text := given.get(name)) is not None:
            try:
                values[name] = _parsed(hint, text)
            except ValueError as error:
                problems[name] = str(error)
    try:
        made = settings(**values)
    except SettingsError as error:
        problems |= error.problems
    if problems:
        flags = {one.name: one.flag for one in options(settings)}
        raise FacemillError("; ".join(f"{flags.get(name, name)} {problem}" for name, problem in problems.items()))
    return made


def _parsed(hint: Any, text: str) -> Any:
    """The value of that type that a text means. Raises ValueError: how it should look, as the end of a sentence.

    Parts of a tuple are separated by commas, those of a tuple in it by colons; settings are NAME=VALUE,….
    """
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _parsed(parts[0], text)
    if origin in (Union, UnionType):
        words = [part for part in parts if get_origin(part) is Literal and text in get_args(part)]
        return _parsed((words or [part for part in parts if part is not NoneType])[0], text)
    if origin is tuple:
        inner = get_args(parts[0]) if get_origin(parts[0]) is tuple else None
        if inner is None:
            return tuple(_parsed(parts[0], piece) for piece in text.split(","))
        rows = [row.split(":") for row in text.split(",")]
        if any(len(row) != len(inner) for row in rows):
            raise ValueError(f"must be {_metavar(hint)}, got {text!r}")
        return tuple(tuple(map(_parsed, inner, row)) for row in rows)
    if _is_settings(hint):
        return _parsed_settings(hint, text)
    if hint is Path:
        try:  # `~` is a home folder also where no shell has seen to it, as in `--start=~/dsfd`
            return Path(text).expanduser()
        except RuntimeError as error:
            raise ValueError(f"names a home folder that this machine does not know: {text}") from error
    if hint is bool and text in ("true", "false"):
        return text == "true"
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(f"must be {WORDS[hint]}, got {text!r}") from None
    return text


def _parsed_settings(settings: type[Settings], text: str) -> Settings:
    known = {name: hint for name, hint in hints(settings).items() if "," not in _metavar(hint)}
    changes: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise ValueError(f"must be NAME=VALUE,… with {', '.join(known)}, got {part!r}")
        changes[name] = _parsed(known[name], value)
    changed: Settings = replace(settings(), **changes)  # type: ignore[type-var]  # mypy does not see the dataclass
    return changed


_METAVARS = {int: "INTEGER", float: "NUMBER", bool: "true|false", Path: "PATH"}


def _metavar(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _metavar(parts[0])
    if origin in (Union, UnionType):
        return "|".join(_metavar(part) for part in parts if part is not NoneType)
    if origin is Literal:
        return "|".join(map(str, parts))
    if origin is tuple:
        return ":".join(map(_metavar, get_args(parts[0]) or parts[:1])) + ",…"
    return "NAME=VALUE,…" if _is_settings(hint) else _METAVARS.get(hint, "TEXT")


def _is_settings(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Settings)


def _limits(hint: Any) -> list[Limits]:
    """Those of a number or a text, and of each in a union."""
    if get_origin(hint) is Annotated:
        return [one for one in get_args(hint)[1:] if isinstance(one, Limits)]
    return [one for part in get_args(hint) for one in _limits(part)] if get_origin(hint) in (Union, UnionType) else []


def _typed(value: Any) -> str:
    """A default as it would be typed."""
    if isinstance(value, tuple):
        return ",".join(":".join(map(_typed, part)) if isinstance(part, tuple) else _typed(part) for part in value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
