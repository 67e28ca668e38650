"""Face boxes that people drew: Pascal VOC xml, WIDER FACE text and dlib xml, read into one form.

The format is found out from the files. Annotation sets are full of small faults, so a fault costs its box or its
picture and never the set: it is counted under a reason, with the first place where it stood, and `Survey.describe`
tells. Only a set without a single usable picture is an error.

A fixed fifth is held out by a hash of the file name (`split`): the same pictures on every machine, in every order, and
adding pictures moves none from one side to the other. Where the files state their own subsets, those are kept.

Boxes are left, top, right, bottom in pixels with right − left as the width, as in `Faces`: VOC's numbers as they stand,
x + width for WIDER FACE and dlib.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from facemill.errors import FacemillError, InputError
from facemill.foreign_files import open_regular
from facemill.media_files import PICTURE_SUFFIXES
from facemill.pictures import decode, picture_size

__all__ = ["WIDER_FLAGS", "AnnotatedPicture", "Fault", "Survey", "read_annotations", "split", "survey_annotations"]

WIDER_FLAGS = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
"""Columns of `AnnotatedPicture.flags`, in the order of WIDER FACE's text files."""
HELD_OUT = 0.2
_HEADER_BYTES = 1 << 18


class Fault(StrEnum):
    """What can be wrong with an annotation, and what it costs."""

    CORRUPT = "annotation that cannot be read, skipped"
    PICTURE_MISSING = "picture missing, skipped"
    PICTURE_UNREADABLE = "picture unreadable, skipped"
    PICTURE_TWICE = "picture annotated twice, the first kept"
    BOX_BROKEN = "box that is no four numbers, skipped"
    BOX_EMPTY = "box without area, skipped"
    BOX_OUTSIDE = "box wholly outside its picture, skipped"
    BOX_CLIPPED = "box cut at the picture's edge"


@dataclass(frozen=True)
class AnnotatedPicture:
    """One picture and its faces; a picture without faces has zero rows.

    boxes_xyxy: (G, 4) float32 in pixels, inside the picture.
    ignore: (G,) True for faces that count neither as right nor as wrong: VOC's `difficult`, WIDER FACE's `invalid`,
    dlib's `ignore`.
    event: WIDER FACE's event folder ("0--Parade"), else "".
    subset: "train" or "val" where the files say so, else "".
    flags: (G, 6) uint8, columns `WIDER_FLAGS`; None for the other formats.
    numbers: (G,) int64, the place of each box in its annotation from 0, where skipped boxes leave gaps; None: no gaps.
    """

    path: Path
    boxes_xyxy: npt.NDArray[np.float32]
    ignore: npt.NDArray[np.bool_]
    event: str = ""
    subset: str = ""
    flags: npt.NDArray[np.uint8] | None = None
    numbers: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        count = len(self.ignore)
        if self.boxes_xyxy.shape != (count, 4) or self.boxes_xyxy.dtype != np.float32:
            raise ValueError(f"boxes_xyxy: expected float32 ({count}, 4), got {self.boxes_xyxy.shape}")
        if self.flags is not None and self.flags.shape != (count, len(WIDER_FLAGS)):
            raise ValueError(f"flags: expected ({count}, {len(WIDER_FLAGS)}), got {self.flags.shape}")

    @property
    def side_px(self) -> npt.NDArray[np.float32]:
        """(G,) float32: the shorter side of each annotated face, in pixels of its picture."""
        size_wh = self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]
        return size_wh.min(axis=1) if len(size_wh) else np.zeros(0, np.float32)


@dataclass
class Survey:
    """What a folder holds: the usable pictures, and every fault with its count and the first place."""

    pictures: list[AnnotatedPicture] = field(default_factory=list)
    faults: Counter[Fault] = field(default_factory=Counter)
    first: dict[Fault, str] = field(default_factory=dict)

    def note(self, fault: Fault, where: str) -> None:
        """Counts a fault, and keeps the first place where it stood."""
        self.faults[fault] += 1
        self.first.setdefault(fault, where)

    def describe(self) -> str:
        """One line for a person: how much there is, and what was wrong."""
        boxes = sum(len(picture.ignore) for picture in self.pictures)
        told = [f"{count} × {fault} (first: {self.first[fault]})" for fault, count in sorted(self.faults.items())]
        return "; ".join([f"{len(self.pictures)} pictures, {boxes} faces", *told])


def read_annotations(folder: Path) -> list[AnnotatedPicture]:
    """The usable pictures of a folder, sorted by path; `survey_annotations` also says what was skipped and why.

    Raises:
        FacemillError: no such folder, no annotations in it, or not one usable picture.
    """
    return survey_annotations(folder).pictures


