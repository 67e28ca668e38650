"""Source `remote_folder`: pictures that lie in a bucket or on another machine, wherever fsspec reaches.

    {kind: remote_folder, path: s3://portraits/anna, options: {anon: true}}

Like `folder`, by an address: `s3://`, `gs://`, `az://`, `sftp://`, `https://`, `memory://` and what else fsspec knows.
The files are listed by each refresh. What tells that one has changed is its stamp, such as an ETag, or its time and
size: it is fetched again when the stamp is another, and leaves the dataset when it has gone. Credentials are those of
the environment (for S3 those of AWS's own tools), never in `params.yaml`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field

from facemill.errors import FacemillError, InputError
from facemill.foreign_files import valid_name
from facemill.pictures import sniff
from facemill.reasons import Reason
from facemill.sources import Item, Source, Surroundings, Unit, register

_CONTENT_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "contentHash", "checksum")
"""What file systems call a mark of the content; without one, time and size stand for it."""
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
_SNIFFED_BYTES = 64
_TOLD_CHARACTERS = 200
_CALLED_SECRETS = ("secret", "key", "token", "password", "passphrase")


@register
@dataclass(frozen=True, kw_only=True)
class RemoteFolderSource(Source):
    """Pictures below an address of a file system that fsspec knows."""

    kind: Literal["remote_folder"] = "remote_folder"
    path: Annotated[str, Field(min_length=1)]
    """The address below which the pictures lie, at any depth, or that of one picture."""
    options: dict[str, Any] = field(default_factory=dict)
    """What fsspec's file system takes, such as `{anon: true}` or `{endpoint_url: https://…}`; never a secret."""
    licence: str = ""
    """The licence that holds for all pictures of this source, as its text or SPDX id; empty if unknown."""
    author: str = ""
    """Who made all pictures of this source; empty if unknown."""
    max_files: Annotated[int, Field(ge=1)] | None = None
    """Take only so many, the first by name."""

    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """One unit for each file below the address, by name.

        Raises:
            FacemillError: the file system's package is missing, it cannot be reached, or no file lies there. That
                stops the refresh: nothing tells what is gone from what could not be seen.
        """
        if not re.match(r"[a-z][a-z0-9+.-]*://", self.path):
            raise FacemillError(
                f"remote_folder {self.path} (identity {identity}) is no address such as s3://bucket/folder; for a "
                "folder of this machine there is `kind: folder`"
            )
        if secrets := [name for name in self.options if any(word in name.lower() for word in _CALLED_SECRETS)]:
            raise FacemillError(
                f"remote_folder {self.path} (identity {identity}): {', '.join(secrets)} would lie in params.yaml, "
                "which is versioned: leave it out and give it by the environment, as the file system's package reads it"
            )
        files = _listed(self.path, self.options, identity)[: self.max_files]
        if not files:
            raise FacemillError(f"no file below {self.path} (identity {identity}): put some there, or correct the path")
        common = {
            "address": self.path,
            "file_system": self.options,
            "licence": self.licence,
            "author": self.author,
            "max_file_bytes": around.max_file_bytes,
        }
        return [
            Unit(
                identity=identity,
                role=role,
                source=self.kind,
                key=valid_name(file.address),
                stamp=file.stamp,
                size_bytes=file.size_bytes,
                options={**common, "file": file.path, "marks": file.marks},
            )
            for file in files
        ]

    @staticmethod
    def fetch(unit: Unit) -> Iterator[Item]:
        """The file of a unit as one item, its bytes untouched, or the reason why there is none."""
        stated = {"licence": unit.options["licence"], "author": unit.options["author"]}
        try:
            yield unit.item(data=_read(unit), **stated)
        except InputError as problem:
            yield unit.failed(problem, **stated)


@dataclass(frozen=True)
class _File:
    """A file as its file system describes it: its path there, its address for tables, and what changes with it."""

    path: str
    address: str
    marks: dict[str, str]
    size_bytes: int

    @property
    def stamp(self) -> str:
        """16 hex digits over `marks`: others as soon as the file system tells of another content."""
        told = json.dumps(self.marks, sort_keys=True).encode()
        return hashlib.sha256(told).hexdigest()[:16]


