"""Reading and writing the Parquet folders that the stages exchange.

The same rows give the same bytes: no timestamps, fixed compression and row groups. Picture columns are stored as they
are (JPEG does not compress further), everything else as zstd.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from facemill import schema as schemas
from facemill.errors import FacemillError
from facemill.files import atomic_path, put_back
from facemill.schema import Row, TableSchema

ROW_GROUP_ROWS = 256  # pictures: 2–25 MB a group, so that one row is read in milliseconds


def write_part(path: Path, table: pa.Table) -> None:
    """Writes one part of a table atomically. The table must carry a facemill schema."""
    leaves = _leaf_paths(table.schema)
    with atomic_path(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression={leaf: _codec(leaf) for leaf in leaves},
            use_dictionary=[leaf for leaf in leaves if not leaf.endswith(".bytes")],
            row_group_size=ROW_GROUP_ROWS,
        )


def from_rows(rows: Sequence[Row], schema: TableSchema[Row]) -> pa.Table:
    """A table of the schema from its rows; a missing key is null.

    Raises:
        ValueError: a key that the schema does not have.
    """
    for row in rows:
        schema.check(row)
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
    """The parts of a table in their order."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def read_table(folder: Path, schema: TableSchema[Any], columns: Sequence[str] | None = None) -> pa.Table:
    """Reads all parts of a table, or some of their columns, checked against the schema's name and version.

    Raises:
        FacemillError: no such folder, a part that is not Parquet, or a part of another table or version.
        ValueError: a column that the schema does not have.
    """
    loaded = [read_part(path, schema, columns) for path in _existing_parts(folder, schema)]
    return pa.concat_tables(loaded) if loaded else empty(schema, columns)


def read_part(path: Path, schema: TableSchema[Any], columns: Sequence[str] | None = None) -> pa.Table:
    """Reads one part of a table, checked as `read_table` checks all of them."""
    schema.check(columns or ())
    _check(path, schema)
    return pq.read_table(path, columns=list(columns) if columns is not None else None)


def empty(schema: TableSchema[Any], columns: Sequence[str] | None = None) -> pa.Table:
    """A table without rows that has all columns of the schema, or those that are named."""
    table = schema.arrow.empty_table()
    return table if columns is None else table.select(list(columns))


def iterate_rows(folder: Path, schema: TableSchema[Row], columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a table one after another, with a row group in memory at a time. Raises as `read_table`."""
    schema.check(columns or ())
    for path in _existing_parts(folder, schema):
        _check(path, schema)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROW_GROUP_ROWS, columns=list(columns) if columns is not None else None):
                yield from batch.to_pylist()


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


def _existing_parts(folder: Path, schema: TableSchema[Any]) -> list[Path]:
    if not folder.is_dir():
        put_back(folder)
    if not folder.is_dir():
        raise FacemillError(f"table {schema.name} is missing: {folder} does not exist; run its stage first")
    return parts(folder)


def _check(path: Path, schema: TableSchema[Any]) -> None:
    try:
        found = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise FacemillError(
            f"{path} is not a readable Parquet file ({error}): run the stage that makes it again"
        ) from error
    if (schemas.name_of(found), schemas.version_of(found)) != (schema.name, schema.version):
        raise FacemillError(
            f"{path} holds table {schemas.name_of(found)} version {schemas.version_of(found)}, "
            f"expected {schema.name} version {schema.version}: run the stage that makes it again"
        )


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
