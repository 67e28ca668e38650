"""SHA-256 of files that seldom change: read once, and again only when size or time of a file have changed.

The memory of them, in `.work/hashes`, may be deleted at any time. What decides is always the content; size and time
only say that a file need not be read again, as git and DVC have it. As with git, the time is also that which nobody
can set, and what was changed just now is not remembered, nor what is newer than the clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import file_sha256, foreign_stamp, is_settled, read_object, stamp, write_json
from tasks.work.progress import track
from tasks.work.scratch import WORK_FOLDER

UNREADABLE = "unreadable"
"""Stands for the hash of a file that cannot be read: whoever opens it says why."""


def hash_files(
    root: Path, name: str, files: Iterable[Path], *, ours: bool = False, show: bool = False
) -> dict[Path, str]:
    """SHA-256 of each file, 64 hex digits.

    Args:
        root: of the project.
        name: of the memory: `.work/hashes/NAME.json` holds just the files of the last call.
        files: any paths; one that cannot be read gets `UNREADABLE`.
        ours: whether stages wrote them, which link them from folder to folder, and nobody replaces them.
        show: whether a person sees how many of those that have to be read are read.
    """
    cache_file = root / WORK_FOLDER / "hashes" / f"{name}.json"
    old = _read_cache(cache_file)
    stamps = {path: _stamp(path, ours=ours) for path in files}
    names = {path: _name(path, root) for path in stamps}
    hashes = {
        path: old[names[path]][1] for path, now in stamps.items() if now and old.get(names[path], [None])[0] == now
    }
    unread = [path for path in stamps if path not in hashes]
    shown = track(name, len(unread), "files") if show and unread else nullcontext()
    with shown as progress:
        for path in unread:
            hashes[path] = _hash(path)
            if progress is not None:
                progress.advance(note=path.name)
    cache = {
        names[path]: [now, hashes[path]]
        for path, now in stamps.items()
        if now and hashes[path] != UNREADABLE and (ours or is_settled(now))
    }
    if cache != old:
        write_json(cache_file, cache)
    return hashes


def _name(path: Path, root: Path) -> str:
    """Inside the project without the project's own place, so that a project that is moved or copied knows its files."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError:
        return UNREADABLE


def _stamp(path: Path, *, ours: bool) -> dict[str, int] | None:
    try:
        return stamp(path) if ours else foreign_stamp(path)
    except OSError:
        return None


def _read_cache(path: Path) -> dict[str, Any]:
    """What is remembered of each file: its stamp and its hash; nothing of one of which it is anything else."""
    try:
        cache = read_object(path)
    except FacemillError:  # there was none, it was cut, or it is none of ours
        return {}
    return {name: one for name, one in cache.items() if isinstance(one, list) and [*map(type, one)] == [dict, str]}
