"""Locks that die with their process, and that say who holds them.

The kernel's lock on an open file (flock) is what counts; what stands in the file is only for the message. So a lock
file that a killed process left is no lock.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from facemill.errors import FacemillError
from facemill.files import is_full
from facemill.processes import ProcessId, this_process

_ENDING_S = 90.0  # a holder that has lost whom it works for saves and ends; a training's last state takes longest
_RECORD_S = 0.5  # between taking a lock and writing down who did
_TICK_S = 0.05
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def locked(
    path: Path, busy: str, advice: str, *, works_for: Sequence[ProcessId] = (), wait_s: float = 0.0
) -> Iterator[None]:
    """Holds the lock on the file `path` during the block; never waits for another one's work, unless it is said.

    Args:
        path: the lock file; it and the folders above are made, and it stays.
        busy: what the holder is doing, such as "stage train is already running in /project"; then comes who that is.
        advice: what to do about it.
        works_for: processes without whom this one ends by itself. Who comes while such a holder ends, waits for that.
        wait_s: how long to wait for a holder that is about to finish.

    Raises:
        FacemillError: another process holds it, or no lock can be had there at all.
    """
    descriptor = _open(path)
    try:
        if not _take(descriptor, path) and not _take_later(descriptor, path, wait_s):
            raise FacemillError(f"{busy} ({_describe(_holder(descriptor))}): {advice}")
        with suppress(OSError):  # a full disk: the lock holds all the same
            _sign(descriptor, works_for)
        yield
    finally:
        os.close(descriptor)


def try_lock(path: Path) -> IO[str] | None:
    """The file `path`, open for reading and writing, with the lock on it; None where another one has the lock.

    Whoever inherits its descriptor holds the lock, too: it is free when the last of them has closed the file or died.

    Raises:
        FacemillError: no lock can be had there at all.
    """
    descriptor = _open(path)
    try:
        if _take(descriptor, path):
            return os.fdopen(descriptor, "r+", encoding="utf-8")
    except BaseException:  # Ctrl-C, too: nobody else knows of the open file
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock on the file `path`; a file that is not there is not locked."""
    try:
        with path.open("rb") as stream:
            return not _take(stream.fileno(), path, shared=True)
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if is_full(error):
            raise FacemillError(f"no space left in {path.parent}: free some and run the same command again") from error
        raise FacemillError(
            f"{path.parent} cannot be written to ({error.strerror}), and without a lock there nothing is begun: "
            "make it writable for this user, or take another folder"
        ) from error


def _take(descriptor: int, path: Path, *, shared: bool = False) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise FacemillError(
                f"the file system of {path.parent} has no locks ({error.strerror}): put the folder on one that has"
            ) from error
        raise
    return True


def _take_later(descriptor: int, path: Path, wait_s: float) -> bool:
    start = time.monotonic()
    while (waited := time.monotonic() - start) < wait_s or (waited < _ENDING_S and _is_ending(_holder(descriptor))):
        time.sleep(_TICK_S)
        if _take(descriptor, path):
            return True
    return _take(descriptor, path)


def _sign(descriptor: int, works_for: Sequence[ProcessId]) -> None:
    record = {
        "process": str(this_process()),
        "machine": platform.node(),
        "command": shlex.join(sys.argv),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "works_for": [str(process) for process in works_for],
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(record).encode(), 0)


def _holder(descriptor: int) -> dict[str, Any]:
    """What the holder wrote down; nothing where it could not, or has not yet."""
    end = time.monotonic() + _RECORD_S
    while time.monotonic() < end:
        with suppress(ValueError):
            record = json.loads(os.pread(descriptor, 1 << 20, 0))
            if isinstance(record, dict):
                return record
        time.sleep(_TICK_S)
    return {}


def _is_ending(record: dict[str, Any]) -> bool:
    named = [ProcessId.parse(str(text)) for text in record.get("works_for", ())]
    return any(process.is_here and not process.is_alive for process in named if process)


def _describe(record: dict[str, Any]) -> str:
    process = ProcessId.parse(str(record.get("process")))
    if process is None:
        return "by a process that did not say who it is"
    where = "" if process.is_here else f" on {record.get('machine')}"
    return f"process {process.pid}{where}, since {record.get('since')}: {record.get('command')}"
