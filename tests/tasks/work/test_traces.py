"""A search finds what a picture is known by, however a file holds it, and nothing that only resembles it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from facemill import tables
from facemill.pictures import encode_jpeg, sha256_hex
from facemill.schema import FACES, RAW
from tasks.work.traces import Traces, holders, middle_of

PICTURE = encode_jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
SHA = sha256_hex(PICTURE)
TRACES = Traces({SHA}, {"p/1.jpg", "pé/2.jpg"}, {middle_of(PICTURE)})


@pytest.mark.parametrize(
    "content",
    [
        b"before " + PICTURE + b" after",
        f"of {SHA[:16]}-anna-0".encode(),
        b'<img src="p/1.jpg">',
        b"of p/1.jpg: broken",
        "pé/2.jpg".encode(),
        json.dumps({"url": "pé/2.jpg"}).encode(),
        b"p/1.jpg",
    ],
)
def test_files_that_hold_it_are_found(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(content)
    assert holders([tmp_path], TRACES) == [tmp_path / "a" / "b" / "file"]


@pytest.mark.parametrize(
    "content", [b"", SHA[:15].encode(), b"pp/1.jpg", b"p/1.jpg.png", b"p/1.jpg2", PICTURE[:80], b"q/p/1.jpg"]
)
def test_what_only_resembles_it_is_not_found(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert holders([tmp_path], TRACES) == []
    (tmp_path / "file").write_bytes(b"anything at all")
    assert holders([tmp_path], Traces()) == []


@pytest.mark.parametrize(
    "row",
    [
        {"sample_id": SHA},
        {"url": "p/1.jpg"},
        {"detail": "of p/1.jpg"},
        {"image": {"bytes": b"another", "path": f"{SHA[:16]}.jpg"}},
        {"image": {"bytes": PICTURE, "path": None}},
    ],
)
def test_rows_of_tables_are_searched_though_they_lie_there_packed(tmp_path: Path, row: dict[str, object]) -> None:
    rows = [{"sample_id": "f" * 64, "url": f"{at}.jpg"} for at in range(50)]
    tables.write_part(tmp_path / "0.parquet", tables.from_rows(rows, RAW))
    assert holders([tmp_path], TRACES) == []
    tables.write_part(tmp_path / "0.parquet", tables.from_rows([*rows, row], RAW))
    assert holders([tmp_path], TRACES) == [tmp_path / "0.parquet"]


def test_faces_are_found_by_their_ids(tmp_path: Path) -> None:
    tables.write_part(tmp_path / "0.parquet", tables.from_rows([{"face_id": f"{SHA[:16]}-anna-3"}], FACES))
    assert holders([tmp_path], TRACES) == [tmp_path / "0.parquet"]


def test_a_file_that_only_begins_and_ends_like_a_table_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "0.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert holders([tmp_path], TRACES) == []
