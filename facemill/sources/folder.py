"""Source `folder`: pictures that lie in a folder, or one picture.

What a file is called decides nothing: it is a picture if it begins like one, whatever its name, and a text named .jpg
ends as a row with a reason. What is neither is counted and told. Files are read as they are: whether one really is a
picture is found out by whoever decodes it.

Licence, author and page are what a file beside the picture says (`a.jpg.json` of gallery-dl, `a.xmp`), else the picture
itself (XMP, IPTC, EXIF), else the source: see `facemill.picture_credits`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from facemill.errors import FacemillError, InputError
from facemill.foreign_files import open_regular
from facemill.media_files import PICTURE_SUFFIXES, Tell, list_files, read_limited, stable_name
from facemill.picture_credits import SIDECAR_BYTES, Credits, embedded_credits, first_said, sidecar_credits
from facemill.pictures import sha256_hex, sniff
from facemill.sources import Item, References, Source, StatedPath, Surroundings, Unit, register

_SIDECARS = (".json", ".xmp")


@register
@dataclass(frozen=True, kw_only=True)
class FolderSource(Source):
    """Pictures in a folder and the folders below it."""

    references: ClassVar[References] = References(other_paths=True)
    kind: Literal["folder"] = "folder"
    path: StatedPath
    """The folder in which the pictures lie, at any depth, or the path of one picture."""
    licence: str = ""
    """The licence of the pictures that state none, as its text or SPDX id; empty if unknown."""
    author: str = ""
    """Who made the pictures that name nobody; empty if unknown."""
    read_credits: bool = True
    """Whether pictures, and files beside them, are asked for licence and author; else those here hold for all."""
    max_files: Annotated[int, Field(ge=1)] | None = None
    """Take only so many, the first by name."""

    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """One unit for each picture file below the folder, by name."""
        folder = around.place(self.path)
        files, beside = _picture_files(folder, around.tell)
        files = files[: self.max_files]
        if not files:
            raise FacemillError(f"no picture in {folder} (identity {identity}): put some there, or correct the path")
        options = {
            "licence": self.licence,
            "author": self.author,
            "read_credits": self.read_credits,
            "max_file_bytes": around.max_file_bytes,
        }
        unit = Unit(identity=identity, role=role, source=self.kind, key="", options=options)
        named = [replace(unit, key=stable_name(file, folder, PurePath(self.path).name), path=file) for file in files]
        return [_with_sidecars(each, beside) for each in named] if self.read_credits else named

    @staticmethod
    def fetch(unit: Unit) -> Iterator[Item]:
        """The file of a unit as one item, its bytes untouched, or the reason why it cannot be read."""
        if unit.path is None:
            raise ValueError("a unit of a folder names its file")
        options = unit.options
        beside = Credits(**options.get("beside", {}))
        stated = Credits(licence=options["licence"], author=options["author"])
        try:
            data = read_limited(unit.path, options["max_file_bytes"])
        except InputError as problem:
            yield unit.failed(problem, **asdict(first_said(beside, stated)))
            return
        inside = embedded_credits(data) if options["read_credits"] else Credits()
        yield unit.item(data=data, **asdict(first_said(beside, inside, stated)))

    @classmethod
    def from_reference(cls, text: str) -> FolderSource:
        """The source for a reference that is a path: a folder of pictures, or a picture."""
        return cls(path=text)


def _picture_files(folder: Path, tell: Tell) -> tuple[list[Path], frozenset[Path]]:
    """The files below a folder that are called like pictures or begin like one, and the files beside them that may say
    something about them; tells how many others there are."""
    files: list[Path] = []
    sidecars: set[Path] = set()
    others: Counter[str] = Counter()
    around = list_files(folder, None, tell)
    for path in around:
        if path.suffix.lower() in PICTURE_SUFFIXES or _begins_like_a_picture(path):
            files.append(path)
        elif path.suffix.lower() in _SIDECARS:
            sidecars.add(path)
        else:
            others[path.suffix.lower() or "without a suffix"] += 1
    if folder.is_file():
        sidecars = {path for path in _sidecars_of(folder) if path.is_file()}
    own = {beside for path in files for beside in _sidecars_of(path)}
    others.update(path.suffix.lower() for path in sidecars - own)
    if others:
        named = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        more = f", and {len(others) - 5} other kinds" if len(others) > 5 else ""
        tell(f"{folder}: left out {others.total()} files that are no pictures ({named}{more})")
    return files, frozenset(sidecars & own)


def _sidecars_of(picture: Path) -> list[Path]:
    """The files that may lie beside a picture, those that name it in full first."""
    return [picture.with_name(f"{name}{suffix}") for suffix in _SIDECARS for name in (picture.name, picture.stem)]


def _with_sidecars(unit: Unit, beside: frozenset[Path]) -> Unit:
    """The unit with what the files beside its picture say, which is then part of what it is known by."""
    if unit.path is None:
        raise ValueError("a unit of a folder names its file")
    said: list[Credits] = []
    for path in _sidecars_of(unit.path):
        if path in beside:
            try:
                said.append(sidecar_credits(path.name, read_limited(path, SIDECAR_BYTES)))
            except InputError:
                continue  # it says nothing, and the picture is taken as it is
    if not (found := first_said(*said)):
        return unit
    stamp = sha256_hex(json.dumps(asdict(found), sort_keys=True).encode())[:16]
    return replace(unit, stamp=stamp, options={**unit.options, "beside": asdict(found)})


def _begins_like_a_picture(path: Path) -> bool:
    try:
        with open_regular(path) as stream:
            return sniff(stream.read(64)) is not None
    except OSError:
        return False
