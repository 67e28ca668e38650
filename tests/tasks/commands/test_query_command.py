"""`facemill query`: SQL over the tables as they are and as they were; it reads and does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from reviewed import face_id, project
from typer.testing import CliRunner

from facemill import tables
from facemill.schema import ALL, DATASET
from flows.command_line.main import app

duckdb = pytest.importorskip("duckdb", reason="wants the packages of facemill[dev]")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, hopper: np.ndarray, collins: np.ndarray) -> Path:
    return project(tmp_path_factory.mktemp("queried") / "it's a project", {"anna": hopper, "bert": collins})


def run(root: Path, *words: str) -> str:
    """What it prints; or its error."""
    result = CliRunner().invoke(app, ["query", *words, "--root", str(root)])
    return result.output if result.exit_code == 0 else f"{type(result.exception).__name__}: {result.exception}"


COUNTS = "SELECT identity, error, count(*) AS faces FROM dataset WHERE crop IS NOT NULL GROUP BY ALL ORDER BY ALL"


def test_rows_are_shown_as_a_table_and_written_as_csv_and_json_lines(root: Path) -> None:
    assert "anna" in run(root, COUNTS)
    assert run(root, COUNTS, "--format", "csv").splitlines()[:2] == ["identity,error,faces", "anna,blurred,1"]
    rows = [json.loads(line) for line in run(root, COUNTS, "--format", "jsonl").splitlines()]
    assert {"identity": "bert", "error": None, "faces": 14} in rows
    boxes = run(root, "SELECT box, CAST('nan' AS DOUBLE) AS odd FROM dataset LIMIT 1", "--format", "jsonl")
    assert json.loads(boxes) == {"box": [100.0, 80.0, 220.0, 200.0], "odd": None}


def test_more_rows_than_fit_are_counted_and_a_file_has_all(root: Path, tmp_path: Path) -> None:
    printed = run(root, "SELECT range AS n FROM range(100)")
    assert "60 more rows: --to FILE or --format csv gives all 100." in printed
    target = tmp_path / "faces.parquet"
    assert "36 rows" in run(root, "FROM dataset", "--to", str(target))
    assert pq.read_table(target).select(["face_id", "crop"]).to_pylist() == (
        tables.read_table(root / "data/dataset", DATASET, ["face_id", "crop"]).to_pylist()
    )


def test_pictures_are_nothing_for_text(root: Path, tmp_path: Path) -> None:
    crop = ("SELECT face_id, crop FROM dataset WHERE error = 'blurred'",)
    assert "bytes>" in run(root, *crop)
    for form in ("csv", "jsonl"):
        assert "column crop holds bytes, for which" in run(root, *crop, "--format", form)
    assert "Parquet is nothing for a terminal" in run(root, *crop, "--format", "parquet")
    assert "name it .csv, .jsonl or .parquet" in run(root, *crop, "--to", str(tmp_path / "x.xls"))


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("FROM unique", "The table unique, whose name is a word of SQL, stands in quotes"),
        ("SELECT * FROM nothing", "The tables here are dataset"),
        ("SELECT nothing FROM dataset", "The tables here are dataset"),
        ("SELECT 1; SELECT 2", "one statement that reads is expected"),
        ("", "one statement that reads is expected"),
        ("DROP VIEW dataset", "one statement that reads is expected"),
        ("COPY dataset TO 'out.parquet'", "one statement that reads is expected"),
        ("ATTACH 'other.db'", "one statement that reads is expected"),
        ("INSTALL httpfs", "one statement that reads is expected"),
        ("SET enable_external_access = true", "one statement that reads is expected"),
        ("SELECT * FROM read_text('/etc/hostname')", "file system operations are disabled"),
        ("SELECT * FROM read_csv('https://127.0.0.1/x.csv')", "cannot be answered"),
        ("SELECT CAST(detail AS INTEGER) FROM dataset", "cannot be answered: Conversion Error"),
    ],
)
def test_what_does_not_read_the_tables_is_refused(root: Path, sql: str, told: str) -> None:
    before = {path: path.stat() for path in root.rglob("*") if path.is_file()}
    assert told in run(root, sql).replace("\n", " ")
    assert run(root, sql).startswith("FacemillError")
    assert {path: path.stat() for path in root.rglob("*") if path.is_file()} == before


def test_a_version_is_asked_as_it_was(tmp_path: Path, hopper: np.ndarray, collins: np.ndarray) -> None:
    """With real git and DVC, whose cache the parts are read from."""
    root = project(tmp_path / "project", {"anna": hopper, "bert": collins}, each=6)

    def call(*words: str) -> None:
        subprocess.run(words, cwd=root, check=True, capture_output=True)

    call("git", "init", "--quiet")
    call(sys.executable, "-m", "dvc", "init", "--quiet")
    (root / "dvc.yaml").write_text("stages: {curate: {cmd: 'true', outs: [data/dataset]}}\n")
    call(sys.executable, "-m", "dvc", "commit", "--force", "curate")
    call("git", "add", "--all")
    call("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "--message=first")
    from tasks.versions.store import save_version

    save_version(root, "v1", is_untouched=True)
    project(root, {"anna": hopper, "bert": collins}, each=10)
    count = "SELECT count(*) AS n FROM dataset WHERE identity = 'bert'"
    assert run(root, count, "--format", "csv") == "n\n10\n"
    assert run(root, count, "--format", "csv", "--version", "v1") == "n\n6\n"
    assert "no dataset version 'v2'" in run(root, count, "--version", "v2")
    listed = next(path for path in (root / ".dvc/cache/files/md5").rglob("*") if path.suffix == ".dir")
    listed.chmod(0o644)
    listed.unlink()
    assert "the data of version v1 is not in DVC's cache" in run(root, count, "--version", "v1")


def test_without_duckdb_the_error_says_what_to_install(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert "python deploy/install.py query" in run(root, "SELECT 1")


def open_in_datasets(path: str) -> list[dict[str, Any]]:
    import datasets

    loaded = datasets.load_dataset(
        "parquet", data_files=path, split="train", cache_dir=str(Path(path).parents[2] / "hf")
    )
    assert isinstance(loaded.features["crop"], datasets.Image)
    picture = next(row["crop"] for row in loaded if row["crop"] is not None)
    assert picture.size == (192, 192)
    columns: list[dict[str, Any]] = loaded.select_columns(["face_id", "identity", "box"]).to_list()
    return columns


def open_in_polars(path: str) -> list[dict[str, Any]]:
    import polars

    rows: list[dict[str, Any]] = polars.read_parquet(path).select("face_id", "identity", "box").to_dicts()
    return rows


def open_in_duckdb(path: str) -> list[dict[str, Any]]:
    table = duckdb.sql(f"SELECT face_id, identity, box FROM '{path}'").to_arrow_table()
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


@pytest.mark.parametrize("library", ["datasets", "polars", "duckdb"])
def test_the_tables_open_as_they_are(
    tmp_path: Path, hopper: np.ndarray, collins: np.ndarray, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library, reason="wants the packages of facemill[dev]")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    root = project(tmp_path / "project", {"anna": hopper, "bert": collins}, each=6)
    opened = globals()[f"open_in_{library}"](str(root / "data/dataset/*.parquet"))
    expected = tables.read_table(root / "data/dataset", DATASET, ["face_id", "identity", "box"]).to_pylist()
    assert sorted(map(str, opened)) == sorted(map(str, expected))
    assert face_id("blurred") in str(opened)


@pytest.mark.parametrize("name", ALL)
def test_every_table_can_be_asked_also_an_empty_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "params.yaml").touch()
    tables.write_table(tmp_path / "data" / name, [tables.empty(ALL[name])])
    assert run(tmp_path, f'SELECT count(*) AS n FROM "{name}"', "--format", "csv") == "n\n0\n"
    tables.write_table(tmp_path / "data" / name, [])
    assert run(tmp_path, f'SELECT count(*) AS n FROM "{name}"', "--format", "csv") == "n\n0\n"
