"""Faces as folders: what is written, and what comes back as decisions of a person."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reviewed import face_id, project, sha
from typer.testing import CliRunner

from facemill import tables
from facemill.align import transform
from facemill.pictures import decode
from facemill.schema import DATASET
from flows.command_line.main import app
from tasks.curating.decisions import read_decisions


@pytest.fixture
def root(tmp_path: Path, hopper: np.ndarray, collins: np.ndarray) -> Path:
    root = project(tmp_path / "project", {"anna": hopper, "bert": collins}, each=8)
    rows = [*tables.iterate_rows(root / "data/dataset", DATASET)]
    for number, row in enumerate(rows):
        row["landmarks"] = (np.arange(136) + number).tolist()
        row["affine"] = [0.5, 0.1, 3.0, -0.1, 0.5, 7.0]
    tables.write_table(root / "data/dataset", [tables.from_rows(rows, DATASET)])
    return root


def run(root: Path, *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--root", str(root)])
    return result.output if result.exit_code == 0 else str(result.exception)


def test_faces_lie_by_person_and_reason_with_their_alignments(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    assert "anna: 15 faces." in run(root, "export", "faces", str(folder), "--rejected")
    lines = [json.loads(line) for line in (folder / "alignments.jsonl").read_text().splitlines()]
    assert len(lines) == len([*folder.rglob("*.jpg")]) == 23
    blurred = next(line for line in lines if line["error"] == "blurred")
    assert blurred["file"] == f"anna/_blurred/{face_id('blurred')}.jpg"
    assert decode((folder / blurred["file"]).read_bytes()).shape == (192, 192, 3)
    points, affine = np.array(blurred["landmarks"]), np.array(blurred["affine"])
    assert (points.shape, affine.shape) == ((68, 2), (2, 3))
    np.testing.assert_allclose(blurred["landmarks_in_file"], transform(points, affine), atol=1e-3)
    assert (blurred["licence"], blurred["url"]) == ("CC-BY-4.0", "anna/blurred.jpg")
    assert "is not an empty folder" in run(root, "export", "faces", str(folder))


def test_what_is_deleted_or_moved_comes_back_as_decisions(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    run(root, "export", "faces", str(folder), "--rejected")
    assert "nothing to decide" in run(root, "import", "faces", str(folder))
    (folder / f"anna/{face_id('anna-1')}.jpg").unlink()
    moves = {
        "anna/_blurred/{}": ("blurred", "anna/{}"),
        "anna/_other_identity/{}": ("stranger", "bert/{}"),
        "anna/{}": ("anna-2", "anna/_blurred/{}"),
    }
    for before, (name, after) in moves.items():
        file = f"{face_id(name)}.jpg"
        (folder / before.format(file)).rename(folder / after.format(file))
    (folder / f"anna/_extreme_pose/{face_id('turned')}.jpg").unlink()  # was rejected, and stays it
    assert "decisions.csv has 4 decisions of it" in run(root, "import", "faces", str(folder))
    found = {
        one.sample_id: (one.verdict.value, one.identity, one.place) for one in read_decisions(root, ("anna", "bert"))
    }
    assert found == {
        sha("anna-1"): ("drop", "", (160, 140)),
        sha("anna-2"): ("drop", "", (160, 140)),
        sha("blurred"): ("keep", "anna", (160, 140)),
        sha("stranger"): ("keep", "bert", (160, 140)),
    }


def test_an_import_asks_before_it_drops_most_and_names_what_is_wrong(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    run(root, "export", "faces", str(folder))
    (folder / "carl").mkdir()
    stray = folder / f"anna/{face_id('anna-1')}.jpg"
    stray.rename(folder / "carl" / stray.name)
    assert "in the folder of 'carl', whom params.yaml does not know" in run(root, "import", "faces", str(folder))
    stray.write_bytes(b"")
    assert "twice: leave the one that is right" in run(root, "import", "faces", str(folder))
    for path in folder.rglob("*.jpg"):
        path.unlink()
    assert "18 of the 18 faces" in run(root, "import", "faces", str(folder))
    assert not (root / "decisions.csv").exists()
    assert "has 18 decisions of it" in run(root, "import", "faces", str(folder), "--even-many")


LINE = {"format": 1, "file": "a/b.jpg", "sample_id": "a" * 64, "box": [1, 2, 3, 4]}
CHANGES: list[dict[str, Any]] = [{"format": 2}, {"file": "../../x/b"}, {"file": "b"}, {"sample_id": "x"}]
CHANGES += [{"box": box} for box in ([1], "1234", None, [float("nan")] * 4, [1e9] * 4)]


@pytest.mark.parametrize(
    "line",
    [b"{", b"\xff", b"[]", b"null", b"{}", b"[" * 100_000, *(json.dumps(LINE | one).encode() for one in CHANGES)],
    ids=range(6 + len(CHANGES)),
)
def test_a_broken_list_is_told_with_its_line(root: Path, tmp_path: Path, line: bytes) -> None:
    folder = tmp_path / "faces"
    run(root, "export", "faces", str(folder))
    with (folder / "alignments.jsonl").open("ab") as stream:
        stream.write(line + b"\n")
    assert "line 19: not as `facemill export faces` writes it" in run(root, "import", "faces", str(folder))


def test_the_old_command_names_the_new_ones() -> None:
    result = CliRunner().invoke(app, ["export"])
    assert "`facemill export model` writes ONNX" in str(result.exception)
