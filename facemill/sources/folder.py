"""Source `folder`: pictures that lie in a folder, or one picture.

What a file is called decides nothing: it is a picture if it begins like one, whatever its name, and a text named .jpg
ends as a row with a reason. What is neither is counted and told. Files are read as they are: whether one really is a
picture is found out by whoever decodes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from facemill.errors import FacemillError, InputError
from facemill.foreign_files import open_regular
from facemill.media_files import PICTURE_SUFFIXES, Tell, list_files, read_limited, stable_name
from facemill.pictures import sniff
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
        files = _picture_files(folder, around.tell)[: self.max_files]
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


def _picture_files(folder: Path, tell: Tell) -> list[Path]:
    """The files below a folder that are called like pictures or begin like one; tells how many others there are."""
    files: list[Path] = []
    others: Counter[str] = Counter()
    for path in list_files(folder, None, tell):
        if path.suffix.lower() in PICTURE_SUFFIXES or _begins_like_a_picture(path):
            files.append(path)
        else:
            others[path.suffix.lower() or "without a suffix"] += 1
    if others:
        named = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        more = f", and {len(others) - 5} other kinds" if len(others) > 5 else ""
        tell(f"{folder}: left out {others.total()} files that are no pictures ({named}{more})")
    return files


def _begins_like_a_picture(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            return sniff(stream.read(64)) is not None
    except OSError:
        return False
