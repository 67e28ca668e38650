"""One stage through DVC as a Prefect task: tried again, ended on time, its lines and rows on the page."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from prefect import flow
from stand_ins import set_knobs, stages_run

from facemill.errors import FacemillError
from facemill.patience import Rule
from flows.stages import Metrics, push, run_stage
from tasks.stages import STAGES
from tasks.versions import dvc


@flow
def one_stage(project: Path, stage: str) -> Metrics:
    return run_stage(project, stage)


@pytest.mark.usefixtures("prefect")
def test_collect_is_tried_again_and_then_takes_up_failed_rows(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Rule(60, 3, 0, "as in life, without the wait")
    monkeypatch.setitem(STAGES, "inventory", dataclasses.replace(STAGES["inventory"], rule=rule))
    set_knobs(project, inventory={"fail": 1, "says": "no route to host"})
    assert one_stage(project, "inventory")["ok"] == 3
    assert (project / "ran.txt").read_text() == "inventory \ninventory 1\n"


@pytest.mark.usefixtures("prefect")
@pytest.mark.parametrize("shell", ["execs", "stays"])
@pytest.mark.parametrize("whom", ["stage", "dvc"])
def test_a_stage_that_was_killed_is_tried_again_whatever_its_rule_says_of_errors(
    project: Path, whom: str, shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert STAGES["dedup"].rule.tries == 1
    monkeypatch.setenv("SHELL", str(_shell(tmp_path, shell)))  # DVC runs its stages with that
    for stage in ("inventory", "collect"):
        dvc.repro(project, stage, deadline_s=60)
    set_knobs(project, dedup={"sleep": 600})

    def kill() -> None:
        pid = wait_for_pid(project / "dedup.pid")
        set_knobs(project, dedup={})
        (project / "dedup.pid").unlink()
        os.kill(pid if whom == "stage" else _dvc_above(pid), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert one_stage(project, "dedup")["ok"] == 3
    killer.join()
    assert stages_run(project).count("dedup") == 2


def _shell(folder: Path, kind: str) -> Path:
    """One that becomes its last command, as bash does, or one that stays above it and ends with 128 + the signal."""
    if kind == "execs":
        return Path("/bin/bash")
    path = folder / "staying-shell"
    path.write_text('#!/bin/sh\n/bin/bash "$@"\nexit $?\n')
    path.chmod(0o755)
    return path


@pytest.mark.usefixtures("prefect")
def test_a_stage_that_failed_alike_is_not_tried_again(project: Path) -> None:
    for stage in ("inventory", "collect"):
        dvc.repro(project, stage, deadline_s=60)
    set_knobs(project, dedup={"fail": 1, "says": "two rows have one id"})
    with pytest.raises(FacemillError, match="two rows have one id"):
        one_stage(project, "dedup")
    assert stages_run(project).count("dedup") == 1


@pytest.mark.usefixtures("prefect")
def test_a_stage_is_not_run_again_for_a_file_that_prefect_remembers(project: Path) -> None:
    one_stage(project, "inventory")
    (project / "data" / "inventory" / "made.txt").unlink()
    one_stage(project, "inventory")
    assert (project / "data" / "inventory" / "made.txt").exists()


@pytest.mark.usefixtures("prefect")
def test_push_goes_to_the_default_remote_if_there_is_one(project: Path, tmp_path: Path) -> None:
    @flow
    def send() -> None:
        push(project, ["inventory"])

    dvc.repro(project, "inventory", deadline_s=60)
    send()
    dvc.call(project, "remote", "add", "--default", "store", str(tmp_path / "store"))
    send()
    assert list((tmp_path / "store").rglob("*.dir"))


def test_a_stage_that_hangs_is_ended_with_all_its_processes(project: Path) -> None:
    set_knobs(project, inventory={"sleep": 600})
    with pytest.raises(FacemillError, match="ended after its deadline of 6 s"):
        dvc.repro(project, "inventory", deadline_s=6)
    assert stages_run(project) == ["inventory"]
    assert not lives(int((project / "inventory.pid").read_text()))


def test_a_killed_flow_leaves_no_stage_behind(project: Path) -> None:
    set_knobs(project, inventory={"sleep": 600})
    call = (
        "from pathlib import Path; from tasks.versions import dvc\n"
        f"dvc.repro(Path({str(project)!r}), 'inventory', deadline_s=99)"
    )
    caller = subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pid = wait_for_pid(project / "inventory.pid")
    caller.send_signal(signal.SIGINT)
    assert caller.wait(60) != 0
    assert not lives(pid)


def test_lines_and_progress_arrive_while_the_stage_runs(project: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    seen: list[str] = []
    progress = tmp_path / "progress.json"

    def tick() -> None:
        if progress.exists():
            seen.append(progress.read_text())

    set_knobs(project, inventory={"sleep": 3})
    dvc.repro(project, "inventory", deadline_s=60, on_line=lines.append, on_tick=tick, progress_file=progress)
    assert "inventory: 4/4 rows" in "\n".join(lines)
    assert any('"done": 1' in text or '"done": 2' in text for text in seen)


def lives(pid: int) -> bool:
    """Whether a process still runs; one that has ended and that nobody has collected does not."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_for_pid(path: Path) -> int:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text()):
            return int(text)
        time.sleep(0.1)
    raise AssertionError(f"{path.name} did not appear")


def _dvc_above(pid: int) -> int:
    """The DVC that started the stage with this process id."""
    above = psutil.Process(pid).parents()
    return next(process.pid for process in above if process.cmdline()[1:3] == ["-m", "dvc"])
