"""Source `folder`: pictures that lie in a folder, or one picture.

Read as they are: whether a file really is a picture is found out by whoever decodes it, so that a text named .jpg ends
as a row with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from facemill.errors import FacemillError, InputError
from facemill.media_files import PICTURE_SUFFIXES, list_files, read_limited, stable_name
from facemill.sources import Item, References, Source, StatedPath, Surroundings, Unit, register


@register
@dataclass(frozen=True, kw_only=True)
class FolderSource(Source):
    """Pictures in a folder and the folders below it."""

    references: ClassVar[References] = References(other_paths=True)
    kind: Literal["folder"] = "folder"
    path: StatedPath
    """The folder in which the pictures lie, at any depth, or the path of one picture."""
    licence: str = ""
    """The licence that holds for all pictures of this source, as its text or SPDX id; empty if unknown."""
    author: str = ""
    """Who made all pictures of this source; empty if unknown."""
    max_files: Annotated[int, Field(ge=1)] | None = None
    """Take only so many, the first by name."""

    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """One unit for each picture file below the folder, by name."""
        folder = around.place(self.path)
        files = list_files(folder, PICTURE_SUFFIXES, around.tell)[: self.max_files]
        if not files:
            raise FacemillError(f"no picture in {folder} (identity {identity}): put some there, or correct the path")
        options = {"licence": self.licence, "author": self.author, "max_file_bytes": around.max_file_bytes}
        return [
            Unit(
                identity=identity,
                role=role,
                source=self.kind,
                key=stable_name(file, folder, PurePath(self.path).name),
                path=file,
                options=options,
            )
            for file in files
        ]

    @staticmethod
    def fetch(unit: Unit) -> Iterator[Item]:
        """The file of a unit as one item, its bytes untouched, or the reason why it cannot be read."""
        if unit.path is None:
            raise ValueError("a unit of a folder names its file")
        stated = {"licence": unit.options["licence"], "author": unit.options["author"]}
        try:
            yield unit.item(data=read_limited(unit.path, unit.options["max_file_bytes"]), **stated)
        except InputError as problem:
            yield unit.failed(problem, **stated)

    @classmethod
    def from_reference(cls, text: str) -> FolderSource:
        """The source for a reference that is a path: a folder of pictures, or a picture."""
        return cls(path=text)
