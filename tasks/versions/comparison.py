"""What differs between two dataset versions: faces by identity, split and reason, and parameters.

Both tables are read where they lie, in DVC's cache or remote; nothing is checked out and crops are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemill import schema, tables
from facemill.errors import FacemillError
from tasks.catalogue import Data
from tasks.params_file import PARAMS_FILE, parse_params_text
from tasks.versions import git
from tasks.versions.store import Version, list_versions, named
from tasks.work.terminal import say, say_table

_ABSENT = "(absent)"


@dataclass(frozen=True)
class Comparison:
    """What differs between two versions. States read `ok, train` or `rejected, blurred`."""

    first: Version
    second: Version
    added: Counter[tuple[str, str]]
    """Rows of the second version that the first does not have, by (identity, state)."""
    removed: Counter[tuple[str, str]]
    changed: Counter[tuple[str, str, str]]
    """Rows of both with another state, by (identity, state before, state after)."""
    parameters: dict[str, tuple[Any, Any]]
    """Dotted path of each parameter that differs: value before, value after."""

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed or self.parameters)


def compare_versions(root: Path, first: str, second: str) -> Comparison:
    """What differs between two versions: rows by identity, split and reason, and parameters.

    Raises:
        FacemillError: no such version, or its data lies neither in DVC's cache nor in its remote.
    """
    versions = list_versions(root)
    a, b = named(versions, first), named(versions, second)
    rows_a, rows_b = _rows(root, a), _rows(root, b)
    return Comparison(
        a,
        b,
        added=Counter(rows_b[key] for key in rows_b.keys() - rows_a.keys()),
        removed=Counter(rows_a[key] for key in rows_a.keys() - rows_b.keys()),
        changed=Counter(
            (rows_a[key][0], rows_a[key][1], rows_b[key][1])
            for key in rows_a.keys() & rows_b.keys()
            if rows_a[key] != rows_b[key]
        ),
        parameters=_different(_parameters(root, a), _parameters(root, b)),
    )


def print_comparison(comparison: Comparison) -> None:
    """Tables of what differs; a line if nothing does."""
    names = comparison.first.name, comparison.second.name
    if comparison.is_empty:
        say(f"{names[0]} and {names[1]} hold the same faces and parameters")
        return
    faces = [
        *((identity, state, "", count) for (identity, state), count in sorted(comparison.removed.items())),
        *((identity, "", state, count) for (identity, state), count in sorted(comparison.added.items())),
        *((identity, old, new, count) for (identity, old, new), count in sorted(comparison.changed.items())),
    ]
    if faces:
        say_table(("identity", *names, "faces"), faces, "Faces")
    else:
        say("the same faces in the same states")
    parameters = [(path, old, new) for path, (old, new) in sorted(comparison.parameters.items())]
    if parameters:
        say_table(("parameter", *names), parameters, "Parameters")
    else:
        say("the same parameters")


def _rows(root: Path, version: Version) -> dict[tuple[Any, ...], tuple[str, str]]:
    """Key of each row → (identity, state in words)."""
    columns = ["face_id", "sample_id", "identity", "split", "status", "error"]
    rows = {}
    for row in _dataset_rows(root, version, columns):
        state = ", ".join(part for part in (row["status"], row["split"], row["error"]) if part)
        rows[row["face_id"] or row["sample_id"], row["identity"]] = (row["identity"], state)
    return rows


def _dataset_rows(root: Path, version: Version, columns: list[str]) -> Iterator[schema.DatasetRow]:
    """The version's table straight from DVC's cache or remote; crops are not read."""
    import pyarrow.parquet as pq
    from dvc.api import DVCFileSystem
    from dvc_data.index.index import DataIndexDirError

    try:
        files = DVCFileSystem(str(root), rev=version.tag)
        for path in sorted(files.glob(f"{Data.DATASET}/*.parquet")):
            with files.open(path, "rb") as stream, pq.ParquetFile(stream) as part:
                found = schema.name_of(part.schema_arrow), schema.version_of(part.schema_arrow)
                if found != (schema.DATASET.name, schema.DATASET.version):
                    raise FacemillError(f"version {version.name}: {path} holds table {found[0]} version {found[1]}")
                yield from tables.to_rows(part.read(columns), schema.DATASET)
    except (OSError, DataIndexDirError) as error:
        raise FacemillError(
            f"the data of version {version.name} is neither in DVC's cache nor in its remote: "
            f"try `dvc fetch --all-tags` ({error})"
        ) from error


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
