"""What a killed DVC leaves behind, mended before the next DVC stumbles over it.

DVC writes `dvc.lock` and `.dvc/tmp/rwlock` (who reads and writes which output) in place: killed at that moment, it
leaves them empty or cut off, and every later run ends with "corrupted" until somebody takes the file away. And a number
in rwlock may belong to another process by now, which DVC then waits for. Only what is provably dead is touched, under
DVC's own locks; who holds them is left alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil

from facemill.errors import FacemillError
from facemill.files import write_bytes
from facemill.locks import is_locked, try_lock
from tasks.versions import dvc_lock, git
from tasks.versions.dvc_lock import LOCK_FILE
from tasks.work.scratch import WORK_FOLDER
from tasks.work.terminal import say

_TMP = Path(".dvc") / "tmp"
_HARDLINK = re.compile(rb"^\s*hardlink_lock\s*=\s*true", re.MULTILINE | re.IGNORECASE)  # then the file is the lock
_SLACK_S = 2.0  # the clock of the file system and that of the processes


def keep_lock(root: Path) -> None:
    """Keeps a copy of dvc.lock. To be called by a stage that DVC has started: nobody writes it then."""
    if (root / LOCK_FILE).exists():
        write_bytes(_kept(root), (root / LOCK_FILE).read_bytes())
    else:
        _kept(root).unlink(missing_ok=True)


def mend(root: Path) -> None:
    """Mends dvc.lock and DVC's lock files where a killed DVC has left them broken, and says so.

    Raises:
        FacemillError: dvc.lock holds a merge conflict; rwlock is broken while another DVC is at work. Each with what
            to do.
    """
    if not (root / ".dvc").is_dir():
        return
    _mend_lock(root)
    _mend_rwlock(root)


def running(root: Path) -> list[str]:
    """Who is at work in the project with DVC, each as "process 12: dvc repro".

    That is every DVC, and whoever has DVC's lock: a flow asks DVC in its own process.
    """
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            arguments = _arguments(process.cmdline())
            if arguments is not None and Path(process.cwd()).is_relative_to(root):
                found[process.pid] = f"dvc {' '.join(arguments)}"
    with suppress(OSError, ValueError, FacemillError, psutil.Error):
        lock = root / _TMP / "lock"  # DVC writes its number there; that of the last one stays
        if is_locked(lock):
            holder = psutil.Process(int(lock.read_text()))
            found.setdefault(holder.pid, " ".join(holder.cmdline()))
    return [f"process {number}: {words}" for number, words in found.items() if number != os.getpid()]


def _mend_lock(root: Path) -> None:
    """Brings back the copy that the last stage has kept, or git's; with neither, DVC begins anew.

    What such a copy lacks costs little: DVC has the results in its run cache, and the stages theirs in scratch.
    """
    path = root / LOCK_FILE
    if not path.exists() or _is_whole(path.read_bytes()):
        return
    with _held(root, "lock") as nobody_writes:
        if not nobody_writes or _is_whole(path.read_bytes()):
            return  # what is being written is never whole
        if dvc_lock.is_conflict(path):
            dvc_lock.read(root)  # says what to do
        broken = root / WORK_FOLDER / f"{LOCK_FILE}.broken"
        write_bytes(broken, path.read_bytes())
        kept = _kept(root).read_bytes() if _kept(root).exists() else b""
        committed = _committed(root)
        if _is_whole(kept):
            write_bytes(path, kept)
            state = "it is again as it was when the last stage began"
        elif _is_whole(committed):
            write_bytes(path, committed)
            state = "it is again that of the last commit"
        else:
            path.unlink()
            state = "DVC looks anew at every stage"
    say(f"{LOCK_FILE} was cut off, as when DVC is killed: {state} (what was left of it: {broken})", error=True)


def _committed(root: Path) -> bytes:
    with suppress(FacemillError):  # no git
        return git.show(root, "HEAD", LOCK_FILE) or b""
    return b""


def _is_whole(content: bytes) -> bool:
    try:
        return content.endswith(b"\n") and "schema" in dvc_lock.parse(content)  # which DVC asks for
    except FacemillError:
        return False


def _mend_rwlock(root: Path) -> None:
    path = root / _TMP / "rwlock"
    if not path.exists():
        return
    with _held(root, "rwlock.lock") as nobody_writes:
        if not nobody_writes or not path.exists():
            return
        entries = _parse(path.read_bytes())
        if entries is None:
            if others := running(root):
                raise FacemillError(
                    f"{path} was cut off when a DVC was killed, while another one is at work ({'; '.join(others)}): "
                    "wait until that has ended, or end it, and run the same command again"
                )
            write_bytes(path, b"{}")
            say(f"{path} was cut off when DVC was killed: mended, no DVC is at work", error=True)
            return
        written_s = path.stat().st_mtime
        dead = sorted({str(info["pid"]) for info in _infos(entries) if not _lives(info, written_s)})
        if dead:
            write_bytes(path, json.dumps(_without(entries, dead)).encode())
            say(f"{path} named processes that are no DVC any more ({', '.join(dead)}): taken out", error=True)


def _kept(root: Path) -> Path:
    return root / WORK_FOLDER / LOCK_FILE


@contextmanager
def _held(root: Path, name: str) -> Iterator[bool]:
    """Holds one of DVC's locks as DVC does (zc.lockfile: flock); False where DVC holds it, or may by other means."""
    configs = [root / ".dvc" / config for config in ("config", "config.local")]
    if any(path.exists() and _HARDLINK.search(path.read_bytes()) for path in configs):
        yield False
        return
    stream = None
    with suppress(OSError, FacemillError):
        stream = try_lock(root / _TMP / name)
    with stream or nullcontext():
        yield stream is not None


def _parse(content: bytes) -> dict[str, Any] | None:
    """What DVC wrote: `{"write": {path: info}, "read": {path: [info, …]}}`; None where it is nothing of the kind."""
    try:
        entries = json.loads(content)
        for info in _infos(entries):
            int(info["pid"]), str(info["cmd"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return dict(entries)


def _infos(entries: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from entries.get("write", {}).values()
    for infos in entries.get("read", {}).values():
        yield from infos


def _without(entries: dict[str, Any], dead: list[str]) -> dict[str, Any]:
    def lives(info: dict[str, Any]) -> bool:
        return str(info["pid"]) not in dead

    write = {path: info for path, info in entries.get("write", {}).items() if lives(info)}
    read = {path: [info for info in infos if lives(info)] for path, infos in entries.get("read", {}).items()}
    return {"write": write, "read": {path: infos for path, infos in read.items() if infos}}


def _lives(info: dict[str, Any], written_s: float) -> bool:
    """Whether the process that an entry names can still be the DVC that made it."""
    try:
        process = psutil.Process(int(info["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE or process.create_time() > written_s + _SLACK_S:
            return False
        words = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # somebody else's: it may be
        return True
    arguments = _arguments(words)
    if arguments is None:  # a program that calls DVC's API, or none that has to do with DVC
        return any(info["cmd"] == " ".join(words[at:]) for at in range(len(words)))
    return str(info["cmd"]).endswith(" ".join(["", *arguments]))


def _arguments(words: list[str]) -> list[str] | None:
    """Those of DVC in a command line, None where it is no DVC: `python -m dvc repro`, `/bin/dvc repro`."""
    for at, word in enumerate(words[:4]):
        if Path(word).name in ("dvc", "dvc.exe"):
            return words[at + 1 :]
    return None
