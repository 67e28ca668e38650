"""Whoever kills DVC alone has killed its stage and the stage's workers, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from facemill.processes import running_process, this_process
from tasks.work.callers import CALLER_VARIABLE, callers

PROJECT = Path(__file__).resolve().parents[3]
STAGE = f"""
import os, sys, time
sys.path.insert(0, {str(PROJECT)!r})
from pathlib import Path
from tasks.params import ClusterParams
from tasks.work.cluster import open_pool
from tasks import stages

def write(name):
    Path(name).write_text(str(os.getpid()))
    time.sleep(600)

class Sleeps:
    metrics, makes, reads = None, (), ()
    def run(self, params, root, *, retry):
        try:
            Path("stage.pid").write_text(str(os.getpid()))
            with open_pool(ClusterParams(kind="local", workers=1)) as pool:
                list(pool.run(write, ["worker.pid"]))
        finally:
            Path("cleaned").touch()

if __name__ == "__main__":
    stages.STAGES["sleeps"] = Sleeps()
    stages.run_stage("sleeps", Path.cwd())
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(STAGE)
    (tmp_path / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True, timeout=60)
    return tmp_path


def started(project: Path, name: str) -> psutil.Process:
    end = time.monotonic() + 90
    while not (project / name).exists() or not (project / name).read_text():
        assert time.monotonic() < end, name
        time.sleep(0.1)
    return psutil.Process(int((project / name).read_text()))


@pytest.mark.parametrize("command", ["slow.py", "slow.py; true"], ids=["child", "child of the shell"])
def test_a_stage_and_its_workers_end_with_dvc(project: Path, command: str) -> None:
    (project / "dvc.yaml").write_text(f"stages: {{sleeps: {{cmd: '{sys.executable} {command}'}}}}")
    log = (project / "log").open("w")
    dvc = subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=project, stdout=log, stderr=log)
    worker, stage = started(project, "worker.pid"), started(project, "stage.pid")
    os.kill(dvc.pid, signal.SIGKILL)
    dvc.wait()
    gone, alive = psutil.wait_procs([stage, worker], timeout=60)
    assert not alive, (gone, (project / "log").read_text())
    assert (project / "cleaned").exists()  # the way Ctrl-C ends it


def test_a_stage_that_a_person_starts_works_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.delenv(CALLER_VARIABLE, raising=False)
    assert callers() == []


def test_a_stage_that_has_lost_dvc_before_it_looked_works_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.delenv(CALLER_VARIABLE, raising=False)
    monkeypatch.setattr(psutil.Process, "parents", lambda self: [psutil.Process(1)])  # adopted by the first process
    assert callers() == []


def test_a_flow_that_calls_dvc_is_named_to_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CALLER_VARIABLE, str(this_process()))
    monkeypatch.setenv("DVC_STAGE", "train")
    parent = [running_process(os.getppid())] if os.getppid() != 1 else []  # as of tests that nobody waits for
    assert callers() == [*parent, this_process()]
    monkeypatch.setenv(CALLER_VARIABLE, "nonsense")
    assert callers() == parent
