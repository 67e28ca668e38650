"""What is left of a picture in a project's files: the proof that it is gone is a search that finds nothing.

A file is searched as bytes, which finds pictures as they lie in tables and whatever names one in JSON or on a page;
and the texts of a Parquet file also as rows, since they lie there packed.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SLICE_BYTES = 96
"""So many bytes from the middle of a picture stand for it: none before or after them are the same by chance."""
NAMED_BY = 16
"""Digits of a picture's SHA-256 that its faces and files are named by."""


@dataclass
class Traces:
    """By what a picture, its faces and their crops are known.

    Attributes:
        sample_ids: SHA-256 of the pictures.
        addresses: where they came from.
        contents: from the middle of each picture and crop, see `middle_of`.
    """

    sample_ids: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    contents: set[bytes] = field(default_factory=set)

    @cached_property
    def _texts(self) -> re.Pattern[str]:
        ids = [re.escape(sample_id[:NAMED_BY]) for sample_id in sorted(self.sample_ids)]
        # whole: `p/1.jpg` is no part of `pp/1.jpg`, nor of `p/1.jpg.png`
        spelled = {form for one in self.addresses for form in (one, json.dumps(one)[1:-1])}
        whole = [rf"(?<![\w/.%-]){re.escape(one)}(?![\w%-]|\.\w)" for one in sorted(spelled)]
        return re.compile("|".join([*ids, *whole]) or r"(?!)")

    @cached_property
    def _bytes(self) -> re.Pattern[bytes]:
        contents = [re.escape(one) for one in sorted(self.contents)]
        return re.compile(b"|".join([self._texts.pattern.encode(), *contents]), re.DOTALL)

    def are_in(self, path: Path) -> bool:
        """Whether a file holds any of them. Raises OSError where it cannot be read."""
        with path.open("rb") as file:
            if not path.stat().st_size:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if self._bytes.search(content):
                    return True
                is_parquet = content[:4] == content[-4:] == b"PAR1"
        return is_parquet and any(self._texts.search(text) for text in _texts_of(path))


def middle_of(picture: bytes) -> bytes:
    """What stands for a picture's bytes in a search."""
    begin = max(0, (len(picture) - SLICE_BYTES) // 2)
    return picture[begin : begin + SLICE_BYTES]


def holders(folders: Iterable[Path], traces: Traces) -> list[Path]:
    """The files below these folders that hold any trace, in their order; links are not followed."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            try:
                if path.is_file() and not path.is_symlink() and traces.are_in(path):
                    found.append(path)
            except FileNotFoundError:  # something at work has taken it away
                continue
    return found


def _texts_of(path: Path) -> Iterator[str]:
    """The texts in a Parquet file, each once for each batch of rows; of a file that is none of ours, none."""
    try:
        with pq.ParquetFile(path) as file:
            leaves = [name for entry in file.schema_arrow for name in _text_leaves(entry.name, entry.type)]
            for leaf in leaves:
                for batch in file.iter_batches(columns=[leaf]):
                    for text in pc.unique(_flat(batch.column(0))).to_pylist():
                        if text:
                            yield text
    except pa.ArrowException:
        return


def _text_leaves(path: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_struct(kind):
        return [leaf for child in kind for leaf in _text_leaves(f"{path}.{child.name}", child.type)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _text_leaves(f"{path}.list.element", kind.value_type)
    return [path] if pa.types.is_string(kind) or pa.types.is_large_string(kind) else []


def _flat(column: pa.Array) -> pa.Array:
    """The texts of a column that may be a struct, or a list, of one text."""
    while pa.types.is_struct(column.type) or pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = column.field(0) if pa.types.is_struct(column.type) else pc.list_flatten(column)
    return column
