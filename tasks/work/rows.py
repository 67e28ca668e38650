"""Rows of a table as items of work: small to send, read again where the work is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from facemill import tables
from facemill.schema import Row, TableSchema


class RowAt(NamedTuple):
    """Where a row lies: the path of the part, and the row in it."""

    part: str
    row: int


def read_rows(places: Iterable[RowAt], schema: TableSchema[Row], columns: Sequence[str]) -> Iterator[Row]:
    """The rows at these places, in that order; each run of places in one part reads the part once."""
    for path, group in groupby(places, key=lambda place: place.part):
        part = tables.read_part(Path(path), schema, columns)
        for place in group:
            yield from tables.to_rows(part.slice(place.row, 1), schema)  # no copy, unlike take: pictures are large
