"""What must be writable before anything starts, and how much room is left there.

A disk that is full or read-only would otherwise be told by whoever meets it first, at length and minutes later.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from facemill.errors import FacemillError
from facemill.files import is_full
from tasks.catalogue import Data

LEAST_BYTES = 256 * 2**20
"""Below this a disk counts as full: a shard or a video's part would no longer fit."""
LEAST_FILES = 1_000
_PROBE_BYTES = 2**16


@dataclass(frozen=True)
class Place:
    """A folder that must take files."""

    folder: Path
    use: str
    """What goes there, to follow `where …`."""
    remedy: str
    files: tuple[Path, ...] = ()
    """Which are changed where they lie, if they are there."""


@dataclass(frozen=True)
class Room:
    """What a file system has left."""

    folder: Path
    free_bytes: int


def check_room(project: Path) -> list[Room]:
    """Sees to it that a project's folders can be written and have room; returns what is left, once for each disk.

    Nothing is left behind in them, not even by a process that is killed.

    Raises:
        FacemillError: one cannot be written or is full, with what to do about it.
    """
    found: dict[int, Room] = {}
    for place in _places(project):
        folder = existing(place.folder)
        try_to_write(folder, place)
        for path in place.files:
            if path.exists() and not os.access(path, os.W_OK):
                raise FacemillError(f"{path} cannot be written by this user: give it to them, {place.remedy}")
        left = os.statvfs(folder)
        free = left.f_bavail * left.f_frsize
        if free < LEAST_BYTES:
            raise FacemillError(
                f"{folder}, where {place.use}, has only {free // 2**20} MiB left: free some, {place.remedy}"
            )
        if left.f_files and left.f_favail < LEAST_FILES:  # some file systems do not count files
            raise FacemillError(
                f"{folder}, where {place.use}, takes only {left.f_favail} more files: delete some, {place.remedy}"
            )
        found.setdefault(folder.stat().st_dev, Room(folder, free))
    return list(found.values())


def prefect_home(project: Path) -> Path:
    """Where Prefect keeps its history."""
    return Path(os.environ.get("PREFECT_HOME") or project / ".prefect")


def _places(project: Path) -> list[Place]:
    another = "or put the project on another disk"
    home = prefect_home(project)
    database = tuple(home / f"prefect.db{ending}" for ending in ("", "-wal", "-shm"))
    return [
        Place(home, "Prefect keeps its history", "or set PREFECT_HOME to a folder on another disk", database),
        Place(project, "DVC notes what it has done", another),
        Place(project / Data.ALL, "the stages' tables go", another),
        Place(project / ".work", "the stages keep finished parts", another),
        Place(Path(tempfile.gettempdir()), "temporary files go", "or set TMPDIR to a folder on another disk"),
    ]


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def try_to_write(folder: Path, place: Place) -> None:
    """Writes a file that has no name there. Raises FacemillError with the remedy where that does not work."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        what, do = ("is full", "free some") if is_full(error) else ("cannot be written", "make it writable")
        raise FacemillError(f"{folder}, where {place.use}, {what} ({error.strerror}): {do}, {place.remedy}") from error
