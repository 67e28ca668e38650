"""Told to end by several at once: systemd signals every process, and the one in front hands its signal on as well."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from flows.serve import _Runner
from flows.staying import _Loop, _told_to_end

PROJECT = Path(__file__).resolve().parents[2]
TOLD_AT_ONCE = """
import os, signal, subprocess, sys, time
from flows.staying import _told_to_end

keeps_on = (
    "import os, sys, time\\nwhile os.getppid() == int(sys.argv[1]):\\n"
    "    os.kill(int(sys.argv[1]), 15)\\n    time.sleep(0.0003)"  # without a pause two of them starve two cores
)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
senders = [subprocess.Popen([sys.executable, "-S", "-c", keeps_on, str(os.getpid())]) for _ in range(2)]
end = time.monotonic() + 15
while time.monotonic() < end:
    with _told_to_end() as told:
        assert told.wait(10)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
for sender in senders:
    sender.kill()
print("ended")
"""


def test_signals_that_come_at_once_are_one_request_and_block_nobody() -> None:
    """An Event is not to be set in a signal's handler: interrupted there by another one, it waits for itself."""
    done = subprocess.run(
        [sys.executable, "-c", TOLD_AT_ONCE], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stderr


@pytest.mark.usefixtures("prefect")
def test_prefects_loop_leaves_signals_alone_and_ends_without_a_warning() -> None:
    """Its own answer to SIGTERM would run in the middle of anything, and there it never awaits its own end."""
    runner = _Runner(name="facemill", pause_on_shutdown=False)
    with _told_to_end() as told, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        loop = _Loop(runner.start)
        while not runner.started:
            loop.check()
            assert not told.wait(0.1)
        signal.raise_signal(signal.SIGTERM)
        assert told.wait(10)
        loop.end()
    assert isinstance(loop._error, asyncio.CancelledError)
    assert not [each for each in warned if "never awaited" in str(each.message)]
