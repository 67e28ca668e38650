"""Parquet folders: what goes in comes out, equal rows give equal bytes, wrong files are named."""

from __future__ import annotations

import os
import subprocess
import sys
import time
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


def published(folder: Path, parts: int = 3) -> Path:
    """A table of several parts, as a stage publishes it."""
    for part in range(parts):
        rows = [{"sample_id": f"{part}-{n}", "identity": "hopper" * n} for n in range(1, 9 + part)]
        tables.write_part(folder / "scratch" / f"{part:05d}.parquet", tables.from_rows(rows, schema.RAW))
    made = {path.name: path for path in tables.parts(folder / "scratch")}
    tables.publish_table(folder / "raw", made)
    return folder / "raw"


def cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-9])


def empty(part: Path) -> None:
    part.write_bytes(b"")


def flip_a_bit(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[120] ^= 1
    part.write_bytes(data)


def swap_with_another_stage(part: Path) -> None:
    part.unlink()
    tables.write_part(part, tables.from_rows([{"face_id": "a"}], schema.FACES))


def swap_with_another_part(part: Path) -> None:
    part.write_bytes((part.parent / "00002.parquet").read_bytes())


def set_version(part: Path) -> None:
    table = pq.read_table(part)
    metadata = {key: b"77" if value.isdigit() else value for key, value in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(metadata), part)


def drop_a_column(part: Path) -> None:
    table = pq.read_table(part)
    pq.write_table(table.drop_columns(["author"]), part)


DAMAGES = {
    "missing": Path.unlink,
    "cut off": cut,
    "empty": empty,
    "a flipped bit": flip_a_bit,
    "of another stage": swap_with_another_stage,
    "another part": swap_with_another_part,
    "another version": set_version,
    "without a column": drop_a_column,
    "one too many": lambda part: (part.parent / "00009.parquet").write_bytes(part.read_bytes()),
    "broken manifest": lambda part: (part.parent / tables.MANIFEST).write_bytes(b"{"),
    "manifest of something else": lambda part: (part.parent / tables.MANIFEST).write_bytes(b'{"parts": [1]}'),
}


@pytest.mark.parametrize("manifest", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_named_with_its_remedy_in_one_line(tmp_path: Path, damage: str, manifest: bool) -> None:
    folder = published(tmp_path)
    for path in folder.glob("*.parquet"):  # of its own, so that scratch stays as it is
        path.write_bytes(path.read_bytes())
    if not manifest:
        (folder / tables.MANIFEST).unlink()
        if damage in ("missing", "another part", "one too many") or "manifest" in damage:
            return  # nothing says what should be there
    DAMAGES[damage](folder / "00001.parquet")
    named = tables.MANIFEST if "manifest" in damage else r"0000[19]\.parquet"
    for read in (
        lambda: tables.read_table(folder, schema.RAW),
        lambda: list(tables.iterate_rows(folder, schema.RAW)),
    ):
        with pytest.raises(FacemillError, match=rf"^.*raw/{named} .*dvc checkout .*or run the stage.*$") as error:
            read()
        assert "\n" not in str(error.value)


def test_a_table_without_rows_is_no_damage(tmp_path: Path) -> None:
    tables.write_table(tmp_path / "raw", [schema.RAW.arrow.empty_table()])
    assert len(tables.read_table(tmp_path / "raw", schema.RAW)) == 0
    tables.write_table(tmp_path / "raw", [])
    assert len(tables.read_table(tmp_path / "raw", schema.RAW)) == 0


def test_who_reads_while_a_table_is_replaced_gets_all_of_one_state(tmp_path: Path) -> None:
    """A process replaces the table all the time, states 0, 1, 2, … with as many rows each."""
    script = f"""
import itertools
from pathlib import Path
from facemill import schema, tables
for state in itertools.count():
    rows = [{{"sample_id": str(state)}}]
    tables.write_table(Path({str(tmp_path / "raw")!r}), [tables.from_rows(rows, schema.RAW) for _ in range(3)])
"""
    environment = os.environ | {"PYTHONPATH": str(Path(tables.__file__).parent.parent)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as writer:
        try:
            seen, replaced, end = set(), 0, time.monotonic() + 60
            while len(seen) < 20 and time.monotonic() < end:
                try:
                    rows = tables.read_table(tmp_path / "raw", schema.RAW, ["sample_id"])["sample_id"].to_pylist()
                    assert len(rows) == 3
                    assert len(set(rows)) == 1
                    seen.add(rows[0])
                    rows = [row["sample_id"] for row in tables.iterate_rows(tmp_path / "raw", schema.RAW)]
                    assert len(rows) == 3
                    assert len(set(rows)) == 1
                except FacemillError as error:
                    assert "does not exist" in str(error) or "was replaced" in str(error)  # noqa: PT017
                    replaced += 1
        finally:
            writer.kill()
    assert len(seen) == 20


def test_another_table_is_refused_with_both_names(tmp_path: Path) -> None:
    with pytest.raises(
        FacemillError,
        match=f"holds table raw version {schema.RAW.version}, expected faces version {schema.FACES.version}",
    ):
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