def survey_annotations(folder: Path) -> Survey:
    """Reads all annotations below a folder (or one annotation file), checks each against its picture's header.

    VOC: `*.xml` with the picture beside it, in the sibling folder `images` or in `JPEGImages`. WIDER FACE:
    `*_bbx_gt.txt`, pictures in `images` or `WIDER_*/images`. dlib: `*.xml` that list pictures relative to themselves.

    Raises:
        FacemillError: no such folder, no annotations in it, or not one usable picture.
    """
    if not folder.exists():
        raise FacemillError(f"{folder} does not exist: name a folder with pictures and their annotations")
    files = [folder] if folder.is_file() else _files(folder)
    root = Path(os.path.normpath(folder.parent if folder.is_file() else folder))
    if not files:
        raise FacemillError(
            f"no annotations below {folder}: wanted are Pascal VOC xml files, a dlib xml file, or WIDER FACE's "
            "*_bbx_gt.txt"
        )
    survey, found = Survey(), dict[Path, AnnotatedPicture]()
    for file in files:
        reader = _wider if file.suffix == ".txt" else _xml
        for raw in reader(file, root, survey):
            picture = _checked(raw, root, survey)
            if picture is None:
                continue
            if picture.path in found:
                survey.note(Fault.PICTURE_TWICE, raw.where)
                continue
            found[picture.path] = picture
    survey.pictures = [found[path] for path in sorted(found)]
    if not survey.pictures:
        raise FacemillError(f"not one usable picture below {folder}: {survey.describe()}")
    return survey


def split(
    pictures: Sequence[AnnotatedPicture], held_out: float = HELD_OUT
) -> tuple[list[AnnotatedPicture], list[AnnotatedPicture]]:
    """(for training, held out): by the subset that the files state, else by a hash of the file name alone."""
    trained, kept = list[AnnotatedPicture](), list[AnnotatedPicture]()
    for picture in pictures:
        apart = picture.subset == "val" if picture.subset else _share(picture.path.stem) < held_out
        (kept if apart else trained).append(picture)
    return trained, kept


def _share(stem: str) -> float:
    """A file name's place in 0…1, even over names and the same everywhere; without its suffix, so that a picture that
    is stored in another format stays on its side."""
    return int.from_bytes(hashlib.sha256(stem.encode(errors="surrogateescape")).digest()[:8], "big") / 2**64


_Row = tuple[list[float], bool, list[int] | None]
"""left, top, right, bottom; whether to ignore it; WIDER FACE's flags."""


@dataclass
class _Raw:
    """A picture as its annotation states it, unchecked."""

    where: str
    places: list[Path]  # where the picture may lie, best first
    rows: list[_Row]
    event: str = ""
    subset: str = ""


def _files(folder: Path) -> list[Path]:
    """WIDER FACE's lists where there are some, else all xml files; hidden folders are left out."""
    for pattern in ("*_bbx_gt.txt", "*.xml"):
        found = [
            path
            for path in folder.rglob(pattern)
            if not any(part.startswith(".") for part in path.relative_to(folder).parts)
            and (path.is_file() or pattern.endswith(".xml"))  # a broken xml file is told apart from the others
        ]
        if found:
            return sorted(found)
    return []


def _xml(file: Path, root: Path, survey: Survey) -> Iterator[_Raw]:
    """The pictures of a VOC or dlib file."""
    where = str(file.relative_to(root))
    try:
        with open_regular(file) as stream:
            data = stream.read()
        if b"<!DOCTYPE" in data or b"<!ENTITY" in data:  # entities that grow without bound have no place here
            raise ValueError("declares entities")
        top = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, OSError) as error:
        survey.note(Fault.CORRUPT, f"{where}: {error}")
        return
    if top.tag == "annotation":
        yield _voc(top, file, where)
    elif top.tag == "dataset":
        yield from _dlib(top, file, where, survey)
    else:
        survey.note(Fault.CORRUPT, f"{where}: <{top.tag}> is neither VOC's <annotation> nor dlib's <dataset>")


def _voc(top: ElementTree.Element, file: Path, where: str) -> _Raw:
    names = [top.findtext("filename") or "", *(file.stem + suffix for suffix in sorted(PICTURE_SUFFIXES))]
    folders = [file.parent, file.parent.parent / "images", file.parent.parent / "JPEGImages"]
    rows = list[_Row]()
    for thing in top.iter("object"):
        box = thing.find("bndbox")
        texts = [None if box is None else box.findtext(edge) for edge in ("xmin", "ymin", "xmax", "ymax")]
        rows.append((_numbers(texts), (thing.findtext("difficult") or "0").strip() == "1", None))
    return _Raw(where, [place / name for name in names if name for place in folders], rows)


def _dlib(top: ElementTree.Element, file: Path, where: str, survey: Survey) -> Iterator[_Raw]:
    subset = {"train": "train", "testi": "val"}.get(file.stem[:5].lower(), "")
    for image in top.iter("image"):
        name = image.get("file")
        if not name:
            survey.note(Fault.CORRUPT, f"{where}: an <image> without a file")
            continue
        rows = list[_Row]()
        for box in image.iter("box"):
            left, top_px, width, height = _numbers([box.get(key) for key in ("left", "top", "width", "height")])
            rows.append(([left, top_px, left + width, top_px + height], box.get("ignore", "0") == "1", None))
        yield _Raw(f"{where}: {name}", [file.parent / name], rows, subset=subset)


