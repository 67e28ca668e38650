"""Which faces say what an identity looks like, and how far another face is from them.

A reference picture gives one face: the only one, or the one that a person has named, or the one that is clearly the
largest. A box that the detector believes much less than another in the same picture is none: it finds a mission patch
on a suit, too. Where several faces are about as large, the other references say which one is meant.

References are then compared with one another. One that is unlike the others is refused, the least alike first, as long
as those that are left agree and outnumber the refused ones. Where they do not, only a person can say who is meant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.embeddings import distance, identity_distance
from facemill.reasons import Reason

FAINT = 0.5
"""A box with a smaller share of the score of its picture's strongest one is no candidate for a reference."""
CLEARLY_LARGER = 1.5
"""So many times the short side of every other face: that is the person whom a picture was taken of."""
AGREE = 0.62
"""Largest root mean square of a reference's distances to the others. Of pairs of LFW's faces 1 in 200 of one person lie
farther apart than that, and 1 in 100 of two people nearer; with three references or more a wrong one was refused in
99 draws of 100, and of right ones at most 1 in 300 (`benchmarks/references.py`)."""


@dataclass(frozen=True, eq=False)
class ReferenceFace:
    """A face in a reference picture.

    Attributes:
        face_id: its name.
        picture: the name of its picture, which may hold other faces.
        url: where the picture came from, for people.
        box_xyxy: (4,) in pixels of the upright picture.
        score: the detector's, in whatever unit.
        embedding: (128,).
        stated: what a person wrote of this picture: "2" for the second face from the left, faint boxes not counted,
            "410,230" for the face at that place in pixels, however faint; empty where nothing was said.
    """

    face_id: str
    picture: str
    url: str
    box_xyxy: npt.NDArray[Any]
    score: float
    embedding: npt.NDArray[Any]
    stated: str = ""

    @property
    def px(self) -> float:
        """Shorter side of the face's box in pixels of the upright picture."""
        left, top, right, bottom = (float(edge) for edge in self.box_xyxy)
        return min(right - left, bottom - top)


@dataclass(frozen=True)
class Verdict:
    """What became of an identity's reference faces.

    Attributes:
        used: the faces that define the identity, by their names, in the order of these.
        refused: what is wrong with each face that a reference picture offered and that is not used.
        question: what only a person can say before anything can be compared with this identity; empty if nothing.
    """

    used: Mapping[str, npt.NDArray[Any]]
    refused: Mapping[str, tuple[Reason, str]] = field(default_factory=dict)
    question: str = ""


def choose(faces: Sequence[ReferenceFace]) -> Verdict:
    """Which of the faces in an identity's reference pictures define it. The order of the faces does not matter."""
    pictures: dict[str, list[ReferenceFace]] = defaultdict(list)
    for face in sorted(faces, key=lambda one: one.face_id):
        pictures[face.picture].append(face)

    chosen: dict[str, ReferenceFace] = {}
    open_pictures: list[list[ReferenceFace]] = []
    for picture, own in pictures.items():
        if own[0].stated:
            named = named_face(own, own[0].stated)
            if named is None:
                return Verdict({}, question=_no_such_face(own))
            chosen[picture] = named
        elif (largest := _clearly_largest(own)) is not None:
            chosen[picture] = largest
        else:
            open_pictures.append(_candidates(own))

    agreed, refused = _agreeing(list(chosen.values()))
    if agreed is None:
        told = "; ".join(f"{face.url}: {detail}" for face, detail in refused)
        question = f"its references show different people ({told}). Take out what does not show them, or name the face"
        return Verdict({}, {face.face_id: (Reason.DOUBTFUL_REFERENCE, detail) for face, detail in refused}, question)
    doubts = {face.face_id: (Reason.DOUBTFUL_REFERENCE, detail) for face, detail in refused}
    known = np.array([face.embedding for face in agreed]) if agreed else None
    for candidates in open_pictures:
        if known is None:
            asked = {face.face_id: (Reason.WHICH_FACE, _place(face, candidates)) for face in candidates}
            return Verdict({}, asked, _which_face(candidates))
        away = identity_distance(known, np.array([face.embedding for face in candidates]))
        nearest = int(away.argmin())
        if away[nearest] <= AGREE:
            agreed.append(candidates[nearest])
            continue
        for face, far in zip(candidates, away, strict=True):
            detail = f"{_place(face, candidates)}: {far:.2f} from the other references, limit {AGREE:g}"
            doubts[face.face_id] = (Reason.DOUBTFUL_REFERENCE, detail)
    return Verdict({face.face_id: face.embedding for face in sorted(agreed, key=lambda one: one.face_id)}, doubts)


