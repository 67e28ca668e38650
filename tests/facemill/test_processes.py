"""Who a process is, and a process that ends with its master."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from facemill import processes
from facemill.processes import ProcessId, running_process, this_process


def test_a_number_that_is_given_again_is_another_process() -> None:
    me = this_process()
    assert me.is_alive
    assert me.is_here
    assert running_process(os.getpid()) == me
    assert ProcessId.parse(str(me)) == me
    assert not ProcessId(me.place, me.pid, "0" * 12).is_alive
    process = subprocess.Popen([sys.executable, "-c", ""])
    child = running_process(process.pid)
    assert child is not None
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not child.is_alive  # a zombie
    process.wait()
    assert not child.is_alive
    assert ProcessId.parse("0a-1-2") is None


MASTER_GONE = """
import sys, time, signal
from facemill.processes import ProcessId, ends_with
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with ends_with([ProcessId.parse(sys.argv[1])], grace_s=0.5):
    time.sleep(600)
"""


@pytest.mark.parametrize(("manner", "number"), [("polite", -15), ("deaf", -9)])
def test_a_process_ends_with_its_master(manner: str, number: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(processes.__file__).parent.parent)}
    with subprocess.Popen(["sleep", "600"]) as master:
        command = [sys.executable, "-c", MASTER_GONE, str(running_process(master.pid)), manner]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
            master.kill()
            master.wait()
            assert process.wait(30) == number
            assert process.stderr is not None
            assert "has ended: ends, too" in process.stderr.read()
