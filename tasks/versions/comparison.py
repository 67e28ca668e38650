"""What differs between two dataset versions: each face with its states, their numbers, and parameters.

Both tables are read where they lie (`tasks.versions.version_table`); crops are not read. `tasks.versions.sheet` shows
the faces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from facemill import schema, tables
from facemill.files import write_json
from tasks.params_file import PARAMS_FILE, parse_params_text
from tasks.versions import git
from tasks.versions.store import Version, list_versions, named
from tasks.versions.version_table import of_each_part
from tasks.work.terminal import say, say_table

Kind = Literal["A", "D", "M"]
SHOWN = 20
"""So many rows are printed unless another number is asked for."""
_ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """A face that only one version has, or that has another state in the second."""

    kind: Kind
    """Added, deleted or modified."""
    id: str
    """Of the face; of the picture where no face was found in it."""
    identity: str
    source: str
    url: str
    before: str
    """Its state in the first version; empty where it is not in it."""
    after: str


@dataclass(frozen=True)
class Comparison:
    """What differs between two versions. States read `ok, train` or `rejected, blurred`."""

    first: Version
    second: Version
    differences: list[Difference]
    """By kind (A, D, M), identity and id."""
    parameters: dict[str, tuple[Any, Any]]
    """Dotted path of each parameter that differs: value before, value after."""

    @property
    def is_empty(self) -> bool:
        return not (self.differences or self.parameters)

    @property
    def added(self) -> Counter[tuple[str, str]]:
        """Rows of the second version that the first does not have, by (identity, state)."""
        return Counter((one.identity, one.after) for one in self.differences if one.kind == "A")

    @property
    def removed(self) -> Counter[tuple[str, str]]:
        """Rows of the first version that the second does not have, by (identity, state)."""
        return Counter((one.identity, one.before) for one in self.differences if one.kind == "D")

    @property
    def changed(self) -> Counter[tuple[str, str, str]]:
        """Rows of both with another state, by (identity, state before, state after)."""
        return Counter((one.identity, one.before, one.after) for one in self.differences if one.kind == "M")


def compare_versions(root: Path, first: str, second: str) -> Comparison:
    """What differs between two versions: rows with their states, and parameters.

    Raises:
        FacemillError: no such version, or its data lies neither in DVC's cache nor in its remote.
    """
    versions = list_versions(root)
    a, b = named(versions, first), named(versions, second)
    rows_a, rows_b = _rows(root, a), _rows(root, b)
    return Comparison(
        a,
        b,
        differences=_differences(rows_a, rows_b),
        parameters=_different(_parameters(root, a), _parameters(root, b)),
    )


def print_comparison(comparison: Comparison, *, limit: int = SHOWN) -> None:
    """Tables of what differs; a line if nothing does.

    Args:
        limit: so many rows are listed one by one; of the rest the number is said.
    """
    names = comparison.first.name, comparison.second.name
    if comparison.is_empty:
        say(f"{names[0]} and {names[1]} hold the same faces and have the same parameters.")
        return
    faces = [
        *((identity, state, "", count) for (identity, state), count in sorted(comparison.removed.items())),
        *((identity, "", state, count) for (identity, state), count in sorted(comparison.added.items())),
        *((identity, old, new, count) for (identity, old, new), count in sorted(comparison.changed.items())),
    ]
    if faces:
        say_table(("identity", *names, "faces"), faces, "Faces")
        _print_differences(comparison.differences, names, limit)
    else:
        say(f"{names[0]} and {names[1]} hold the same faces in the same states.")
    parameters = [(path, old, new) for path, (old, new) in sorted(comparison.parameters.items())]
    if parameters:
        say_table(("parameter", *names), parameters, "Parameters")
    else:
        say(f"{names[0]} and {names[1]} have the same parameters.")


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Everything that differs as JSON, every row of it.

    Raises:
        FacemillError: the file cannot be written.
    """
    value = {
        "first": comparison.first.name,
        "second": comparison.second.name,
        "rows": [asdict(one) for one in comparison.differences],
        "parameters": {path: [old, new] for path, (old, new) in comparison.parameters.items()},
    }
    write_json(path, value)


def _print_differences(differences: list[Difference], names: tuple[str, str], limit: int) -> None:
    if shown := differences[:limit]:
        rows = [(one.kind, one.id, one.identity, one.source, one.url, one.before, one.after) for one in shown]
        columns = ("", "id", "identity", "source", "url", *names)
        say_table(columns, rows, "Rows: A added, D deleted, M modified")
    if rest := len(differences) - len(shown):
        say(f"{rest} more {'row differs' if rest == 1 else 'rows differ'}.")


@dataclass(frozen=True)
class _Found:
    """What of a row is compared and said."""

    state: str
    source: str
    url: str


_Rows = dict[tuple[str, str], _Found]  # by id and identity


def _differences(before: _Rows, after: _Rows) -> list[Difference]:
    found = []
    for key in before.keys() | after.keys():
        a, b = before.get(key), after.get(key)
        known = b or a
        if known is None or (a and b and a.state == b.state):
            continue
        kind: Kind = "M" if a and b else "A" if b else "D"
        states = a.state if a else "", b.state if b else ""
        found.append(Difference(kind, key[0], key[1], known.source, known.url, *states))
    return sorted(found, key=lambda one: (one.kind, one.identity, one.id))


def _rows(root: Path, version: Version) -> _Rows:
    columns = ["face_id", "sample_id", "identity", "source", "url", "split", "status", "error"]
    rows = {}
    for row in _dataset_rows(root, version, columns):
        state = ", ".join(part for part in (row["status"], row["split"], row["error"]) if part)
        key = row["face_id"] or row["sample_id"] or "", row["identity"] or ""
        rows[key] = _Found(state, row["source"] or "", row["url"] or "")
    return rows


def _dataset_rows(root: Path, version: Version, columns: list[str]) -> Iterator[schema.DatasetRow]:
    """Columns of the version's table; crops are not read unless they are named."""
    for table in of_each_part(root, version, lambda part: part.read(columns)):
        yield from tables.to_rows(table, schema.DATASET)


def _parameters(root: Path, version: Version) -> dict[str, Any]:
    data = git.show(root, version.tag, PARAMS_FILE)
    return {} if data is None else dict(_flat(parse_params_text(data, f"{PARAMS_FILE} of {version.name}"), ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield path, value
        return
    for key, inner in items:
        yield from _flat(inner, f"{path}.{key}" if path else str(key))


def _different(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    pairs = {path: (a.get(path, _ABSENT), b.get(path, _ABSENT)) for path in a.keys() | b.keys()}
    return {path: pair for path, pair in sorted(pairs.items()) if pair[0] != pair[1]}