def named_face(faces: Sequence[ReferenceFace], stated: str) -> ReferenceFace | None:
    """The face of a picture that a person means, see `ReferenceFace.stated`; None where there is none.

    A number counts the faces that a question lists; a place reaches every box, a faint one too.
    """
    if "," not in stated:
        return dict(enumerate(_candidates(faces), start=1)).get(int(stated))
    point = np.array([float(part) for part in stated.split(",")])
    there = [one for one in faces if (one.box_xyxy[:2] <= point).all() and (point <= one.box_xyxy[2:]).all()]
    return min(there, key=lambda one: float(np.abs(_centre(one) - point).max()), default=None)


def distances_to_others(references: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(K, 128) -> (K,): root mean square of each reference's distances to all others; 0 where it is the only one."""
    if len(references) < 2:
        return np.zeros(len(references))
    squares = np.array([np.square(distance(references, one)).sum() for one in references])
    return np.asarray(np.sqrt(squares / (len(references) - 1)))


def _candidates(faces: Sequence[ReferenceFace]) -> list[ReferenceFace]:
    """The faces of a picture that the detector believes about as much as its strongest one, from the left."""
    strongest = max(face.score for face in faces)
    return [face for face in _from_the_left(faces) if face.score >= FAINT * strongest or face.score == strongest]


def _clearly_largest(faces: Sequence[ReferenceFace]) -> ReferenceFace | None:
    largest, *others = sorted(_candidates(faces), key=lambda face: -face.px)
    return largest if all(largest.px >= CLEARLY_LARGER * face.px for face in others) else None


def _agreeing(
    faces: Sequence[ReferenceFace],
) -> tuple[list[ReferenceFace] | None, list[tuple[ReferenceFace, str]]]:
    """Those that agree with one another, and the others with what is wrong with them.

    None instead of the former where those that are left do not outnumber those that were refused. What a person has
    named is never refused, and settles it.
    """
    left, refused = list(faces), list[tuple[ReferenceFace, str]]()
    if not left:
        return [], []
    while len(left) > 1:
        away = distances_to_others(np.array([face.embedding for face in left]))
        doubtful = np.where([bool(face.stated) for face in left], -1.0, away)
        worst = int(doubtful.argmax())
        if doubtful[worst] <= AGREE:
            break
        refused.append((left.pop(worst), f"{away[worst]:.2f} from the other references, limit {AGREE:g}"))
    settled = len(left) > len(refused) or any(face.stated for face in left)
    if settled:
        return left, refused
    others = {face.face_id for face, _ in refused}
    return None, [*refused, *((face, "unlike the others") for face in left if face.face_id not in others)]


def _from_the_left(faces: Sequence[ReferenceFace]) -> list[ReferenceFace]:
    return sorted(faces, key=lambda one: (*_centre(one).tolist(), one.face_id))


def _centre(face: ReferenceFace) -> npt.NDArray[np.float64]:
    box = np.asarray(face.box_xyxy, np.float64)
    return np.asarray((box[:2] + box[2:]) / 2)


def _place(face: ReferenceFace, faces: Sequence[ReferenceFace]) -> str:
    x, y = _centre(face).round().astype(int).tolist()
    return f"face: [{x}, {y}], {face.px:.0f} px, score {face.score:.2f}"


def _which_face(candidates: Sequence[ReferenceFace]) -> str:
    there = "; ".join(_place(face, candidates) for face in candidates)
    return (
        f"{candidates[0].url} shows {len(candidates)} faces of about the same size; say which one is meant, as in "
        f"`references: [{{path: …/{candidates[0].url}, face: {_point(candidates[0])}}}]` (from the left: {there})"
    )


def _point(face: ReferenceFace) -> str:
    x, y = _centre(face).round().astype(int).tolist()
    return f"[{x}, {y}]"


def _no_such_face(faces: Sequence[ReferenceFace]) -> str:
    there = "; ".join(_place(face, faces) for face in _candidates(faces))
    return f"{faces[0].url} has no `face: {faces[0].stated}`; from the left there are {there}"
