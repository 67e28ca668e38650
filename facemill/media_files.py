"""Listing files below a folder that a person named: sorted, safe against loops, hidden files left out."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from facemill.errors import FacemillError, InputError
from facemill.reasons import Reason

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".wmv", ".ogv"}
)


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files with one of the suffixes (any case) below a folder, or the folder itself if it is such a file.

    Links are followed, each folder once; hidden files and folders are skipped. The order is that of the names with
    forward slashes, the same on every machine.

    Raises:
        FacemillError: no such folder, or it may not be read.
    """
    if folder.is_file():
        return [folder] if folder.suffix.lower() in suffixes else []
    if not folder.is_dir():
        raise FacemillError(f"{folder} does not exist: correct the path in params.yaml, or put the files there")
    found: list[Path] = []
    visited: set[str] = set()

    def refuse(error: OSError) -> None:
        raise FacemillError(f"{error.filename} cannot be read ({error.strerror}): change its permissions") from error

    for current, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(current)
        if real in visited:  # a link that leads back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(current, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def stable_name(path: Path, folder: Path, called: str | None = None) -> str:
    """A file's name for tables, the same on every machine: forward slashes, always valid Unicode.

    Args:
        path: the file.
        folder: the folder below which it was found, or the file itself.
        called: what stands before the path below the folder, by default the folder's own name; empty for nothing.
    """
    called = folder.name if called is None else called
    below = path.name if path == folder else f"{called}/{path.relative_to(folder).as_posix()}".removeprefix("/")
    return os.fsencode(below).decode("utf-8", "backslashreplace")


def read_limited(path: Path, max_bytes: int) -> bytes:
    """A file's bytes.

    Raises:
        InputError: TOO_LARGE above `max_bytes`, without reading it; UNREADABLE when the system refuses.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise InputError(Reason.TOO_LARGE, f"{size} bytes, limit {max_bytes}")
        return path.read_bytes()
    except OSError as error:
        raise InputError(Reason.UNREADABLE, error.strerror or type(error).__name__) from error


def valid_name(name: str) -> str:
    """A file name as valid Unicode: tables and messages cannot hold the half characters of one that is no UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
