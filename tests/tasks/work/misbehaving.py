"""Functions for workers that die, raise, wait: in a module that a restarted worker loads in no time."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

from facemill.errors import InputError
from facemill.reasons import Reason
from tasks.work.silence import beater


def pid(_: Any) -> int:
    return os.getpid()


def behave(item: int | str) -> int:
    """Numbers are fine; words misbehave."""
    if item == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "exit":
        os._exit(3)
    if item == "raise":
        raise RuntimeError("poison")
    if item == "reason":
        raise InputError(Reason.TRUNCATED, "row 7")
    if item == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/1.mp4")
    assert isinstance(item, int)
    return item * 2


def behave_all(items: list[int | str]) -> int:
    return sum(behave(item) for item in items)


def singles(items: list[int | str]) -> Any:
    return behave, items


def die_once(folder: str) -> int:
    """Kills its worker the first time; afterwards says how many others were at work."""
    mark = Path(folder, "died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return len(list(Path(folder).glob("busy-*")))


def stay_busy(folder: str) -> None:
    mark = Path(folder, f"busy-{time.monotonic_ns()}")
    mark.touch()
    time.sleep(0.2)
    mark.unlink()


def wait_long(_: int) -> None:
    time.sleep(60)


def get_on(item: int | str) -> int:
    """Says that it gets on, for longer than it may be silent; or begins and then waits, or never says anything."""
    if item == "unwatched":
        time.sleep(3)
        return 0
    beat = beater()
    if item == "silent":
        time.sleep(600)
    assert isinstance(item, int)
    for _ in range(15):
        time.sleep(0.2)
        beat()
    return item * 2


def mark_slowly(path: str, seconds: float) -> None:
    """Writes down that it has begun and, some seconds later, that it is done."""
    Path(path).with_suffix(".begun").touch()
    time.sleep(seconds)
    Path(path).with_suffix(".done").touch()
