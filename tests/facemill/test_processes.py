"""Who a process is, and a process that ends with its master."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facemill import processes
from facemill.processes import ProcessId, end_group, running_process, this_process


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


LEADER = """
import os, signal, subprocess, sys
def told(number, frame):
    print("told", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, signal.SIG_IGN if sys.argv[1] == "deaf" else told)
child = "import signal, sys, time; {}print('child', flush=True); time.sleep(600)"
deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if "deaf" in sys.argv[1] else ""
subprocess.Popen([sys.executable, "-c", child.format(deaf)], process_group=0 if sys.argv[1] == "own group" else None)
signal.pause()
"""


@pytest.mark.parametrize(
    ("manner", "grace_s", "options", "said"),
    [
        ("polite", 20, {}, ["told"]),
        ("polite", 0, {}, []),
        ("polite", 0.3, {"leader_passes_on": True}, ["told"]),
        ("deaf", 0.3, {}, []),
        ("deaf child", 0.3, {}, ["told"]),
        ("own group", 0, {"whole_session": True}, []),
    ],
)
def test_a_group_has_ended_after_it_was_ended(
    manner: str, grace_s: float, options: dict[str, bool], said: list[str]
) -> None:
    command = [sys.executable, "-c", LEADER, manner]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline() == "child\n"
        began = time.monotonic()
        end_group(leader, grace_s, **options)
        assert leader.stdout.read().split() == said  # the pipe's end: nobody of them holds it any more
        assert time.monotonic() - began < 15
    end_group(leader, grace_s, **options)  # nobody is left to be ended
