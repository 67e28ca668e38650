"""Whatever ends DVC, and at whatever moment: its files are whole before a person types the next command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from facemill.processes import running_process
from tasks.versions import keeper

WHOLE = b"schema: '2.0'\nstages: {}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True, timeout=60)
    (tmp_path / ".work").mkdir()
    (tmp_path / "dvc.lock").write_bytes(WHOLE)
    (tmp_path / ".work" / "dvc.lock").write_bytes(WHOLE)
    return tmp_path


@pytest.fixture
def master() -> Iterator[subprocess.Popen[bytes]]:
    """Stands for DVC: what it is does not matter, only that it lives."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def keep(project: Path, master: subprocess.Popen[bytes]) -> psutil.Process:
    found = running_process(master.pid)
    assert found is not None
    keeper.keep(project, found)
    token, waited_for = (project / ".work" / "keeper").read_text().split()
    assert waited_for == str(found)
    return psutil.Process(int(token.split("-")[1]))


def soon(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("left", [b"", WHOLE[:9]])
def test_what_a_killed_dvc_leaves_is_mended_though_nobody_calls_anything(
    project: Path, master: subprocess.Popen[bytes], left: bytes
) -> None:
    waiting = keep(project, master)
    (project / "dvc.lock").write_bytes(left)
    (project / ".dvc" / "tmp" / "rwlock").write_bytes(b"")
    os.killpg(master.pid, signal.SIGKILL)  # the keeper is in no group of it
    master.wait()
    assert soon(lambda: not waiting.is_running() or waiting.status() == psutil.STATUS_ZOMBIE)
    assert (project / "dvc.lock").read_bytes() == WHOLE
    assert (project / ".dvc" / "tmp" / "rwlock").read_bytes() == b"{}"
    assert "dvc.lock was cut off" in (project / keeper.LOG_FILE).read_text()


def test_one_keeper_waits_for_all_stages_of_a_dvc_and_touches_nothing_while_it_lives(
    project: Path, master: subprocess.Popen[bytes]
) -> None:
    first = keep(project, master)
    (project / "dvc.lock").write_bytes(b"")  # as DVC does while it writes
    assert keep(project, master).pid == first.pid
    time.sleep(1.0)
    assert (project / "dvc.lock").read_bytes() == b""
    assert first.is_running()


def test_the_next_dvc_has_a_keeper_of_its_own(project: Path, master: subprocess.Popen[bytes]) -> None:
    first = keep(project, master)
    other = subprocess.Popen(["sleep", "600"])
    try:
        assert keep(project, other).pid != first.pid
    finally:
        other.kill()
        other.wait()
