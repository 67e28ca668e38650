"""Flows from the command line: codes, messages that a person can act on, and signals that end all of it."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stand_ins import set_knobs, stages_run

WITHOUT_SERVER = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
ENTERED = """
import os, sys, time
from pathlib import Path
from flows.command_line.session import flow_process

try:
    with flow_process(Path()):
        Path("child.pid").write_text(f"{os.getpid()}")
        BLOCK
except KeyboardInterrupt:
    Path("told.txt").write_text("interrupted")
    sys.exit(130)
"""
PROJECT = Path(__file__).resolve().parents[3]


def facemill(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.command_line", *arguments]
    return subprocess.Popen(command, cwd=folder, env=WITHOUT_SERVER | variables, stderr=subprocess.PIPE, text=True)


def entered(folder: Path, block: str, before: str = "") -> subprocess.Popen[str]:
    """A process that enters its own session and runs a block there."""
    shutil.copy(PROJECT / "params.yaml", folder)
    code = before + ENTERED.replace("BLOCK", block)
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True)


def wait_for(path: Path) -> str:
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end, f"{path.name} did not appear"
        time.sleep(0.02)
    return path.read_text()


def lives(pid: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z " not in stat.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_the_first_process_is_told_reaches_the_one_that_works(tmp_path: Path, number: signal.Signals) -> None:
    process = entered(tmp_path, "time.sleep(60)")
    child = wait_for(tmp_path / "child.pid")
    assert os.getsid(int(child)) == int(child) != os.getsid(process.pid)
    process.send_signal(number)
    assert process.wait(30) == 130
    assert (tmp_path / "told.txt").read_text() == "interrupted"
    assert not lives(child)


def test_a_flow_that_a_shell_started_in_the_background_can_be_interrupted(tmp_path: Path) -> None:
    process = entered(tmp_path, "time.sleep(60)", "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n")
    wait_for(tmp_path / "child.pid")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_under_nohup_a_closed_terminal_ends_nothing(tmp_path: Path) -> None:
    process = entered(
        tmp_path, "time.sleep(2); print('done')", "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    )
    wait_for(tmp_path / "child.pid")
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30)[0] == "done\n"
    assert process.returncode == 0


def test_a_flow_does_not_outlive_the_process_that_was_started(tmp_path: Path) -> None:
    process = entered(tmp_path, "time.sleep(60)")
    child = wait_for(tmp_path / "child.pid")
    process.kill()
    wait_for(tmp_path / "told.txt")
    while lives(child):
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("block", "code"),
    [("pass", 0), ("sys.exit(1)", 1), ("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137)],
)
def test_the_code_is_that_of_the_process_that_works(tmp_path: Path, block: str, code: int) -> None:
    assert entered(tmp_path, block).wait(30) == code


@pytest.mark.parametrize(
    "command", [["nights"], ["server"], ["login"], ["pools"], ["worker", "cpu"], ["serve"]], ids=" ".join
)
def test_a_folder_of_the_project_is_not_taken_for_one(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "params.yaml").touch()
    (tmp_path / ".dvc").mkdir()
    below = tmp_path / "data" / "dataset"
    below.mkdir(parents=True)
    process = facemill(below, *command)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert f"{below} lies inside the project {tmp_path}: run this there, or name it with --root {tmp_path}" in told
    assert list(below.iterdir()) == []


def test_pools_without_a_server_say_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").touch()
    process = facemill(tmp_path, "pools")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: pools lie in a server: start `facemill server`, or set PREFECT_API_URL")


@pytest.mark.parametrize("command", [["run", "refresh"], ["run", "convert"], ["serve"]], ids=" ".join)
def test_a_wrong_parameter_is_said_at_once(tmp_path: Path, command: list[str]) -> None:
    process = facemill(tmp_path, *command)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: no params.yaml in ")


def test_an_archive_without_an_output_is_refused(tmp_path: Path) -> None:
    process = facemill(tmp_path, "run", "convert", "--archive", str(tmp_path), "--model", str(tmp_path))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: --archive and --output belong together")


def test_wrong_usage_of_a_flow_is_code_two(tmp_path: Path) -> None:
    assert facemill(tmp_path, "run", "refresh", "--twice").wait(60) == 2


def test_the_last_lines_of_a_flow_reach_its_server_before_that_ends(project: Path) -> None:
    as_for_people = {"PREFECT_LOGGING_TO_API_ENABLED": "true", "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "2"}
    process = facemill(project, "run", "refresh", **as_for_people)  # in tests nothing is sent, and at once
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "Error logging" not in errors
    with sqlite3.connect(next((project / ".prefect").glob("*.db"))) as history:
        lines = [line for (line,) in history.execute("SELECT message FROM log ORDER BY timestamp")]
    assert lines[-1].startswith("Finished in state Completed")
    assert sum(line.startswith("Finished in state Completed") for line in lines) > 3  # of the flow, and of its tasks


@pytest.mark.slow
def test_an_interrupted_flow_ends_its_stage_and_its_server(project: Path) -> None:
    set_knobs(project, inventory={"sleep": 600})
    process = facemill(project, "run", "refresh")
    end = time.monotonic() + 120
    while not stages_run(project):
        assert time.monotonic() < end
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted: what was finished is kept" in errors
    assert not lives((project / "inventory.pid").read_text())
