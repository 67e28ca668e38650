"""`facemill query`: SQL over the tables, of the project as it is now or of a version.

DuckDB reads the Parquet parts where they lie, and of them the columns that a query names: pictures only where it asks
for them. It is given these files and nothing else, and only statements that read are taken.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import atomic_path
from facemill.schema import ALL
from tasks.catalogue import Data
from tasks.work.terminal import say, say_table

if TYPE_CHECKING:
    import duckdb

SHOWN = 40
"""Rows of a table on the screen; `--format` and `--to` give all."""
_SHOWN_LETTERS = 60
_BATCH_ROWS = 2048
_SETTINGS = ("SET enable_external_access = false", "SET lock_configuration = true")


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


def query(root: Path, sql: str, version: str | None = None, how: Format | None = None, to: Path | None = None) -> None:
    """Runs a query and writes what it gives.

    Args:
        root: of the project.
        sql: one statement that reads; the tables are called as their folders below data.
        version: of the dataset; by default the project as it is now.
        how: by default what the file's name says, else a table for people.
        to: the file; by default the output of the command.

    Raises:
        FacemillError: DuckDB is not installed, no such version, a wrong statement, or a format for which a column is
            none.
    """
    from tasks.versions.version_tables import version_tables

    how = how or _by_suffix(to)
    if how is Format.PARQUET and to is None:
        raise FacemillError("Parquet is nothing for a terminal: name a file with --to, such as --to faces.parquet")
    place = nullcontext(root) if version is None else version_tables(root, version)
    with place as base, answer(base, sql) as rows:
        if how is Format.TABLE:
            _show(rows)
        elif how is Format.PARQUET and to is not None:
            say(f"{to}: {_write_parquet(to, rows)} rows.")
        else:
            write = _write_csv if how is Format.CSV else _write_jsonl
            _refuse_bytes(rows.schema, how)
            if to is None:
                write(sys.stdout, rows)
            else:
                with atomic_path(to) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
                    count = write(stream, rows)
                say(f"{to}: {count} rows.")


@contextmanager
def answer(base: Path, sql: str) -> Iterator[pa.RecordBatchReader]:
    """What a query gives, some rows in memory at a time.

    Args:
        base: the folder with `data`.
        sql: as `query` has it.

    Raises:
        FacemillError: as `query`; also while rows are read.
    """
    try:
        import duckdb
    except ImportError as error:
        raise FacemillError("facemill query needs DuckDB: run `python deploy/install.py query` in the clone") from error
    with duckdb.connect(":memory:") as connection:
        known = _make_views(connection, base)
        try:
            statements = connection.extract_statements(sql)
            if [one.type for one in statements] not in ([duckdb.StatementType.SELECT], [duckdb.StatementType.EXPLAIN]):
                raise FacemillError("one statement that reads is expected, such as SELECT, SUMMARIZE or DESCRIBE")
            yield connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            raise FacemillError(f"{error}. The tables here are {', '.join(known) or 'none yet'}") from error
        except duckdb.ParserException as error:
            raise FacemillError(f"{error}. The table unique, whose name is a word of SQL, stands in quotes") from error
        except (duckdb.Error, pa.ArrowException) as error:
            raise FacemillError(f"the query cannot be answered: {error}") from error


def _make_views(connection: duckdb.DuckDBPyConnection, base: Path) -> list[str]:
    """A view for each table that is there; from then on DuckDB reads no other file."""
    known, allowed = [], list[str]()
    for name, schema in ALL.items():
        folder = base / Data.ALL / name
        if not folder.is_dir():
            continue
        parts = [str(path.absolute()) for path in tables.parts(folder)]
        if parts:
            connection.execute(f'CREATE VIEW "{name}" AS SELECT * FROM read_parquet({_listed(parts)})')
        else:
            connection.from_arrow(tables.empty(schema)).create(name)
        known.append(name)
        allowed += parts
    for setting in (f"SET allowed_paths = {_listed(allowed)}", *_SETTINGS):
        connection.execute(setting)
    return known


def _listed(paths: Sequence[str]) -> str:
    quoted = ("'" + path.replace("'", "''") + "'" for path in paths)
    return f"[{', '.join(quoted)}]"


def _by_suffix(to: Path | None) -> Format:
    if to is None:
        return Format.TABLE
    known = {".csv": Format.CSV, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL, ".parquet": Format.PARQUET}
    if to.suffix.lower() not in known:
        raise FacemillError(f"{to}: name it .csv, .jsonl or .parquet, or give --format")
    return known[to.suffix.lower()]


def _rows(reader: pa.RecordBatchReader) -> Iterator[dict[str, Any]]:
    return chain.from_iterable(batch.to_pylist() for batch in _batches(reader))


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except OSError as error:  # what DuckDB finds wrong while rows are read: Arrow knows no better class for it
        raise FacemillError(f"the query cannot be answered: {error}") from error


def _show(reader: pa.RecordBatchReader) -> None:
    shown, count = [], 0
    for row in _rows(reader):
        if count < SHOWN:
            shown.append([_short(value) for value in row.values()])
        count += 1
    say_table(reader.schema.names, shown)
    if count > SHOWN:
        say(f"{count - SHOWN:,} more rows: --to FILE or --format csv gives all {count:,}.")


def _short(value: Any) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(_without_bytes(value))
    return text if len(text) <= _SHOWN_LETTERS else f"{text[: _SHOWN_LETTERS - 1]}…"


def _without_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, dict):
        return {name: _without_bytes(part) for name, part in value.items()}
    return value


def _refuse_bytes(schema: pa.Schema, how: Format) -> None:
    for field in schema:
        if "binary" in str(field.type):
            raise FacemillError(
                f"column {field.name} holds bytes, for which {how} has no form: leave it out, or write Parquet"
            )


def _write_csv(stream: IO[str], reader: pa.RecordBatchReader) -> int:
    writer, count = csv.writer(stream, lineterminator="\n"), 0
    writer.writerow(reader.schema.names)
    for row in _rows(reader):
        writer.writerow([json.dumps(_finite(one)) if isinstance(one, dict | list) else one for one in row.values()])
        count += 1
    return count


def _write_jsonl(stream: IO[str], reader: pa.RecordBatchReader) -> int:
    count = 0
    for row in _rows(reader):
        stream.write(json.dumps(_finite(row), ensure_ascii=False, default=str) + "\n")
        count += 1
    return count


def _finite(value: Any) -> Any:
    """JSON has no form for NaN and infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list) else value


def _write_parquet(path: Path, reader: pa.RecordBatchReader) -> int:
    count = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, reader.schema, compression="zstd") as writer:
        for batch in _batches(reader):
            writer.write_batch(batch)
            count += len(batch)
    return count
