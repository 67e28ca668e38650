"""The command of dvc.yaml's stages is found in an environment that nobody activated."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from facemill.files import read_json
from tasks.versions import dvc

PROJECT = Path(__file__).resolve().parents[3]
ENVIRONMENT = Path(sys.executable).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pipeline and parameters of this project, in which nothing has run; no environment is active."""
    monkeypatch.setenv("PATH", "/usr/local/bin:/usr/bin:/bin")
    assert shutil.which("facemill") is None
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    dvc.call(tmp_path, "init", "--quiet")
    return tmp_path


def test_dvc_that_is_called_by_its_path_finds_the_environment_of_the_project(project: Path) -> None:
    (project / ".venv").symlink_to(ENVIRONMENT)
    subprocess.run([ENVIRONMENT / "bin" / "dvc", "repro", "--quiet", "inventory"], cwd=project, check=True, timeout=300)
    assert read_json(project / "data" / "inventory.json")["sources"]


def test_a_flow_finds_its_own_environment(project: Path) -> None:
    dvc.repro(project, "inventory", deadline_s=300)
    assert read_json(project / "data" / "inventory.json")["sources"]


def test_without_any_environment_the_message_names_what_is_missing(project: Path) -> None:
    command = [sys.executable, "-m", "dvc", "repro", "inventory"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode
    assert "facemill" in result.stderr
    assert "127" in result.stderr
