"""Reading and writing the Parquet folders that the stages exchange.

The same rows give the same bytes: no timestamps, fixed compression and row groups. Picture columns are stored as they
are (JPEG does not compress further), everything else as zstd; each page has a checksum.

A published table has a hidden manifest of its parts, so that one that is missing or was cut off is noticed. The folder
is replaced as a whole, and who reads it meanwhile gets all of one state or an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from facemill import schema as schemas
from facemill.errors import FacemillError
from facemill.files import atomic_folder, atomic_path, publish_folder, put_back, read_json, write_json
from facemill.schema import Row, TableSchema

ROW_GROUP_ROWS = 256  # pictures: 2–25 MB a group, so that one row is read in milliseconds
SPLIT = ("points.list.element",)
"""Columns of numbers of which no two are the same: their bytes are stored by their place in the number, which zstd
packs better than a dictionary of them."""
MANIFEST = ".manifest.json"
_READS = 5  # of a table that is replaced while it is read


def write_part(path: Path, table: pa.Table, *, durable: bool = True) -> None:
    """Writes one part of a table atomically; `durable` as `facemill.files.atomic_path` has it. The table must carry a
    facemill schema.
    """
    write_chunks(path, table.schema, [table], durable=durable)


def write_chunks(path: Path, schema: pa.Schema, chunks: Iterable[pa.Table], *, durable: bool = True) -> None:
    """`write_part` of a table that is longer than memory: chunk after chunk, each in row groups of its own."""
    leaves = _leaf_paths(schema)
    split = [leaf for leaf in leaves if leaf in SPLIT]
    with (
        atomic_path(path, durable=durable) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression={leaf: _codec(leaf) for leaf in leaves},
            use_dictionary=[leaf for leaf in leaves if not leaf.endswith(".bytes") and leaf not in SPLIT],
            column_encoding=dict.fromkeys(split, "BYTE_STREAM_SPLIT") or None,
            write_page_checksum=True,
        ) as writer,
    ):
        for chunk in chunks:
            writer.write_table(chunk, row_group_size=ROW_GROUP_ROWS)


def write_table(folder: Path, parts: Iterable[pa.Table]) -> None:
    """Makes a folder hold exactly these parts, in one step (`facemill.files.atomic_folder`)."""
    with atomic_folder(folder) as temporary:
        for number, part in enumerate(parts):
            write_part(temporary / f"{number:05d}.parquet", part)
        write_json(temporary / MANIFEST, _manifest({path.name: path for path in _listed(temporary)}))


def publish_table(folder: Path, parts: Mapping[str, Path]) -> None:
    """Makes a folder hold exactly these finished parts, by name, in one step (`facemill.files.publish_folder`).

    Raises:
        FacemillError: a part is not Parquet, the disk is full.
    """
    publish_folder(folder, {**parts, MANIFEST: json.dumps(_manifest(parts), indent=1).encode()})


def from_rows(rows: Sequence[Row], schema: TableSchema[Row]) -> pa.Table:
    """A table of the schema from its rows; a missing key is null.

    Raises:
        ValueError: a key that the schema does not have.
    """
    schema.check({name for row in rows for name in row})
    columns = {name: [row.get(name) for row in rows] for name in schema.columns}
    return pa.Table.from_pydict(columns, schema=schema.arrow)


def to_rows(table: pa.Table, schema: TableSchema[Row]) -> list[Row]:
    """The rows of a table of that schema, or of some of its columns; the opposite of `from_rows`.

    Raises:
        ValueError: a column that the schema does not have.
    """
    schema.check(table.column_names)
    rows: list[Row] = table.to_pylist()
    return rows


def parts(folder: Path) -> list[Path]:
    """The parts of a table in their order.

    Raises:
        FacemillError: no such table, or its manifest says that a part is missing, was cut off or does not belong there.
    """
    if not folder.is_dir():
        put_back(folder)
    if not folder.is_dir():
        raise FacemillError(
            f"table {folder.name} is missing: {folder} does not exist; run its stage first, or `dvc checkout {folder}`"
        )
    found = _listed(folder)
    if (folder / MANIFEST).exists():  # else a folder that somebody put together
        _check_parts(folder, {path.name: path.stat().st_size for path in found})
    return found


def checked_parts(folder: Path, schema: TableSchema[Any]) -> list[Path]:
    """The parts of a table in their order, each checked against the schema. Raises FacemillError as `read_table`."""
    found = parts(folder)
    for path in found:
        check_part(path, schema)
    return found


def count_part(path: Path) -> int:
    """Rows of a part, from its footer alone."""
    return int(pq.read_metadata(path).num_rows)


def read_table(folder: Path, schema: TableSchema[Any], columns: Sequence[str] | None = None) -> pa.Table:
    """Reads all parts of a table, or some of their columns, checked against the schema's name and version.

    Raises:
        FacemillError: no such folder, a part that is not Parquet, or a part of another table or version.
        ValueError: a column that the schema does not have.
    """
    schema.check(columns or ())
    for _ in range(_READS):
        with suppress(_Replaced), _in_one_state(folder) as check:
            loaded = [read_part(path, schema, columns) for path in parts(folder)]
            check()
            return pa.concat_tables(loaded) if loaded else empty(schema, columns)
    raise _Replaced(folder)


def read_part(path: Path, schema: TableSchema[Any], columns: Sequence[str] | None = None) -> pa.Table:
    """Reads one part of a table, checked as `read_table` checks all of them."""
    schema.check(columns or ())
    # Opened once, and read by this thread alone: of small parts, handing columns to others costs more than reading.
    with _reading(path), _opened(path, schema) as file:
        wanted = schema.columns if columns is None else list(columns)
        return file.read(wanted, use_threads=False).select(wanted)


def part_rows(path: Path, schema: TableSchema[Row], columns: Sequence[str] | None = None) -> list[Row]:
    """The rows of one part, or some of their columns, checked as `read_table` checks all of them."""
    return to_rows(read_part(path, schema, columns), schema)


def empty(schema: TableSchema[Any], columns: Sequence[str] | None = None) -> pa.Table:
    """A table without rows that has all columns of the schema, or those that are named."""
    table = schema.arrow.empty_table()
    return table if columns is None else table.select(list(columns))


def iterate_rows(folder: Path, schema: TableSchema[Row], columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a table one after another, with a row group in memory at a time. Raises as `read_table`."""
    schema.check(columns or ())
    with _in_one_state(folder) as check:
        for path in parts(folder):
            with _reading(path), _opened(path, schema) as file:
                check()  # what is open stays what it is
                for batch in file.iter_batches(ROW_GROUP_ROWS, columns=list(columns) if columns is not None else None):
                    yield from batch.to_pylist()


