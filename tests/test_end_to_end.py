"""The main job on real faces, small: a copy of the project, `dvc repro`, and what a second one redoes.

The sample people, forty pictures each, a net trained for a few steps: what is tested is the pipeline, not the likeness.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from facemill import schema, tables
from facemill.files import file_sha256, folder_sha256
from tasks.commands.why import describe, why
from tasks.stages import STAGES

PROJECT = Path(__file__).resolve().parent.parent
COPIED = ("facemill", "tasks", "flows", "dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "prefect.toml")


def small(values: dict[str, Any]) -> dict[str, Any]:
    for identity in values["identities"].values():
        identity["sources"][0]["pictures"] = 40
    values["archive"]["seconds"] = 1.0
    values["train"] |= {"steps": 12, "save_every": 6, "evaluate_every": 6, "batch": 8}
    values["report"] |= {"measured_frames": 2, "frames_per_video": 2}
    return values


def environment(project: Path) -> dict[str, str]:
    """The code that runs is the copy's, as in a clone with an environment of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(project), "DVC_NO_ANALYTICS": "1"}


def repro(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    own = environment(project)
    result = subprocess.run(command, cwd=project, env=own, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout


def facemill(project: Path, *arguments: str, code: int = 0) -> str:
    """A command as a person types it, with the code of the copy; what it printed."""
    command = [sys.executable, "-m", "flows.command_line", *arguments]
    done = subprocess.run(command, cwd=project, env=environment(project), capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def ran(output: str) -> set[str]:
    """The stages that DVC ran, but for the look at the sources, which always runs."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")} - {"inventory"}


def clone(root: Path, parameters: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """A clone of the project with other parameters, in which nothing has run yet."""
    root.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    (root / "params.yaml").write_text(yaml.safe_dump(parameters(yaml.safe_load((root / "params.yaml").read_text()))))
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (
        ["git", "init", "-q"],
        [sys.executable, "-m", "dvc", "init", "-q"],
        ["git", "add", "-A"],
        ["git", *author, "commit", "-qm", "start"],
    ):
        subprocess.run(command, cwd=root, env=environment(root), check=True, timeout=60)
    return root


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the project with small parameters, in which `dvc repro` has run once, with a cluster of processes.

    What the tests make again is made in the stage's own process: it takes half the time, and is to have the same bytes.
    """
    root = clone(tmp_path_factory.mktemp("a project"), small)
    assert ran(repro(root)) == {"collect", "dedup", "extract", "curate", "train", "track", "convert", "report"}
    values = yaml.safe_load((root / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump(values | {"cluster": {"kind": "inline"}}))
    return root


def test_every_picture_ends_in_one_state_and_every_planted_kind_is_found(project: Path) -> None:
    raw = tables.read_table(project / "data" / "raw", schema.RAW, ["status", "error"])
    unique = tables.read_table(project / "data" / "unique", schema.UNIQUE, ["error"])
    dataset = tables.read_table(project / "data" / "dataset", schema.DATASET, ["error", "split"])
    reasons = {*raw["error"].to_pylist(), *unique["error"].to_pylist(), *dataset["error"].to_pylist()}
    assert {"truncated", "exact_duplicate", "near_duplicate", "no_face", "other_identity"} <= reasons
    assert {"train", "val"} <= set(dataset["split"].to_pylist())
    for stage in ("collect", "dedup", "extract", "curate", "track", "convert"):
        metrics = json.loads((project / "data" / "metrics" / f"{stage}.json").read_text())
        assert metrics["in"] == metrics["ok"] + metrics["rejected"] + metrics["failed"] > 0


@pytest.mark.parametrize("name", schema.ALL)
def test_a_row_that_is_ok_lacks_only_what_its_type_says_may_be_null(project: Path, name: str) -> None:
    table = schema.ALL[name]
    always = [column for column, hint in get_type_hints(table.row).items() if NoneType not in get_args(hint)]
    rows = [row for row in tables.iterate_rows(project / "data" / name, table) if row["status"] == "ok"]
    assert rows
    assert {column for row in rows for column in always if row[column] is None} == set()


def test_the_archive_is_converted_and_the_frames_reconcile(project: Path) -> None:
    rows = list(tables.iterate_rows(project / "data" / "conversions", schema.CONVERSIONS))
    converted = [row for row in rows if row["status"] == "ok"]
    assert any(row["frames_swapped"] > 0 for row in converted)
    for row in converted:
        assert row["frames_in"] == row["frames_out"]
        assert row["frames_in"] == row["frames_swapped"] + row["frames_passed"] + row["frames_failed"]
        assert (project / "data" / "converted" / row["output"]).stat().st_size > 0


def test_the_report_is_one_file_that_asks_nobody(project: Path) -> None:
    page = (project / "data" / "report" / "report.html").read_text()
    assert "<img" in page
    assert "Who is in the video" in page
    ways = re.findall(r'src="([^"]+)" alt="hopper → collins (?:before|with (?:exemplars|match|none))"', page)
    assert len(set(ways)) == 4  # the frame, and three pictures of it
    assert 'src="http' not in page
    assert json.loads((project / "data" / "report" / "metrics.json").read_text())


def test_a_second_run_does_nothing_in_seconds(project: Path) -> None:
    start = time.monotonic()
    assert ran(repro(project)) == set()
    assert time.monotonic() - start < 60  # the measure is in benchmarks/; this only catches a stage that runs


def test_one_changed_parameter_redoes_only_what_depends_on_it(project: Path) -> None:
    path = project / "params.yaml"
    before = path.read_text()
    dataset = folder_sha256(project / "data" / "dataset")
    values = yaml.safe_load(before)
    values["convert"]["encoder"] = {"crf": 30}
    assert describe(why(project))[-2:] == ["Stage convert is up to date.", "Stage report is up to date."]
    path.write_text(yaml.safe_dump(values))
    found = why(project)
    assert (found["curate"], found["convert"]) == ([], ['parameter convert.encoder was not set and is {"crf": 30} now'])
    assert "it reads converted, conversions, which convert makes anew" in found["report"]
    assert ran(repro(project)) == {"convert", "report"}
    assert folder_sha256(project / "data" / "dataset") == dataset
    path.write_text(before)
    assert ran(repro(project)) == set()  # DVC's run cache has both


def test_changed_code_redoes_what_it_decides_unless_somebody_says_that_it_is_harmless(project: Path) -> None:
    code = project / "facemill" / "swap" / "job.py"
    before = code.read_text()
    code.write_text(f"{before}\n# a comment decides nothing\n")
    assert ran(repro(project)) == set()
    code.write_text(f"{before}\nANOTHER = 1\n")
    told = facemill(project, "why", "convert")
    assert told.strip() == "Stage convert will run again: the code in facemill/swap/job.py has changed."
    assert "commit it" in facemill(project, "accept", "convert", "--reason", "a constant that nobody reads")
    assert ran(repro(project)) == set()
    assert yaml.safe_load((project / "accepted.yaml").read_text())[0]["reason"] == "a constant that nobody reads"
    code.write_text(f"{before}\nANOTHER = 2\n")
    assert ran(repro(project)) == {"convert"}  # to the same bytes: the report has nothing new to read
    code.write_text(before)
    assert ran(repro(project)) <= {"convert", "report"}


def test_a_piece_made_again_has_the_same_bytes_and_a_part_that_is_another_is_named(project: Path) -> None:
    assert ": equal" in facemill(project, "verify-repro", "curate", "--seed", "3")
    part = next((project / "data" / "dataset").glob("*.parquet"))
    before = part.read_bytes()
    part.unlink()  # it shares its bytes with DVC's cache and the stage's results
    part.write_bytes(before + b"another")
    told = facemill(project, "verify-repro", "curate", "--seed", "3", code=1)
    assert f"not equal: data/dataset/{part.name}" in told
    part.unlink()
    part.write_bytes(before)


@pytest.mark.slow
def test_each_stage_gives_the_same_bytes_again(project: Path) -> None:
    told = facemill(project, "verify-repro", "--seed", "4")
    assert told.count(": equal") == len(STAGES)


@pytest.mark.slow
def test_a_clone_at_another_path_ends_with_the_same_bytes(project: Path, tmp_path: Path) -> None:
    """Every file that DVC keeps, by the hashes in dvc.lock and by its bytes; the path has a space and an umlaut."""
    other = clone(tmp_path / "ein anderer Ort für alles" / "klon", small)
    repro(other)

    def outputs(root: Path) -> dict[str, str]:
        stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}

    def files(root: Path) -> dict[str, str]:
        found = sorted((root / "data").rglob("*"))
        return {path.relative_to(root).as_posix(): file_sha256(path) for path in found if path.is_file()}

    repro(project)  # whatever other tests have left
    assert outputs(other) == outputs(project)
    assert files(other) == files(project)
    assert {"data/dataset", "data/model", "data/converted", "data/report/report.html"} <= set(outputs(other))


def test_lost_scratch_and_outputs_come_back_byte_identical(project: Path) -> None:
    folders = [project / "data" / name for name in ("unique", "faces", "dataset")]
    before = [folder_sha256(folder) for folder in folders]
    shutil.rmtree(project / ".work")
    output = repro(project, "--force", "--single-item", "dedup", "extract", "curate")
    assert ran(output) == {"dedup", "extract", "curate"}
    assert [folder_sha256(folder) for folder in folders] == before
