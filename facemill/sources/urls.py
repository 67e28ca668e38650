"""Source `urls`: addresses of pictures in a list of one's own, fetched by our own downloader.

    {kind: urls, path: lists/anna.csv, columns: {url: image_link, licence: rights}}

The list is a CSV or TSV with a header, Parquet, JSON lines, or a text with an address in each line. A line without an
address is a row with the reason, and all others go on. Of each picture the list may name the page that shows it, its
licence and its author.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO, Annotated, Any, Literal

from pydantic import Field

from facemill.errors import FacemillError, InputError
from facemill.foreign_files import open_regular, valid_name
from facemill.reasons import Reason
from facemill.sources import Item, StatedPath, Surroundings, Unit, register
from facemill.sources._addresses import AddressSource, ListedUnits, fetch_address, is_address

Format = Literal["csv", "tsv", "parquet", "jsonl", "txt"]
Column = Literal["url", "page", "licence", "author"]

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "txt",
}
_COLUMNS: tuple[Column, ...] = ("url", "page", "licence", "author")
_LINE_CHARACTERS = 1_000_000
_TOLD_CHARACTERS = 2000
_BATCH_ROWS = 10_000

Line = tuple[int, Mapping[str, Any] | str]
"""Number of a line, and what its columns hold; or in words what is wrong with it."""


@register
@dataclass(frozen=True, kw_only=True)
class UrlsSource(AddressSource):
    """Pictures whose addresses stand in a list: CSV, TSV, Parquet, JSON lines, or plain text."""

    kind: Literal["urls"] = "urls"
    path: StatedPath
    """The list. Its suffix says what it is: .csv, .tsv, .parquet, .jsonl, or .txt with an address in each line."""
    format: Format | None = None
    """What the list is, where its suffix does not say so."""
    columns: dict[Column, Annotated[str, Field(min_length=1)]] = field(default_factory=dict)
    """Which column holds what, where they are called otherwise than `url`, `page`, `licence` and `author`."""
    licence: str = ""
    """The licence of the pictures for which the list names none, as its text or SPDX id; empty if unknown."""
    author: str = ""
    """Who made the pictures for which the list names nobody; empty if unknown."""
    max_urls: Annotated[int, Field(ge=1)] | None = None
    """Take only so many lines, the first ones."""
    allow_private_addresses: bool = False
    """Downloads from loopback and private networks are refused unless this is set."""

    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """A single unit, the list: its lines are read when it is collected, and are a unit each.

        Raises:
            FacemillError: no such file, of no known format, or without the columns that are named.
        """
        path = around.place(self.path)
        form = self.format or _FORMATS.get(path.suffix.lower())
        if form is None:
            raise FacemillError(f"{path} (identity {identity}): write the list's format, one of {', '.join(_all())}")
        columns: dict[str, str] = {column: self.columns.get(column, column) for column in _COLUMNS}
        options = {
            "format": form,
            "columns": columns,
            "licence": self.licence,
            "author": self.author,
            "max_urls": self.max_urls,
            "allow_private_addresses": self.allow_private_addresses,
            "max_file_bytes": around.max_file_bytes,
            "skip": list(around.collected),
        }
        unit = Unit(
            identity=identity,
            role=role,
            source=self.kind,
            key=valid_name(PurePath(self.path).name),
            single=False,
            path=path,
            options=options,
        )
        _check_columns(path, form, _named_columns(columns, form, self.columns))
        return [unit]

    @staticmethod
    def find(unit: Unit) -> Sequence[Unit]:
        """One unit for each line whose address was not collected before."""
        options = unit.options
        if is_address(unit) or unit.path is None:
            return [unit]
        skip, columns = set(options["skip"]), options["columns"]
        found = ListedUnits(unit)
        for number, (line, read) in enumerate(_lines(unit.path, options["format"], list(columns.values()))):
            if options["max_urls"] is not None and number >= options["max_urls"]:
                break
            try:
                stated = _stated(read, columns)
            except InputError as problem:
                found.tell(f"{unit.key}:{line}", problem.reason, problem.detail)
                continue
            url = stated.pop("url")
            defaults = {name: options[name] for name in ("licence", "author") if not stated[name]}
            if url not in skip:
                found.add(url, **{**stated, **defaults})
        return found.without_repeats()

    @staticmethod
    def fetch(unit: Unit) -> Iterator[Item]:
        """The picture of a line, or the reason why there is none."""
        return fetch_address(unit)


def _all() -> list[str]:
    return sorted(set(_FORMATS.values()))


def _named_columns(columns: Mapping[str, str], form: Format, stated: Mapping[Column, str]) -> list[str]:
    """The columns that must be there: that of the address, and whichever a person has named."""
    return [] if form in ("txt", "jsonl") else [columns["url"], *(name for name in stated.values())]


def _check_columns(path: Path, form: Format, wanted: list[str]) -> None:
    """Raises FacemillError where a list cannot be opened, or lacks a column."""
    try:
        if form == "parquet":
            there = list(_parquet(path).schema_arrow.names)
        elif form in ("csv", "tsv"):
            with _opened(path) as stream:
                there = next(_table(stream, form), [])
        else:
            _opened(path).close()
            return
    except (OSError, csv.Error) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise FacemillError(f"{path} cannot be read ({told}): correct the path, or the list") from error
    if missing := [name for name in dict.fromkeys(wanted) if name not in there]:
        lacking, has = (", ".join(map(repr, names[:20])) for names in (missing, there))
        raise FacemillError(
            f"{path} has no column {lacking}; it has {has or 'none'}: "
            "say which one holds the addresses, as in `columns: {url: image_link}`"
        )


def _stated(read: Mapping[str, Any] | str, columns: Mapping[str, str]) -> dict[str, str]:
    """What a line says: `url`, `page`, `licence`, `author`; raises InputError where it has no address."""
    if isinstance(read, str):
        raise InputError(Reason.BROKEN_LINE, read)
    said = {ours: _text(read.get(theirs)) for ours, theirs in columns.items()}
    if not re.match(r"(?i)https?://\S", said["url"]):
        found = f"{said['url'][:80]!r} is no address" if said["url"] else "no address"
        raise InputError(Reason.BROKEN_LINE, found)
    return said


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None or isinstance(value, (dict, list)) else str(value)
    return valid_name(text.strip()[:_TOLD_CHARACTERS])


def _lines(path: Path, form: Format, columns: list[str]) -> Iterator[Line]:
    """The lines of a list, of Parquet with just these columns. Raises FacemillError where all of it cannot be read."""
    try:
        if form == "parquet":
            yield from _parquet_rows(path, columns)
            return
        with _opened(path) as stream:
            if form == "txt":
                yield from _text_lines(stream)
            elif form == "jsonl":
                yield from _json_lines(stream)
            else:
                yield from _table_lines(stream, form)
    except OSError as error:
        raise FacemillError(f"{path.name} cannot be read: {error.strerror or error}") from error


def _opened(path: Path) -> IO[str]:
    return io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", errors="surrogateescape", newline="")


def _bounded_lines(stream: IO[str]) -> Iterator[tuple[int, str]]:
    """Lines with their ends; of one that is too long a beginning, which is no line of any format."""
    number = 0
    while line := stream.readline(_LINE_CHARACTERS):
        number += 1
        yield number, line
        while len(line) == _LINE_CHARACTERS and not line.endswith("\n"):
            line = stream.readline(_LINE_CHARACTERS)


def _wrong(line: str) -> str | None:
    """What is wrong with a line whatever its format is."""
    if len(line) >= _LINE_CHARACTERS:
        return f"longer than {_LINE_CHARACTERS} characters"
    return "not UTF-8" if re.search("[\udc80-\udcff]", line) else None


def _text_lines(stream: IO[str]) -> Iterator[Line]:
    for number, line in _bounded_lines(stream):
        text = line.strip()
        if text and not text.startswith("#"):
            yield number, _wrong(line) or {"url": text}


def _json_lines(stream: IO[str]) -> Iterator[Line]:
    for number, line in _bounded_lines(stream):
        if not line.strip():
            continue
        try:
            read = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, _wrong(line) or f"not JSON ({str(error)[:80]})"
            continue
        yield number, _wrong(line) or (read if isinstance(read, dict) else "not an object of JSON")


def _table_lines(stream: IO[str], form: Format) -> Iterator[Line]:
    rows = _table(stream, form)
    names: list[str] = next(rows, [])
    while True:
        try:
            values = next(rows, None)
        except csv.Error as error:
            yield rows.line_num, str(error)
            continue
        if values is None:
            return
        if any(value.strip() for value in values):
            odd = next((wrong for value in values if (wrong := _wrong(value))), None)
            yield rows.line_num, odd or dict(zip(names, values, strict=False))


def _table(stream: IO[str], form: Format) -> Any:
    """A reader of rows; a CSV's separator is the one of `,`, `;` and tabs that its header has most of."""
    start = stream.readline(_LINE_CHARACTERS)
    stream.seek(0)
    separator = "\t" if form == "tsv" else max(",;\t", key=start.count)
    return csv.reader((line for _, line in _bounded_lines(stream)), delimiter=separator)


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(open_regular(path))
    except (pa.ArrowException, OSError) as error:
        told = str(error)[:120]
        raise FacemillError(f"{path} cannot be read as Parquet ({told}): correct the path, or the list") from error


def _parquet_rows(path: Path, columns: list[str]) -> Iterator[Line]:
    import pyarrow as pa

    file = _parquet(path)
    number = 0
    try:
        there = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(_BATCH_ROWS, columns=there):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError, ValueError) as error:
        yield number + 1, f"the list is broken from here on ({str(error)[:120]})"
