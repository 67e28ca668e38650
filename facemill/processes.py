"""Who a process is, so that what it left can be told from what it still writes; and how one is ended.

A number alone does not say that: it is given again, after a restart of the machine at the latest. So a process is its
number, the moment at which the system started it, and the place in which the number counts (a machine, a container).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_ENDED = ("Z", "X", "x")  # a zombie holds its number until its parent asks for it, and does nothing any more
_TOKEN = re.compile(r"([0-9a-f]{8})-(\d+)-([0-9a-f]{12})")


@dataclass(frozen=True)
class ProcessId:
    """A process, named so that no other one ever has the same name.

    Attributes:
        place: 8 hex digits for the machine and, in it, the container (PID namespace).
        pid: its number there.
        birth: 12 hex digits for the start of the system and the moment since then at which the process started.
    """

    place: str
    pid: int
    birth: str

    def __str__(self) -> str:
        return f"{self.place}-{self.pid}-{self.birth}"

    @classmethod
    def parse(cls, text: str) -> ProcessId | None:
        """The reverse of `str`; None for any other text."""
        found = _TOKEN.fullmatch(text)
        return cls(found[1], int(found[2]), found[3]) if found else None

    @property
    def is_here(self) -> bool:
        """Whether this machine and container can say anything about it."""
        return self.place == _place()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs. Only to be asked where `is_here`."""
        return _birth(self.pid) == self.birth


def this_process() -> ProcessId:
    """The process that asks; right in a fork, too."""
    pid = os.getpid()
    return ProcessId(_place(), pid, _birth(pid) or _NO_BIRTH)


def running_process(pid: int) -> ProcessId | None:
    """The process that has this number now; None where there is none."""
    birth = _birth(pid)
    return ProcessId(_place(), pid, birth) if birth is not None else None


@contextmanager
def ends_with(masters: Sequence[ProcessId], grace_s: float = 180.0) -> Iterator[None]:
    """Ends this process when one of its masters ends during the block, however suddenly that is.

    It gets SIGTERM first, as if a person had ended it, so that it saves and cleans up, and SIGKILL if that has not
    brought it down.

    Args:
        masters: who must live; none: nothing is watched.
        grace_s: seconds between the two signals.
    """
    over = threading.Event()

    def watch() -> None:
        while all(master.is_alive for master in masters):
            if over.wait(_LOOK_EVERY_S):
                return
        with suppress(OSError, ValueError):  # whoever read this may be gone as well
            print("the process that this one works for has ended: ends, too", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        if not over.wait(grace_s):
            os.kill(os.getpid(), signal.SIGKILL)

    if masters:
        threading.Thread(target=watch, name="ends-with", daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Lets what asks this process to end wait until the block is over: one request is often made twice, by a terminal
    or a service manager to all processes and by their starter once more, and the second would cut short what the first
    has made begin. Outside the main thread, which alone is told, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    kept = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        handler = signal.getsignal(number)
        if handler not in (signal.SIG_IGN, None):  # None: not set by Python
            kept[number] = handler
            signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


def end_group(
    process: subprocess.Popen[Any], grace_s: float, *, leader_passes_on: bool = False, whole_session: bool = False
) -> None:
    """Ends a process that leads a group, and all of the group: SIGTERM, so that they clean up, and after `grace_s`
    SIGKILL to those that are left. Returns as soon as all have ended, and some seconds after SIGKILL whatever happens.

    Args:
        process: the leader, started with `start_new_session` or `process_group=0`; it may have ended already.
        grace_s: seconds between the two signals; 0: nothing is worth saving, SIGKILL at once.
        leader_passes_on: SIGTERM goes to the leader alone, since it tells the others, for whom a second one means more.
        whole_session: also those of its session that have put themselves into groups of their own.
    """

    def left() -> list[int]:
        process.poll()  # else the leader stays a zombie
        return _members(process.pid, whole_session=whole_session)

    if grace_s > 0:
        if leader_passes_on:
            process.terminate()
        else:
            _signal(left(), signal.SIGTERM)
        end = time.monotonic() + grace_s
        while left() and time.monotonic() < end:
            time.sleep(_LOOK_AGAIN_S)
    end = time.monotonic() + _KILLED_WITHIN_S
    while (members := left()) and time.monotonic() < end:
        _signal(members, signal.SIGKILL)  # again in the next round, for those that were just being started
        time.sleep(_LOOK_AGAIN_S)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_KILLED_WITHIN_S)


def _members(leader: int, *, whole_session: bool) -> list[int]:
    """Processes of a group that do something still, and those of the session that its leader began."""
    if not Path("/proc/self/stat").exists():
        return [-leader] if _lives(-leader) else []  # as `kill` has it, the group
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            pid = int(entry.name)
            with suppress(ProcessLookupError, PermissionError):
                if leader in (os.getpgid(pid), os.getsid(pid) if whole_session else None) and _birth(pid) is not None:
                    found.append(pid)
    return found


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _lives(pid: int) -> bool:
    """Without /proc: a zombie counts as alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's: it lives
        pass
    return True


_KILLED_WITHIN_S = 10.0  # after SIGKILL only the kernel can hold a process, on a disk that does not answer
_LOOK_AGAIN_S = 0.05
_NO_BIRTH = "0" * 12
_LOOK_EVERY_S = 0.5


@lru_cache(maxsize=1)
def _place() -> str:
    with suppress(OSError):  # not on Linux: the machine's name must do
        return _digest(platform.node(), os.readlink("/proc/self/ns/pid"))[:8]
    return _digest(platform.node())[:8]


@lru_cache(maxsize=1)
def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _birth(pid: int) -> str | None:
    """When a process started, as a digest; None where none (or a zombie) has this number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _birth_without_proc(pid)
    # 2nd field is the command in parentheses, which may hold anything; the 3rd is the state, the 22nd the start
    fields = stat[stat.rindex(b")") + 2 :].decode("ascii").split()
    return None if fields[0] in _ENDED else _digest(_boot(), fields[19])[:12]


def _birth_without_proc(pid: int) -> str | None:
    return _NO_BIRTH if _lives(pid) else None


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
