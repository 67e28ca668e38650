"""Listing files below a folder that a person named: sorted, safe against loops, hidden files left out."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from facemill.errors import FacemillError, InputError
from facemill.foreign_files import kind_of, open_regular, valid_name
from facemill.reasons import Reason

PICTURE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".heic", ".heif", ".gif"),
        *(".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob"}
    | {".ts", ".mts", ".m2ts", ".m2t", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".ogm", ".3gp", ".3g2", ".mxf", ".dv"}
    | {".rm", ".rmvb", ".nut", ".y4m"}
)


SKIPPED_NAMED = 5
KINDS_NAMED = 8

Tell = Callable[[str], object]
"""What is to be done with a message for the person who watches."""


def tell_nobody(message: str) -> None:
    """The `Tell` of whoever has nobody watching."""


def list_files(folder: Path, suffixes: Collection[str] | None, tell: Tell = tell_nobody) -> list[Path]:
    """Files with one of the suffixes (any case) below a folder, or the folder itself if it is such a file.

    Links are followed, each folder once; hidden files and folders are skipped. Pipes, sockets and devices with such a
    name are skipped too, and told. A link that leads nowhere is listed: whoever opens it says so, in a row of its own.
    The order is that of the names with forward slashes, the same on every machine.

    Args:
        folder: where to look, or a file.
        suffixes: in lower case, with the dot; None for files of any name.
        tell: gets one message, if something was skipped that is no file.

    Raises:
        FacemillError: no such folder, or it may not be read.
    """
    if folder.is_file():
        return [folder] if _is_called(folder.name, suffixes) else []
    if not folder.is_dir():
        if folder.exists():
            raise FacemillError(f"{folder} is {kind_of(folder.stat().st_mode)}: name a file or a folder")
        raise FacemillError(f"{folder} does not exist: correct the path in params.yaml, or put the files there")
    found: list[Path] = []
    skipped: list[tuple[Path, str]] = []
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
        for name in files:
            if name.startswith(".") or not _is_called(name, suffixes):
                continue
            path = Path(current, name)
            if kind := _other_than_file(path):
                skipped.append((path, kind))
            else:
                found.append(path)
    if skipped:
        tell(_told(skipped, folder))
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _is_called(name: str, suffixes: Collection[str] | None) -> bool:
    return suffixes is None or Path(name).suffix.lower() in suffixes


def _other_than_file(path: Path) -> str | None:
    """What a path or the end of its link is, where that is there and no file; nothing is opened."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return None if stat.S_ISREG(mode) else kind_of(mode)


def _told(skipped: Collection[tuple[Path, str]], folder: Path) -> str:
    named = sorted(f"{path.relative_to(folder).as_posix()} is {kind}" for path, kind in skipped)
    more = len(named) - SKIPPED_NAMED
    return f"{folder}: skipped {len(named)} that are no files ({'; '.join(named[:SKIPPED_NAMED])}" + (
        f"; and {more} more)" if more > 0 else ")"
    )


def stable_name(path: Path, folder: Path, called: str | None = None) -> str:
    """A file's name for tables, the same on every machine: forward slashes, always `valid_name`.

    Args:
        path: the file.
        folder: the folder below which it was found, or the file itself.
        called: what stands before the path below the folder, by default the folder's own name; empty for nothing.
    """
    called = folder.name if called is None else called
    below = path.name if path == folder else f"{called}/{path.relative_to(folder).as_posix()}".removeprefix("/")
    return valid_name(below)


def read_limited(path: Path, max_bytes: int) -> bytes:
    """A file's bytes.

    Raises:
        InputError: TOO_LARGE above `max_bytes`, without reading it; UNREADABLE when the system refuses.
    """
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > max_bytes:
                raise InputError(Reason.TOO_LARGE, f"{size} bytes, limit {max_bytes}")
            return stream.read()
    except OSError as error:
        raise InputError(Reason.UNREADABLE, error.strerror or type(error).__name__) from error


def list_holding(folder: Path, holds: Callable[[Path], bool], what: str, tell: Tell = tell_nobody) -> list[Path]:
    """Those files below a folder that hold what is wanted, in the order of `list_files`.

    Args:
        holds: whether a file does; it may open it.
        what: the others are, for one message that counts them by their suffixes: "no videos".

    Raises:
        FacemillError: as `list_files`.
    """
    found, others = [], Counter[str]()
    for path in list_files(folder, None, tell):
        if holds(path):
            found.append(path)
        else:
            others[path.suffix.lower() or "without a suffix"] += 1
    if others:
        kinds = [f"{count} {suffix}" for suffix, count in others.most_common(KINDS_NAMED)]
        more = others.total() - sum(count for _, count in others.most_common(KINDS_NAMED))
        rest = f", {more} others" if more else ""
        tell(f"{folder}: {others.total()} files are {what} and were left ({', '.join(kinds)}{rest})")
    return found
