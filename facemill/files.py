"""Files and folders that appear whole or not at all.

Everything that facemill publishes is written under a temporary name in the same folder, flushed, and takes its name in
one step that cannot be half done; then the folder with the name is flushed. Kill the process at any moment, or take
the machine's power: either the old content lies there whole, or the new.

A killed process leaves at most something with a name of the form `.facemill-…` that only this module gives. `sweep`
removes what dead processes left, and nothing else: neither what a living one still writes nor anybody's own files.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from facemill.errors import FacemillError
from facemill.foreign_files import open_regular
from facemill.processes import ProcessId, this_process

TEMPORARY_PREFIX = ".facemill-"
_NEW, _OLD = "new", "old"
_TEMPORARY = re.compile(
    re.escape(TEMPORARY_PREFIX) + rf"(?P<kind>{_NEW}|{_OLD})-(?P<owner>[0-9a-f]+-\d+-[0-9a-f]+)-[0-9a-f]{{8}}"
    r"(\.[0-9A-Za-z]{1,16})?"
)
_SUFFIX = re.compile(r"\.[0-9A-Za-z]{1,16}")
_FOREIGN_S = 24 * 3600.0  # after so long without a change, what another machine was writing is taken for abandoned
_WAIT_S = 1.0
_TICK_NS, _COARSE_TICK_NS = 20_000_000, 2_000_000_000  # the longest of Linux is 10 ms; FAT has 2 s

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # <fcntl.h>, <linux/fs.h>
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV)


@contextmanager
def atomic_path(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`; after the block it is flushed and takes the name `path`.

    The temporary path has the suffix of `path`, since some writers go by it, and no more of its name: that may have
    all the 255 bytes that a name can have.

    Args:
        path: the file to be.
        durable: False does not wait for the disk, for what nobody misses when the machine has lost its power.

    Raises:
        FacemillError: the disk is full or the folder cannot be written; the temporary file is gone, `path` untouched.
    """
    temporary = path.with_name(_temporary_name(_NEW, path.suffix))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            flush(temporary)
        os.replace(temporary, path)
        if durable:
            flush(path.parent)
    except OSError as error:
        _explain(error, path)
        raise
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def scratch_path(beside: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder and with the same suffix; what was written there goes after the block,
    or by `sweep` where the process was killed."""
    temporary = beside.with_name(_temporary_name(_NEW, beside.suffix))
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside `target` that takes its place after the block, or leaves no trace.

    All that lies in it is flushed, then it is exchanged for what `target` was, in one step. Where the file system
    cannot do that (some network ones, and overlays with a folder that came with the image), several steps stand for
    it: whoever is killed between them leaves the old folder under a name from which `put_back` brings it back.

    Raises:
        FacemillError: the disk is full, or `target` is a mount point; `target` is as it was.
    """
    with _switched(target) as temporary:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                flush(Path(folder, name))


def publish_folder(target: Path, files: Mapping[str, Path | bytes], *, copy: bool = False) -> None:
    """Makes `target` hold exactly these files, in one step: nobody ever sees some of the old and some of the new.

    Args:
        target: the folder; it may exist or not. What lies in it and is not named goes.
        files: path inside the folder, with `/` → the finished (flushed) file that shall lie there, or its content.
        copy: give copies, for files that somebody writes on in place. Else the files get a second name (hard link),
            and are copied only where the file system has no links or lies elsewhere.

    Raises:
        FacemillError: as `atomic_folder`.
        ValueError: a path that leads out of the folder.
    """
    with _switched(target) as folder:
        for name, source in files.items():
            inner = PurePosixPath(name)
            if inner.is_absolute() or ".." in inner.parts:
                raise ValueError(f"{name!r} is no path inside a folder")
            path = folder / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(source, bytes):
                path.write_bytes(source)
            elif not copy:
                link_or_copy(source, path)
                continue
            else:
                shutil.copyfile(source, path)
            flush(path)


def link_or_copy(source: Path, target: Path) -> None:
    """Gives a finished file a second name (hard link); a flushed copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:  # no links there, another disk, too many links: a copy will do, or say why not
        shutil.copyfile(source, target)
        flush(target)


def keep_date(source: Path, target: Path) -> None:
    """Gives a file the date of another: an archive is sorted by it."""
    status = source.stat()
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def put_back(folder: Path) -> None:
    """Brings the old folder back where somebody was killed in the middle of replacing it (see `atomic_folder`)."""
    end = time.monotonic() + _WAIT_S
    for retired, owner in _retired(folder):
        while owner.is_here and owner.is_alive and time.monotonic() < end and retired.exists():
            time.sleep(0.01)  # it is in the middle of that
        if not _may_be_written(retired, owner):
            with suppress(OSError):  # somebody else was quicker
                _restore(retired, folder)


def _explain(error: OSError, path: Path) -> None:
    """Raises the FacemillError for what a person can mend about the place of `path`; returns for anything else."""
    if is_full(error):
        raise FacemillError(
            f"no space left to write {path.name} in {path.parent}: free some and run the same command again; "
            "what was finished is kept"
        ) from error
    there = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(path.parent)
    if error.errno == errno.EROFS or (error.errno in (errno.EACCES, errno.EPERM) and there):
        raise FacemillError(
            f"{path.name} cannot be written in {path.parent} ({error.strerror}): make the folder writable for this "
            "user and run the same command again; what was finished is kept"
        ) from error


def is_full(error: OSError) -> bool:
    """Whether the disk, a quota or the file system's largest file was reached."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Writes a file so that it appears whole or not at all. `durable` and errors as `atomic_path` has them."""
    with atomic_path(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON with sorted keys atomically: equal values give equal bytes. Escaped to ASCII, since
    file names may hold what UTF-8 cannot."""
    write_bytes(path, as_json(value))


def as_json(value: Any) -> bytes:
    """The bytes that `write_json` writes."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def read_json(path: Path) -> Any:
    """Reads JSON; a missing or broken file is an error that names it.

    Raises:
        FacemillError: no such file, or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FacemillError(f"{path} is missing: run the stage that makes it first") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FacemillError(f"{path} is not JSON ({error}): delete it and run the stage that makes it again") from error


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """Reads a JSON object that has these keys at least.

    Raises:
        FacemillError: no such file, not JSON, or something else than such an object.
    """
    found = read_json(path)
    if not isinstance(found, dict) or any(key not in found for key in keys):
        lacks = "is no JSON object" if not isinstance(found, dict) else f"lacks {', '.join({*keys} - {*found})}"
        raise FacemillError(f"{path} {lacks}: delete it and run the stage that makes it again")
    return found


def stamp(path: Path) -> dict[str, int]:
    """A file's size and time of its last change, as plain values for JSON: while they are the same, so is the content,
    for all that can be seen without reading it. Raises OSError where there is no such file, or it may not be seen.

    For files that facemill writes. Whoever replaces another one can give it any time: `foreign_stamp`.
    """
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def foreign_stamp(path: Path) -> dict[str, int]:
    """The same for files that others write, with the time that nobody can set (ctime): a copy that takes over the old
    file's time (`cp -p`, `rsync -t`, an archive that is unpacked) is seen to be another file.

    Links change that time, too: of files that stages link from folder to folder it says nothing.
    """
    return {**stamp(path), "ctime_ns": path.stat().st_ctime_ns}


def is_settled(stamped: Mapping[str, int]) -> bool:
    """Whether a file with such a `foreign_stamp` gets another one if it is changed from now on.

    Not so if it was changed within the clock's last tick, or if the clock was set back since: a change may then have
    the very same time.
    """
    coarse = stamped["ctime_ns"] % 1_000_000_000 == 0  # a file system that counts whole seconds, or pairs of them
    return stamped["ctime_ns"] < time.time_ns() - (_COARSE_TICK_NS if coarse else _TICK_NS)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits, read in blocks."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_as_stamped(path: Path, stamped: Mapping[str, int] | None, sha256: str | None) -> bool:
    """Whether a file is what it was: by size and time, and by content where only its time is another."""
    if not isinstance(stamped, Mapping) or not path.is_file():  # it may come from a file that anybody has edited
        return False
    now = foreign_stamp(path)
    as_stamped = all(now.get(key) == value for key, value in stamped.items())
    return as_stamped or (now["bytes"] == stamped["bytes"] and file_sha256(path) == sha256)


def folder_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder, hidden ones left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            digest.update(os.fsencode(f"{relative.as_posix()}\0{file_sha256(path)}\n"))
    return digest.hexdigest()


def sweep(folder: Path, *, deep: bool = True) -> None:
    """Removes what killed processes left behind in a folder, and with `deep` in all those below it.

    What a living process writes stays. Of what another machine or container began nobody can say whether it lives:
    it goes when nothing was written to it for a day. A folder that was being replaced is put back.
    """
    for path in list((folder.rglob if deep else folder.glob)(f"{TEMPORARY_PREFIX}*")):
        found = _TEMPORARY.fullmatch(path.name)
        owner = ProcessId.parse(found["owner"]) if found else None
        if found is None or owner is None or _may_be_written(path, owner):
            continue
        if found["kind"] == _OLD and path.is_dir():
            for name in (names := os.listdir(path)):
                put_back(path.with_name(name))
            if not names:
                _remove(path)
        else:
            _remove(path)


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that does not flush folders has nothing to wait for
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _switched(target: Path) -> Iterator[Path]:
    """`atomic_folder` for files that were flushed when they were written."""
    target = target.resolve()  # a folder that was moved to a larger disk, with a link in its place, stays there
    put_back(target)
    temporary = target.with_name(_temporary_name(_NEW))
    try:
        temporary.mkdir(parents=True)
        if target.is_dir():
            shutil.copymode(target, temporary)
        yield temporary
        for folder, _, _ in os.walk(temporary):
            flush(Path(folder))
        _switch(temporary, target)
        flush(target.parent)
    except OSError as error:
        _explain(error, target)
        raise
    finally:
        _remove(temporary)


def _temporary_name(kind: str, suffix: str = "") -> str:
    """At most 80 bytes of ASCII, whatever the final name is."""
    kept = suffix if _SUFFIX.fullmatch(suffix) else ""
    return f"{TEMPORARY_PREFIX}{kind}-{this_process()}-{secrets.token_hex(4)}{kept}"


def _may_be_written(path: Path, owner: ProcessId) -> bool:
    if owner.is_here:
        return owner.is_alive
    try:
        newest: float = max(each.lstat().st_mtime for each in (path, *(path.rglob("*") if path.is_dir() else ())))
    except OSError:  # it is gone, or changes while it is looked at
        return True
    return time.time() - newest < _FOREIGN_S


def _retired(folder: Path) -> list[tuple[Path, ProcessId]]:
    """Where old content of a folder lies that somebody was replacing, and who."""
    found = []
    for path in folder.parent.glob(f"{TEMPORARY_PREFIX}{_OLD}-*"):
        name = _TEMPORARY.fullmatch(path.name)
        owner = ProcessId.parse(name["owner"]) if name else None
        if owner is not None and os.path.lexists(path / folder.name):
            found.append((path, owner))
    return found


def _switch(temporary: Path, target: Path) -> None:
    """Puts `temporary` in the place of `target`, which lies in the place of `temporary` afterwards, or is gone."""
    try:
        if not os.path.lexists(target):
            temporary.rename(target)
        elif not _exchange(temporary, target):
            _switch_in_steps(temporary, target)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise FacemillError(
                f"{target} is a mount point, which nothing can take the place of: mount the folder above it"
            ) from error
        raise


def _switch_in_steps(temporary: Path, target: Path) -> None:
    """The same where names cannot be exchanged. As long as a container of the kind `old` lies there, the old content
    in it is whole and counts: it is made whole before it gets that name, and loses the name before it is removed."""
    retired = target.with_name(_temporary_name(_OLD))
    retired.mkdir()
    try:
        target.rename(retired / target.name)
    except OSError as error:
        retired.rmdir()
        if error.errno != errno.EXDEV:
            raise
        # a folder of an overlay's lower layer cannot be renamed, but its copy can
        with atomic_folder(retired) as container:
            shutil.copytree(target, container / target.name, symlinks=True)
        _remove(target)
    try:
        temporary.rename(target)
    except BaseException:  # Ctrl-C too: the old folder must lie there again, whatever ended this
        _restore(retired, target)
        raise
    _discard(retired)


def _restore(retired: Path, target: Path) -> None:
    if os.path.lexists(target):  # half removed, or new and not yet made known
        _remove(target)
    (retired / target.name).rename(target)
    _remove(retired)


def _discard(retired: Path) -> None:
    garbage = retired.with_name(_temporary_name(_NEW))
    retired.rename(garbage)
    _remove(garbage)


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two names in one step; False where system or file system cannot."""
    renameat2 = _renameat2()
    if renameat2 is None:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(second))


@lru_cache(maxsize=1)
def _renameat2() -> Any:
    """Linux's call, from glibc 2.28 or musl 1.2.6 on; None elsewhere."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    return function


def _remove(path: Path) -> None:
    """Removes a file or folder; what cannot be removed now, a later `sweep` will."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