def _wider(file: Path, root: Path, survey: Survey) -> Iterator[_Raw]:
    """Blocks of: picture name, count, then that many lines "x y w h blur expression illumination invalid occlusion
    pose". A picture without faces has the count 0 and one line of zeros."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    subset = next((name for name in ("train", "val") if f"_{name}_" in file.name), "")
    folders = [
        file.parent / "images",
        file.parent.parent / "images",
        *sorted(file.parent.parent.glob(f"WIDER_{subset or '*'}/images")),
        *sorted(file.parent.glob(f"WIDER_{subset or '*'}/images")),
        file.parent,
    ]
    at = 0
    while at < len(lines):
        name, where = lines[at], f"{file.relative_to(root)}, line {at + 1}"
        at += 1
        if not name:
            continue
        if not _is_picture(name) or at >= len(lines) or not lines[at].isdigit():
            survey.note(Fault.CORRUPT, f"{where}: wanted a picture's name and then a count")
            while at < len(lines) and not _is_picture(lines[at]):
                at += 1
            continue
        count, first = int(lines[at]), at + 1
        at = first
        while at < len(lines) and at - first < max(count, 1) and lines[at] and not _is_picture(lines[at]):
            at += 1
        if at - first < count:
            survey.note(Fault.CORRUPT, f"{where}: {count} boxes announced, {at - first} there")
            continue
        rows = [_wider_row(line) for line in lines[first : first + count]]
        yield _Raw(where, [folder / name for folder in folders], rows, Path(name).parent.name, subset)


def _wider_row(line: str) -> _Row:
    values = _numbers(list(line.split()))
    left, top, width, height = values[:4] if len(values) >= 4 else [np.nan] * 4
    flags = [int(v) if 0 <= v < 256 else 0 for v in (values[4:10] + [0.0] * 6)[:6]]
    return [left, top, left + width, top + height], flags[WIDER_FLAGS.index("invalid")] == 1, flags


def _checked(raw: _Raw, root: Path, survey: Survey) -> AnnotatedPicture | None:
    """A raw record against its picture: boxes inside and with area, or None where the picture cannot be used."""
    path = next((p for p in map(_plain, raw.places) if p.is_relative_to(root) and p.is_file()), None)
    if path is None:
        survey.note(Fault.PICTURE_MISSING, raw.where)
        return None
    try:
        width, height = _size(path)
    except (InputError, OSError) as error:
        survey.note(Fault.PICTURE_UNREADABLE, f"{path.relative_to(root)}: {error}")
        return None
    numbers = [at for at, row in enumerate(raw.rows) if _usable(row[0], width, height, raw.where, survey)]
    kept = [raw.rows[at] for at in numbers]
    stated = np.array([row[0] for row in kept], np.float32).reshape(-1, 4)
    boxes = stated.clip(0, np.array([width, height] * 2, np.float32))
    for _ in range(int((boxes != stated).any(axis=1).sum())):
        survey.note(Fault.BOX_CLIPPED, raw.where)
    flags = np.array([row[2] for row in kept], np.uint8).reshape(-1, 6) if kept and kept[0][2] is not None else None
    ignore = np.array([row[1] for row in kept], bool)
    return AnnotatedPicture(path, boxes, ignore, raw.event, raw.subset, flags, np.array(numbers, np.int64))


def _usable(box: Sequence[float], width: int, height: int, where: str, survey: Survey) -> bool:
    left, top, right, bottom = box
    if not np.isfinite(box).all():
        survey.note(Fault.BOX_BROKEN, where)
    elif right <= left or bottom <= top:
        survey.note(Fault.BOX_EMPTY, where)
    elif left >= width or top >= height or right <= 0 or bottom <= 0:
        survey.note(Fault.BOX_OUTSIDE, where)
    else:
        return True
    return False


def _size(path: Path) -> tuple[int, int]:
    """Width and height from the header; the whole picture is decoded only where the header does not tell."""
    with open_regular(path) as stream:
        size = picture_size(stream.read(_HEADER_BYTES))
    if size is None:
        height, width = decode(path.read_bytes()).shape[:2]
        return width, height
    if min(size) < 1:
        raise OSError("no pixels")
    return size


def _plain(path: Path) -> Path:
    """Without `..`, so that a name in an annotation cannot lead out of the folder."""
    return Path(os.path.normpath(path))


def _is_picture(name: str) -> bool:
    return PurePath(name).suffix.lower() in PICTURE_SUFFIXES


def _numbers(texts: Sequence[Any]) -> list[float]:
    """Numbers of texts; NaN for what is none."""
    values = []
    for text in texts:
        try:
            values.append(float(text))
        except (TypeError, ValueError):
            values.append(np.nan)
    return values
