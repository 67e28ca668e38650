"""`facemill clean`: what stages have made goes, everything else stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from facemill.errors import FacemillError
from flows.command_line.main import app
from tasks.commands.clean import clean, made
from tasks.stages import STAGES, only_one

KEPT = (
    "params.yaml",
    "dvc.yaml",
    "dvc.lock",
    "data/.gitignore",
    "data/metrics/.gitignore",
    "data/mine/a.jpg",
    ".venv/x",
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in which every stage has run, with files of the user's own between theirs."""
    outputs = [path for stage in STAGES.values() for path in (*stage.makes, stage.metrics) if path is not None]
    files = [f"{path}" if Path(path).suffix else f"{path}/00000.parquet" for path in outputs]
    for name in (*files, ".work/train/abc/state.safetensors", *KEPT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"0123456789")
    return tmp_path


def files(project: Path) -> set[str]:
    return {path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()}


def test_what_the_stages_have_made_goes_and_the_rest_stays(project: Path) -> None:
    found = dict(made(project))
    assert found[Path("data/weights")] == found[Path("data/raw")] == found[Path(".work")] == 10
    clean(project)
    assert {name for name in files(project) if not name.endswith(".lock")} == {*KEPT} - {"dvc.lock"}
    assert "dvc.lock" in files(project)
    assert made(project) == []
    clean(project)


def test_a_link_is_removed_and_not_what_it_leads_to(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("a large disk")
    (elsewhere / "00000.parquet").write_bytes(b"x")
    (project / "data" / "raw" / "00000.parquet").unlink()
    (project / "data" / "raw").rmdir()
    (project / "data" / "raw").symlink_to(elsewhere)
    clean(project)
    assert not (project / "data" / "raw").is_symlink()
    assert (elsewhere / "00000.parquet").exists()


def test_nothing_is_removed_while_a_stage_runs(project: Path) -> None:
    before = files(project)
    with only_one(project, "train"), pytest.raises(FacemillError, match="stage train is already running"):
        clean(project)
    assert files(project) >= before


def test_a_folder_that_is_no_project_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    with pytest.raises(FacemillError, match=r"no dvc\.yaml in"):
        clean(tmp_path)
    assert (tmp_path / "data" / "raw").exists()


@pytest.mark.parametrize(
    ("arguments", "answer", "gone"), [([], "n\n", False), ([], "y\n", True), (["--yes"], "", True), ([], "", False)]
)
def test_it_asks_first(project: Path, arguments: list[str], answer: str, gone: bool) -> None:
    result = CliRunner().invoke(app, ["clean", "--root", str(project), *arguments], input=answer)
    assert "data/raw" in result.output
    assert (project / "data" / "raw").exists() is not gone
