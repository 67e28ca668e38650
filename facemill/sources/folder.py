"""Source `folder`: pictures that lie in a folder, or one picture.

Read as they are: whether a file really is a picture is found out by whoever decodes it, so that a text named .jpg ends
as a row with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from facemill.errors import FacemillError, InputError
from facemill.media_files import PICTURE_SUFFIXES, list_files, read_limited, stable_name
from facemill.sources import Item, Unit, register

DEFAULT_MAX_BYTES = 40_000_000


@register("folder")
class FolderSource:
    """Options: `path` of a folder or picture, `licence`, `author`, `max_files`, `max_file_bytes`."""

    def plan(
        self,
        identity: str,
        role: str,
        *,
        root: Path,
        path: str,
        licence: str = "",
        author: str = "",
        max_files: int | None = None,
        max_file_bytes: int = DEFAULT_MAX_BYTES,
    ) -> list[Unit]:
        """One unit for each file; `max_files` takes the first by name."""
        folder = root / path
        files = list_files(folder, PICTURE_SUFFIXES)[:max_files]
        if not files:
            raise FacemillError(f"no picture in {folder} (identity {identity}): put some there, or correct the path")
        options = {"licence": licence, "author": author, "max_file_bytes": max_file_bytes}
        return [
            Unit(
                identity=identity, role=role, source="folder", key=stable_name(file, folder), path=file, options=options
            )
            for file in files
        ]

    def fetch(self, unit: Unit) -> Iterator[Item]:
        """The file's bytes."""
        if unit.path is None:
            raise ValueError("a unit of a folder names its file")
        data, error, detail = None, None, ""
        try:
            data = read_limited(unit.path, unit.options["max_file_bytes"])
        except InputError as problem:
            error, detail = problem.reason, problem.detail
        yield Item(
            identity=unit.identity,
            role=unit.role,
            source="folder",
            url=unit.key,
            licence=unit.options["licence"],
            author=unit.options["author"],
            data=data,
            error=error,
            detail=detail,
        )
