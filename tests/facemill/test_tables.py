"""Parquet folders: what goes in comes out, equal rows give equal bytes, wrong files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from facemill import schema, tables
from facemill.errors import FacemillError

ROW = {"sample_id": "ab", "identity": "hopper", "image": {"bytes": b"\xff\xd8", "path": "a.jpg"}, "status": "ok"}


def write(folder: Path, *rows: dict[str, object]) -> Path:
    tables.write_part(folder / "00000.parquet", tables.from_rows(rows or [ROW], schema.RAW))
    return folder


def test_rows_come_back_and_missing_keys_are_null(tmp_path: Path) -> None:
    [row] = tables.read_table(write(tmp_path), schema.RAW).to_pylist()
    assert (row["image"], row["author"]) == (ROW["image"], None)


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a"), write(tmp_path / "b")
    assert (first / "00000.parquet").read_bytes() == (second / "00000.parquet").read_bytes()


def test_pictures_are_stored_as_they_are_and_the_rest_compressed(tmp_path: Path) -> None:
    group = pq.ParquetFile(write(tmp_path) / "00000.parquet").metadata.row_group(0)
    codecs = {group.column(i).path_in_schema: group.column(i).compression for i in range(group.num_columns)}
    assert (codecs["image.bytes"], codecs["sample_id"]) == ("UNCOMPRESSED", "ZSTD")


def test_unknown_column_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="licens"):
        tables.from_rows([{"licens": "x"}], schema.RAW)


def test_another_table_is_refused_with_both_names(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="holds table raw version 1, expected faces version 1"):
        tables.read_table(write(tmp_path), schema.FACES)


def test_missing_table_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="nowhere does not exist"):
        tables.read_table(tmp_path / "nowhere", schema.RAW)


def test_broken_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "00000.parquet").write_bytes(b"no parquet")
    with pytest.raises(FacemillError, match=r"00000\.parquet is not a readable Parquet file"):
        tables.read_table(tmp_path, schema.RAW)


def test_matrix_has_a_row_for_each_face() -> None:
    rows = [{"face_id": str(n), "landmarks": tables.as_float32(np.arange(136) + n)} for n in range(3)]
    points = tables.matrix(tables.from_rows(rows, schema.FACES), "landmarks", (68, 2))
    assert points.shape == (3, 68, 2)
    assert points[2, 1].tolist() == [4.0, 5.0]


def test_iteration_gives_the_rows_of_all_parts_in_order(tmp_path: Path) -> None:
    for part in range(2):
        rows = [{"sample_id": f"{part}-{n}"} for n in range(300)]
        tables.write_part(tmp_path / f"{part:05d}.parquet", tables.from_rows(rows, schema.RAW))
    ids = [row["sample_id"] for row in tables.iterate_rows(tmp_path, schema.RAW, ["sample_id"])]
    assert (len(ids), ids[0], ids[-1]) == (600, "0-0", "1-299")
