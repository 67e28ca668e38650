"""Reads params.yaml as DVC reads it, and says what is wrong with it in one line with its place.

The file is DVC's too: what this reads must be what DVC compares and writes into dvc.lock. So the values come from the
very call that DVC makes (ruamel.yaml's safe loader: YAML 1.2, where `on` is a word and `1e3` a number, and a key that
stands twice is an error). What that call takes but nobody can mean is looked for before and after it: a file that it
would crash on (deep nesting ends the process), anchors that multiply, values that are no JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.nodes import ScalarNode

from facemill.errors import FacemillError

PARAMS_FILE = "params.yaml"
MAX_BYTES = 4_000_000
MAX_DEPTH = 32
MAX_VALUES = 200_000
"""Keys and values once every alias is written out."""
MAX_NUMBER = 2**53
"""Beyond it whole numbers are no longer exact, and no parameter has a use for them."""
IGNORED_BY_DVC = ("size", "nfiles")
"""Its run cache leaves keys of these names out when it compares parameters (treeverse/dvc #10296)."""
_TAG = "tag:yaml.org,2002:"


def no_project(root: Path, lacking: str) -> FacemillError:
    """The error for a folder that is not a project's, since it lacks something; it names the project above it."""
    folder = root.absolute()
    above = (each for each in folder.parents if (each / PARAMS_FILE).is_file() and (each / ".dvc").is_dir())
    if (project := next(above, None)) and not (folder / PARAMS_FILE).exists():
        return FacemillError(
            f"{folder} lies inside the project {project}: run this there, or name it with --root {project}"
        )
    remedy = "run this in the project's folder, or name it with --root"
    if lacking == ".dvc" and (folder / PARAMS_FILE).exists():
        remedy = "run `dvc init` there once"
    return FacemillError(f"no {lacking} in {folder}: {remedy}")


def read_params_file(root: Path) -> dict[str, Any]:
    """The groups of `params.yaml` in the project's folder, as plain values: what JSON can hold.

    Raises:
        FacemillError: missing, unreadable, or as `parse_params_text` says.
    """
    path = root / PARAMS_FILE
    try:
        if not path.is_file():
            raise FacemillError(f"{path} is not a file") if path.exists() else no_project(root, PARAMS_FILE)
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise FacemillError(f"{path} cannot be read: {error.strerror}") from error
    return parse_params_text(data, str(path))


def parse_params_text(data: bytes, name: str = PARAMS_FILE) -> dict[str, Any]:
    """The same from bytes; `name` is what messages call the file.

    Raises:
        FacemillError: not UTF-8, not YAML, or nothing that parameters can be (a list, several documents, dates, keys
            that stand twice or are no text, numbers that are none, …); the message names the line or the key.
    """
    if len(data) > MAX_BYTES:
        raise FacemillError(f"{name} is larger than {MAX_BYTES} bytes: parameters are not that long")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FacemillError(
            f"{name} line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save it as UTF-8"
        ) from error
    try:
        _check_events(text, name)
        values = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" line {mark.line + 1}" if mark else ""
        problem = str(error.problem or error.context).partition(" with value ")[0]  # of a key that stands twice
        raise FacemillError(f"{name}{place} is not YAML: {problem}") from error
    except YAMLError as error:
        raise FacemillError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        what = "is empty" if values is None else f"holds a {type(values).__name__}"
        raise FacemillError(f"{name} {what}: it must hold groups such as `identities:` and `train:`")
    check_plain(values, name)
    return values


@dataclass
class _Part:
    """A list or mapping of the text, or what an anchor names. `values`: within it, aliases written out."""

    anchor: str | None = None
    values: int = 1
    depth: int = 0
    """How many lists and mappings lie in each other, itself included."""

    def add(self, part: _Part) -> None:
        self.values += part.values
        self.depth = max(self.depth, part.depth + 1)


def _check_events(text: str, name: str) -> None:
    """Refuses what the loader would crash on, blow up at, or make a date of. Takes time in proportion to the text."""
    yaml = YAML(typ="safe")
    documents = 0
    known: dict[str, _Part] = {}  # by anchor, once it is complete
    opened = [_Part()]  # from the document down to where the reader is
    event: Event
    for event in yaml.parse(text):
        where = f"{name} line {event.start_mark.line + 1}"
        done: _Part | None = None
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise FacemillError(f"{where}: a second document begins here; write all groups into one")
        elif isinstance(event, AliasEvent):
            if event.anchor not in known:
                raise FacemillError(f"{where}: *{event.anchor} stands for nothing that is complete before this line")
            done = replace(known[event.anchor], anchor=None)
        elif isinstance(event, NodeEvent) and (tag := getattr(event, "tag", None)) is not None:
            raise FacemillError(f"{where}: the tag {tag} has no meaning here; write the value without it")
        elif isinstance(event, ScalarEvent):
            _check_scalar(yaml, event, where)
            done = _Part(event.anchor)
        elif isinstance(event, CollectionStartEvent):
            opened.append(_Part(event.anchor, depth=1))
            known.pop(event.anchor, None)  # its name is given anew
        elif isinstance(event, CollectionEndEvent):
            done = opened.pop()
        if done is not None:
            opened[-1].add(done)
            if done.anchor is not None:
                known[done.anchor] = done
        if len(opened) + (0 if done is None else done.depth) > MAX_DEPTH + 1:
            raise FacemillError(f"{where}: lists and groups lie in each other more than {MAX_DEPTH} deep")
        if sum(part.values for part in opened) > MAX_VALUES:
            raise FacemillError(f"{where}: more than {MAX_VALUES} values, those that aliases repeat included")


def _check_scalar(yaml: Any, event: ScalarEvent, where: str) -> None:
    """Numbers that cannot be read, and dates, which parameters have no use for and dvc.lock no place."""
    tag = str(yaml.resolver.resolve(ScalarNode, event.value, event.implicit))
    shown = event.value if len(event.value) <= 40 else f"{event.value[:37]}…"
    if tag == f"{_TAG}timestamp":
        raise FacemillError(f'{where}: {shown} would be read as a date; put it in quotes: "{shown}"')
    if tag in (f"{_TAG}int", f"{_TAG}float"):
        try:
            yaml.constructor.construct_object(ScalarNode(tag, event.value))
        except ValueError as error:
            raise FacemillError(f"{where}: {shown} cannot be read as a number; put text in quotes") from error


def check_plain(value: Any, name: str, key: str = "") -> None:
    """Whether a value and all below it are what parameters can be: JSON, with finite numbers and whole characters.

    Args:
        value: what was read; its depth is bounded where it comes from a file.
        name: of the file.
        key: where the value stands in it.

    Raises:
        FacemillError: what is not, with its key.
    """
    where = f"{name}: {key}" if key else name
    if isinstance(value, dict):
        for inner, part in value.items():
            if not isinstance(inner, str):
                raise FacemillError(f"{where}: the key {inner!r} is no text; put it in quotes")
            check_plain(inner, name, key)
            if inner in IGNORED_BY_DVC and not key.startswith("cluster"):
                raise FacemillError(f"{where}: a key must not be called {inner!r}: DVC would not see when it changes")
            check_plain(part, name, f"{key}.{inner}" if key else inner)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            check_plain(part, name, f"{key}.{number}")
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise FacemillError(f"{where}: a character that no text can hold, NUL or half of a pair")
    elif isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # NaN is in no order
        raise FacemillError(f"{where}: {'no number' if value != value else f'a number beyond ±{MAX_NUMBER}'}")
