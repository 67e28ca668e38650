"""Pictures for a page that must stay in one file: small JPEGs as data URIs, within a budget of bytes."""

from __future__ import annotations

import base64
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from facemill import tables
from facemill.errors import InputError
from facemill.pictures import RGB, decode, encode_jpeg
from facemill.schema import TableSchema
from facemill.sheets import fit

JPEG_QUALITY = 82
BUDGET_BYTES = 6_000_000


class Album:
    """Turns pictures into data URIs until the budget is spent; after that there are none, and the page says so."""

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self.left_bytes = budget_bytes
        self.refused = 0

    def add(self, picture: RGB, side_px: int, quality: int = JPEG_QUALITY) -> str | None:
        """A `data:` URI of the picture, longer side at most `side_px`; None when the budget is spent."""
        data = encode_jpeg(fit(picture, side_px), quality)
        if len(data) > self.left_bytes:
            self.refused += 1
            return None
        self.left_bytes -= len(data)
        return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")

    def add_encoded(self, data: bytes | None, side_px: int) -> str | None:
        """The same from an encoded picture; None also where it does not decode."""
        if not data:
            return None
        try:
            return self.add(decode(data, max_pixels=None), side_px)  # a picture of our tables
        except InputError:
            return None


def pictures_of(
    folder: Path, schema: TableSchema[Any], key: str, column: str, wanted: Collection[str]
) -> dict[str, bytes]:
    """Encoded pictures of a few rows of a table, by the value of their key column.

    Only row groups that hold a wanted row are read, so a table of many gigabytes costs no more than a small one.
    """
    found: dict[str, bytes] = {}
    missing = set(wanted)
    for path in tables.parts(folder) if missing else ():
        tables.read_part(path, schema, [])  # refuses a part of another table or version
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                keys = file.read_row_group(group, columns=[key])[key].to_pylist()
                if missing.isdisjoint(keys):
                    continue
                images = file.read_row_group(group, columns=[column])[column]
                for index, name in enumerate(keys):
                    data = (images[index].as_py() or {}).get("bytes") if name in missing else None
                    if data:
                        found[name] = data
                        missing.discard(name)
        if not missing:
            break
    return found
