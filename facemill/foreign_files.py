"""Files that somebody else has made: of which kind they are, how one is opened, and names that a file system takes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import zipfile
import zlib
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

_NAME_BYTES = 255  # as ext4, XFS, Btrfs, ZFS, APFS and NTFS (or fewer) have it
_LOOKS_ESCAPED = re.compile(r"\\(?=x(?:5c|[89a-f][0-9a-f]))")
_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISLNK, "a link"),
)


def open_regular(path: Path) -> BufferedReader:
    """A file to be read, never a pipe, a socket or a device: opening one may wait for ever, or do something to it.

    Raises:
        OSError: as `open`, and where the path is no regular file, or a link to none.
    """
    _must_be_regular(os.stat(path), path)
    # not to wait for the other end, where a pipe has just taken its place
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    try:
        _must_be_regular(os.fstat(stream.fileno()), path)
    except OSError:
        stream.close()
        raise
    return stream


class BrokenZip(ValueError):
    """What is no zip file, or one that was cut off, is encrypted, or expands to more than it says."""


def zip_member(stream: BinaryIO, name: str, max_bytes: int) -> bytes:
    """A file out of a zip file that somebody else has made.

    Args:
        stream: the zip file.
        name: of the file in it.
        max_bytes: of the file, unpacked.

    Raises:
        KeyError: there is no such file in it.
        BrokenZip: the file cannot be read, or is larger.
    """
    try:
        with zipfile.ZipFile(stream) as packed:
            if packed.getinfo(name).file_size > max_bytes:
                raise BrokenZip(f"{name} in it has more than {max_bytes} bytes")
            with packed.open(name) as member:
                content = member.read(max_bytes + 1)  # what a header says may be a lie
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        # NotImplementedError: a compression that Python has not; RuntimeError: it is encrypted
        raise BrokenZip(str(error) or type(error).__name__) from error
    if len(content) > max_bytes:
        raise BrokenZip(f"{name} in it has more than {max_bytes} bytes")
    return content


def _must_be_regular(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"it is {kind_of(status.st_mode)}, not a file", str(path))


def kind_of(mode: int) -> str:
    """What a mode of `stat` belongs to, in words: "a pipe"."""
    return next((text for is_one, text in _KINDS if is_one(mode)), "something unknown")


def valid_name(name: str) -> str:
    r"""A file name, or a path, as valid Unicode: tables and messages cannot hold the half characters of one that is no
    UTF-8.

    A byte that belongs to no character becomes `\xe9`. Different names stay different: where a name says that itself,
    letter for letter, its backslash becomes `\x5c`. Every other name is kept as it is.
    """
    return os.fsencode(_LOOKS_ESCAPED.sub(r"\\x5c", name)).decode("utf-8", "backslashreplace")


def fitting_name(name: str, suffix: str = "") -> str:
    """The name with a suffix, shortened where a file system would not take it: `beginning~12 hex digits` + suffix.

    Equal names give equal ones; what differs stays different.

    Args:
        name: a name, or a path with `/`, of which the last part is shortened.
        suffix: what must stand at its end, as it is.
    """
    folder, slash, last = name.rpartition("/")
    if len(os.fsencode(last + suffix)) <= _NAME_BYTES:
        return name + suffix
    mark = f"~{hashlib.sha256(os.fsencode(last)).hexdigest()[:12]}"
    room = _NAME_BYTES - len(os.fsencode(mark + suffix))
    kept = os.fsencode(last)[:room].decode("utf-8", "ignore")  # a character that is cut in two goes
    return f"{folder}{slash}{kept}{mark}{suffix}"
