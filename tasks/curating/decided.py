"""Which faces the decisions of a person are about, as the tables are now.

A picture that has fallen to a better copy of itself hands what was said of it on to that copy, at the same place. What
is said of a picture or face that is not there any more stays in the file and counts as gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from facemill import tables
from facemill.errors import FacemillError
from facemill.reasons import State
from facemill.schema import FACES, UNIQUE, DatasetRow, FaceRow, UniqueRow
from tasks.catalogue import Data
from tasks.curating.decisions import DECISIONS_FILE, Decision, Verdict

NOBODY = ""
_Face = TypeVar("_Face", FaceRow, DatasetRow)
_OF_PICTURES = ["sample_id", "duplicate_of", "keep", "width", "height"]
_OF_FACES = ["face_id", "sample_id", "identity", "box", "status"]


@dataclass(frozen=True)
class Decided:
    """What was said of the faces that there are.

    Attributes:
        whose: identity that a face is taken for, by its id; `NOBODY` for one that is dropped.
        gone: how many decisions are about pictures or faces that are not there.
    """

    whose: Mapping[str, str] = field(default_factory=dict)
    gone: int = 0

    def of(self, face_ids: Collection[str]) -> dict[str, str]:
        """What was said of some faces."""
        return {face_id: self.whose[face_id] for face_id in face_ids if face_id in self.whose} if self.whose else {}


def decided_faces(root: Path, parts: Sequence[Path], decisions: Sequence[Decision]) -> Decided:
    """Finds the faces that decisions are about.

    Args:
        root: of the project.
        parts: of `faces`.
        decisions: as the file has them.

    Raises:
        FacemillError: a decision is about one face of several and does not say which, or two about one face differ.
    """
    if not decisions:
        return Decided()
    pictures = _pictures(root, {one.sample_id for one in decisions})
    targets = [(one, sample_id) for one in decisions for sample_id in _targets(one.sample_id, pictures)]
    faces: dict[str, list[FaceRow]] = defaultdict(list)
    for part in parts:
        for row in _rows_of(part, {sample_id for _, sample_id in targets}):
            faces[row["sample_id"]].append(row)

    whose: dict[str, str] = {}
    said_by: dict[str, tuple[tuple[bool, bool], Decision]] = {}
    reached: set[Decision] = set()
    # What is said of a face itself before what is said of a copy, and of a face before what is said of a picture.
    for one, sample_id in sorted(targets, key=lambda target: _strength(*target)):
        hit = rows_meant(one, faces.get(sample_id, []), _scale(pictures, one.sample_id, sample_id))
        if hit:
            reached.add(one)
        for face_id, who in _outcome(one, hit).items():
            strength, other = said_by.setdefault(face_id, (_strength(one, sample_id), one))
            if strength == _strength(one, sample_id) and one.said[3:] != other.said[3:] and sample_id == one.sample_id:
                raise FacemillError(
                    f"{root / DECISIONS_FILE}: lines {other.line} and {one.line} say different things of one face "
                    f"({face_id}): take one of them out"
                )
            whose.setdefault(face_id, who)
    return Decided(whose, len(decisions) - len(reached))


def _strength(one: Decision, sample_id: str) -> tuple[bool, bool]:
    """The lowest counts."""
    return sample_id != one.sample_id, one.place is None


def _pictures(root: Path, wanted: set[str]) -> dict[str, UniqueRow]:
    """Sizes of pictures and what they have fallen to, those included that they have fallen to."""
    found: dict[str, UniqueRow] = {}
    while missing := wanted - found.keys():
        before = len(found)
        for part in tables.iterate_parts(root / Data.UNIQUE, UNIQUE, _OF_PICTURES):
            for row in tables.to_rows(_with_ids(part, missing), UNIQUE):
                if row["sample_id"] not in found or row["keep"]:
                    found[row["sample_id"]] = row
        wanted = wanted | {other for row in found.values() if (other := row["duplicate_of"])}
        if len(found) == before:
            break
    return found


def _targets(sample_id: str, pictures: Mapping[str, UniqueRow]) -> Iterator[str]:
    """A picture, or the one that stands for it."""
    row = pictures.get(sample_id)
    yield (row["duplicate_of"] or sample_id) if row and not row["keep"] else sample_id


def _scale(pictures: Mapping[str, UniqueRow], said_of: str, sample_id: str) -> tuple[float, float]:
    """How many pixels of the one picture a pixel of the other is, across and down."""
    one, other = pictures.get(said_of), pictures.get(sample_id)
    if said_of == sample_id or not one or not other or not one["width"] or not one["height"]:
        return 1.0, 1.0
    return (other["width"] or 0) / one["width"], (other["height"] or 0) / one["height"]


def _rows_of(part: Path, sample_ids: set[str]) -> list[FaceRow]:
    table = _with_ids(tables.read_part(part, FACES, _OF_FACES), sample_ids)
    return tables.to_rows(table.filter(pc.equal(table["status"], State.OK)), FACES)


def _with_ids(table: pa.Table, sample_ids: Collection[str]) -> pa.Table:
    return table.filter(pc.is_in(table["sample_id"], pa.array(sorted(sample_ids), pa.string())))


def rows_meant(one: Decision, faces: Sequence[_Face], scale: tuple[float, float] = (1.0, 1.0)) -> list[_Face]:
    """The rows of the face that is meant: one for each identity that the picture was collected for.

    Args:
        one: what is said.
        faces: of its picture, or of one that stands for it.
        scale: how many pixels of that picture a pixel of its own is, across and down.

    Raises:
        FacemillError: a picture of several faces is kept.
    """
    by_identity: dict[str, list[_Face]] = defaultdict(list)
    for row in faces:
        by_identity[row["identity"]].append(row)
    if one.place is None:
        for own in by_identity.values():
            if one.verdict is Verdict.KEEP and len(own) > 1:
                there = ", ".join(f"{x},{y}" for x, y in (place_of(row["box"]) for row in own))
                raise FacemillError(
                    f"{DECISIONS_FILE}, line {one.line}: the picture has {len(own)} faces; write which one is kept "
                    f"as x,y: {there}"
                )
        return list(faces)
    x, y = one.place[0] * scale[0], one.place[1] * scale[1]
    meant = list[_Face]()
    for own in by_identity.values():
        if around := [row for row in own if _holds(row["box"], x, y)]:
            meant.append(min(around, key=lambda row: _away(row["box"], x, y)))
    return meant


def _outcome(one: Decision, rows: Sequence[FaceRow]) -> dict[str, str]:
    """Whose each row is. One that was collected for several people is kept for one of them alone."""
    if one.verdict is Verdict.DROP or not rows:
        return {row["face_id"]: NOBODY for row in rows}
    taken = min(rows, key=lambda row: (row["identity"] != one.identity, row["face_id"]))
    return {row["face_id"]: one.identity if row is taken else NOBODY for row in rows}


def place_of(box: Sequence[float]) -> tuple[int, int]:
    """The middle of a face's box in whole pixels: the place by which a decision names it."""
    return max(0, round((box[0] + box[2]) / 2)), max(0, round((box[1] + box[3]) / 2))


def _holds(box: Sequence[float], x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def _away(box: Sequence[float], x: float, y: float) -> float:
    return max(abs((box[0] + box[2]) / 2 - x), abs((box[1] + box[3]) / 2 - y))