def iterate_parts(folder: Path, schema: TableSchema[Any], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The parts of a table one after another, with one in memory at a time. Raises as `read_table`."""
    with _in_one_state(folder) as check:
        for path in parts(folder):
            part = read_part(path, schema, columns)
            check()
            yield part


def matrix(table: pa.Table, column: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A fixed-size-list column as one array N×shape; the column may hold no nulls."""
    flat: npt.NDArray[Any] = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), *shape)


def count_states(rows: Iterable[tuple[str, str | None]]) -> dict[str, dict[str, int]]:
    """Counts (status, reason) pairs as `{status: {reason or "": n}}`."""
    counts: dict[str, dict[str, int]] = {}
    for status, reason in rows:
        by_reason = counts.setdefault(status, {})
        by_reason[reason or ""] = by_reason.get(reason or "", 0) + 1
    return counts


def as_float32(values: npt.ArrayLike) -> list[float]:
    """A flat list of float32 values for a fixed-size-list column."""
    return np.asarray(values, np.float32).ravel().tolist()


def _listed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def _manifest(parts: Mapping[str, Path]) -> dict[str, Any]:
    found = {}
    for name, path in sorted(parts.items()):
        with _reading(path):
            found[name] = {"rows": pq.read_metadata(path).num_rows, "bytes": path.stat().st_size}
    return {"parts": found}


def _check_parts(folder: Path, found: Mapping[str, int]) -> None:
    """Holds the parts (name → bytes) to the manifest; the first that differs is named."""
    try:
        expected = {name: int(part["bytes"]) for name, part in read_json(folder / MANIFEST)["parts"].items()}
    except (FacemillError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise FacemillError(f"{folder / MANIFEST} is no list of parts: {_remedy(folder)}") from error
    for name in sorted({*expected, *found}):
        if name not in found:
            raise FacemillError(f"{folder / name} is missing, one of {len(expected)} parts: {_remedy(folder)}")
        if name not in expected:
            raise FacemillError(f"{folder / name} is no part of this table: take it away, or {_remedy(folder)}")
        if found[name] != expected[name]:
            raise FacemillError(
                f"{folder / name} has {found[name]} bytes, it was written with {expected[name]}: {_remedy(folder)}"
            )


def check_part(path: Path, schema: TableSchema[Any]) -> None:
    """Raises FacemillError as `read_table` where a part is not one of that table."""
    with _reading(path), _opened(path, schema):
        pass


@contextmanager
def _opened(path: Path, schema: TableSchema[Any]) -> Iterator[pq.ParquetFile]:
    """A part that is open for reading, once it has shown itself to be one of that table."""
    if not path.stat().st_size:
        raise FacemillError(f"{path} is empty: {_remedy(path.parent)}")
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        found = file.schema_arrow
        if (schemas.name_of(found), schemas.version_of(found)) != (schema.name, schema.version):
            raise FacemillError(
                f"{path} holds table {schemas.name_of(found)} version {schemas.version_of(found)}, "
                f"expected {schema.name} version {schema.version}: {_remedy(path.parent)}"
            )
        if not found.equals(schema.arrow):
            raise FacemillError(f"{path} has other columns than table {schema.name}: {_remedy(path.parent)}")
        yield file


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        said = " ".join(str(error).split())
        raise FacemillError(f"{path} is not a readable Parquet file ({said}): {_remedy(path.parent)}") from error


def _remedy(folder: Path) -> str:
    return f"bring the table back with `dvc checkout {folder}`, or run the stage that makes it again"


class _Replaced(FacemillError):
    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} was replaced while it was read: run the same command again")


@contextmanager
def _in_one_state(folder: Path) -> Iterator[Callable[[], None]]:
    """Yields a check that raises `_Replaced` if the folder has been replaced since; errors in the block become it."""

    def state() -> tuple[int, int, int] | None:
        with suppress(OSError):
            status = folder.stat()
            return status.st_dev, status.st_ino, status.st_mtime_ns  # numbers are given again, and soon
        return None

    def check() -> None:
        if state() != before:
            raise _Replaced(folder)

    before = state()
    try:
        yield check
    except (FacemillError, OSError):
        check()
        raise


def _codec(leaf: str) -> str:
    return "NONE" if leaf in ("image.bytes", "crop.bytes") else "ZSTD"


def _leaf_paths(schema: pa.Schema) -> list[str]:
    """Parquet's names of the physical columns: structs as `image.bytes`, lists as `box.list.element`."""
    return [path for field in schema for path in _leaves(field.name, field.type)]


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_struct(kind):
        return [leaf for child in kind for leaf in _leaves(f"{path}.{child.name}", child.type)]
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    return [path]
