"""One process at a time, and who it is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facemill import locks
from facemill.errors import FacemillError
from facemill.locks import is_locked, locked, try_lock
from facemill.processes import running_process

PROJECT = Path(locks.__file__).parent.parent
HOLDS = """
import sys, time
from pathlib import Path
from facemill.locks import locked
from facemill.processes import ProcessId
with locked(Path(sys.argv[1]), "", "", works_for=[ProcessId.parse(each) for each in sys.argv[2:]]):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(path: Path, *works_for: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDS, str(path), *map(str, works_for)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_is_the_first_and_goes_on_after_its_death(tmp_path: Path) -> None:
    path = tmp_path / "scratch" / "x.lock"
    with holder(path) as process:
        words = rf"^x runs \(process {process.pid}, since 20\d\d-.*: -c .*x\.lock.*\): wait$"
        with pytest.raises(FacemillError, match=words), locked(path, "x runs", "wait"):
            raise AssertionError
        process.kill()
    with locked(path, "x runs", "wait"):
        pass


def test_who_holds_it_is_known_in_the_same_process_too(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "x", "x runs", "wait"),
        pytest.raises(FacemillError, match=f"process {os.getpid()}"),
        locked(tmp_path / "x", "x runs", "wait"),
    ):
        raise AssertionError


def test_a_holder_that_has_lost_whom_it_works_for_is_waited_for(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as master:
        works_for = running_process(master.pid)
        with holder(tmp_path / "x", works_for) as process:
            with pytest.raises(FacemillError, match="wait"), locked(tmp_path / "x", "x runs", "wait"):
                raise AssertionError
            master.kill()
            master.wait()
            subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {process.pid}"])
            start = time.monotonic()
            with locked(tmp_path / "x", "x runs", "wait"):
                assert time.monotonic() - start > 0.5


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b'{"process": 1}', b"\xff" * 9])
def test_whatever_stands_in_a_left_file_is_no_lock(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "x").write_bytes(left)
    with locked(tmp_path / "x", "x runs", "wait"):
        pass


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(FacemillError, match="a file"), locked(tmp_path / "a file" / "x", "x runs", "wait"):
        raise AssertionError
    with pytest.raises(FacemillError, match="cannot be written to"), locked(Path("/proc/x.lock"), "x runs", "wait"):
        raise AssertionError


def test_who_may_wait_waits_for_a_holder_that_finishes_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with holder(path) as process:
        start = time.monotonic()
        with pytest.raises(FacemillError, match="x runs"), locked(path, "x runs", "wait", wait_s=0.5):
            raise AssertionError
        assert time.monotonic() - start > 0.5
        subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {process.pid}"])
        with locked(path, "x runs", "wait", wait_s=60):
            assert time.monotonic() - start < 30


def test_a_lock_lives_with_the_process_that_has_inherited_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert not is_locked(path)
    stream = try_lock(path)
    assert stream is not None
    assert try_lock(path) is None
    with subprocess.Popen(["sleep", "600"], pass_fds=[stream.fileno()]) as heir:
        stream.close()
        assert is_locked(path)
        assert try_lock(path) is None
        heir.kill()
    assert not is_locked(path)
    with try_lock(path) or pytest.fail("it is free again"):
        assert is_locked(path)
