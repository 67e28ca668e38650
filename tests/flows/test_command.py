"""`python -m flows`: codes, and messages that a person can act on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_ins import set_knobs, stages_run

WITHOUT_SERVER = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}


def flows(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows", *arguments]
    return subprocess.Popen(command, cwd=folder, env=WITHOUT_SERVER, stderr=subprocess.PIPE, text=True)


def test_pools_without_a_server_say_what_to_set(tmp_path: Path) -> None:
    process = flows(tmp_path, "pools")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: pools lie in a server: set PREFECT_API_URL")


def test_a_wrong_parameter_is_said_at_once(tmp_path: Path) -> None:
    process = flows(tmp_path, "refresh")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: no params.yaml in ")


@pytest.mark.slow
def test_an_interrupted_flow_ends_its_stage_and_its_server(project: Path) -> None:
    set_knobs(project, inventory={"sleep": 600})
    process = flows(project, "refresh")
    end = time.monotonic() + 120
    while not stages_run(project):
        assert time.monotonic() < end
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: what was finished is kept" in errors
    stage = Path(f"/proc/{(project / 'inventory.pid').read_text()}")
    assert not stage.exists() or ") Z " in (stage / "stat").read_text()