def _opened(address: str, options: Mapping[str, Any], *, anew: bool = False) -> tuple[Any, str]:
    """The file system of an address and the path in it. `anew`: not one that keeps an earlier listing."""
    import fsspec

    system, path = fsspec.url_to_fs(address, **({"skip_instance_cache": True} if anew else {}), **options)
    return system, path


def _listed(address: str, options: Mapping[str, Any], identity: str) -> list[_File]:
    """The regular files below an address, by name; hidden ones are left out, and links are not followed."""
    what = f"remote_folder {address} (identity {identity})"
    try:
        system, path = _opened(address, options, anew=True)
    except ImportError as error:
        raise FacemillError(f"{what} needs a package that is missing: {error!s:.{_TOLD_CHARACTERS}}") from error
    except Exception as error:  # whatever a file system of somebody else's raises
        raise FacemillError(f"{what} is no address that can be used: {_told(error)}") from error
    try:
        found = system.find(path, detail=True)
        described = found if isinstance(found, dict) else {}
        files = [
            _described(system, str(name), info)
            for name, info in described.items()
            if _is_file(info) and not _is_hidden(str(name), path)
        ]
    except Exception as error:
        raise FacemillError(f"{what} cannot be listed: {_told(error)}. Try again, or correct it") from error
    return sorted(files, key=lambda file: file.address)


def _is_file(info: Any) -> bool:
    """Whether it is a regular file; a bucket has empty objects that stand for folders."""
    return isinstance(info, dict) and info.get("type") == "file" and not str(info.get("name", "")).endswith("/")


def _is_hidden(name: str, folder: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name.removeprefix(folder)).parts)


def _described(system: Any, name: str, info: Mapping[str, Any]) -> _File:
    size = info.get("size")
    return _File(
        path=name,
        address=str(system.unstrip_protocol(name)),
        marks=_marks(info),
        size_bytes=size if isinstance(size, int) and size >= 0 else 0,
    )


def _marks(info: Mapping[str, Any]) -> dict[str, str]:
    """What changes with a file's content, by name: an ETag or a hash where there is one, else time and size."""
    for names in (_CONTENT_MARKS, _TIMES):
        if name := next((name for name in names if info.get(name)), None):
            return {name: str(info[name]).strip('"'), "size": str(info.get("size"))}
    return {"size": str(info.get("size"))}


def _read(unit: Unit) -> bytes:
    """The bytes of a file, if it is a picture's and still the one that was listed.

    Raises:
        InputError: TOO_LARGE without reading it, CHANGED, OTHER_KIND after its first bytes, UNREADABLE.
    """
    limit = unit.options["max_file_bytes"]
    try:
        system, _ = _opened(unit.options["address"], unit.options["file_system"])
        path = unit.options["file"]
        info = system.info(path)
        now, listed = _marks(info), unit.options["marks"]
        # A time may be worded otherwise than in a listing: the next inventory tells.
        if any(
            now[name] != listed[name] for name in now.keys() & listed.keys() - set(_TIMES) if listed[name] != "None"
        ):
            raise InputError(Reason.CHANGED)
        size = info.get("size")
        if isinstance(size, int) and size > limit:
            raise InputError(Reason.TOO_LARGE, f"{size} bytes, limit {limit}")
        with system.open(path, "rb") as stream:
            data: bytes = stream.read(_SNIFFED_BYTES)
            if data and sniff(data) is None:
                raise InputError(Reason.OTHER_KIND, PurePosixPath(path).suffix)
            data += stream.read(limit + 1 - len(data))
        if len(data) > limit:  # it stated less, or nothing
            raise InputError(Reason.TOO_LARGE, f"more than {limit} bytes")
        if isinstance(size, int) and len(data) != size:
            raise InputError(Reason.UNREADABLE, f"{len(data)} of {size} bytes came")
        return data
    except InputError:
        raise
    except Exception as error:  # whatever a file system of somebody else's raises
        raise InputError(Reason.UNREADABLE, _told(error)) from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error!s:.{_TOLD_CHARACTERS}}"
