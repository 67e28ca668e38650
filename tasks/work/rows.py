"""Rows of a table as shard items: small to send, read again where the work is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from facemill import tables
from facemill.schema import Row, TableSchema


class RowAt(NamedTuple):
    """Where a row lies: the part's file name and the row in it."""

    part: str
    row: int


def all_rows(folder: Path, schema: TableSchema[Any]) -> list[RowAt]:
    """Every row of a table, in its order. Raises FacemillError as `tables.read_table` when it is missing."""
    tables.read_table(folder, schema, [])
    return [RowAt(path.name, row) for path in tables.parts(folder) for row in range(pq.read_metadata(path).num_rows)]


def read_rows(
    folder: Path, places: Iterable[RowAt], schema: TableSchema[Row], columns: Sequence[str] | None = None
) -> list[Row]:
    """The rows at these places, in that order; each run of places in one part reads the part once."""
    pieces = []
    for name, group in groupby(places, key=lambda place: place.part):
        part = tables.read_part(folder / name, schema, columns)
        pieces += [part.slice(place.row, 1) for place in group]  # no copy, unlike take: pictures are large
    return tables.to_rows(pa.concat_tables(pieces), schema) if pieces else []
