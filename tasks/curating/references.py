"""The faces that define the identities, read from `faces` and from what `unique` says of their pictures."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facemill import tables
from facemill.embeddings import DIMENSIONS
from facemill.errors import FacemillError
from facemill.reasons import Reason, State
from facemill.references import ReferenceFace, Verdict, choose, distances_to_others
from facemill.schema import FACES, UNIQUE, UniqueRow
from tasks.catalogue import Data
from tasks.curating.decided import place_of
from tasks.work.results import content_key
from tasks.work.terminal import say

PICTURE_COLUMNS = [
    *(
        "sample_id",
        "identity",
        "cluster",
        "stated_face",
        "url",
        "page",
        "pts",
        "shot",
        "licence",
        "author",
        "rights",
        "keep",
    )
]
"""Of `unique`: all that curation knows of a picture, so that what is decided by it has them in its key."""
_REFERENCE = ["face_id", "sample_id", "identity", "role", "url", "box", "score", "status"]

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True)
class References:
    """The faces that define the identities, and those in reference pictures that do not.

    Attributes:
        embeddings: (K, 128) by identity.
        own: how far each of those faces is from the others of its identity, by its id.
        refused: what is wrong with faces that reference pictures offered and that are not used, by their ids.
    """

    embeddings: Mapping[str, Embeddings]
    own: Mapping[str, float]
    refused: Mapping[str, tuple[Reason, str]]

    @classmethod
    def of(cls, verdicts: Mapping[str, Verdict]) -> References:
        """From the verdicts on each identity's reference faces."""
        embeddings = {
            identity: np.array(list(one.used.values()), np.float32).reshape(-1, DIMENSIONS)
            for identity, one in verdicts.items()
        }
        own = {
            face_id: float(away)
            for identity, one in verdicts.items()
            for face_id, away in zip(one.used, distances_to_others(embeddings[identity]), strict=True)
        }
        refused = {face_id: doubt for one in verdicts.values() for face_id, doubt in one.refused.items()}
        return cls(embeddings, own, refused)

    @property
    def key(self) -> str:
        """Hash of their content."""
        plain = {identity: hashlib.sha256(found.tobytes()).hexdigest() for identity, found in self.embeddings.items()}
        return content_key(plain, sorted(self.own), sorted(self.refused.items()))


def find_references(
    root: Path, parts: Sequence[Path], identities: Sequence[str], whose: Mapping[str, str]
) -> References:
    """The faces that define the identities; tells which reference pictures are left out.

    Args:
        root: of the project.
        parts: of `faces`.
        identities: who is wanted.
        whose: what a person has said of faces (`tasks.curating.decided.Decided`).

    Raises:
        FacemillError: an identity has no usable reference, or only a person can say which one is meant.
    """
    faces = reference_faces(root, parts, identities, whose)
    verdicts = {identity: choose(own) for identity, own in faces.items()}
    for identity, verdict in verdicts.items():
        if verdict.question:
            raise FacemillError(
                f"identity {identity}: {verdict.question}. `facemill stage report` shows the faces of its references"
            )
        if not verdict.used:
            raise FacemillError(_no_reference(identity, parts))
        urls = {face.face_id: face.url for face in faces[identity]}
        for face_id, (_, detail) in verdict.refused.items():
            say(f"curate: identity {identity}: the reference {urls[face_id]} is left out ({detail})")
    return References.of(verdicts)


def reference_faces(
    root: Path, parts: Sequence[Path], identities: Sequence[str], whose: Mapping[str, str]
) -> dict[str, list[ReferenceFace]]:
    """The faces in the reference pictures of each identity, a part of `faces` in memory at a time.

    One that a person has dropped, or given to somebody else, is none; one that a person keeps is the one that is meant.
    """
    found: dict[str, list[ReferenceFace]] = {identity: [] for identity in identities}
    for part in parts:
        rows = tables.part_rows(part, FACES, _REFERENCE)
        chosen = [
            at
            for at, row in enumerate(rows)
            if row["role"] == "reference" and row["status"] == State.OK and row["identity"] in found
            if whose.get(row["face_id"], row["identity"]) == row["identity"]
        ]
        if not chosen:
            continue
        embeddings, pictures = read_embeddings(part), read_pictures(root / Data.UNIQUE / part.name)
        kept = {
            (rows[at]["sample_id"], rows[at]["identity"]): "{},{}".format(*place_of(rows[at]["box"]))
            for at in chosen
            if rows[at]["face_id"] in whose
        }
        for at in chosen:
            row = rows[at]
            picture = pictures.get((row["sample_id"], row["identity"]), UniqueRow())
            found[row["identity"]].append(
                ReferenceFace(
                    face_id=row["face_id"],
                    picture=row["sample_id"],
                    url=row["url"] or row["sample_id"][:16],
                    box_xyxy=np.array(row["box"], np.float64),
                    score=row["score"],
                    embedding=embeddings[at],
                    stated=picture.get("stated_face") or kept.get((row["sample_id"], row["identity"]), ""),
                )
            )
    return found


def read_embeddings(part: Path) -> Embeddings:
    """(N, 128), one for each row of a part of `faces`, NaN where there is no face."""
    table = tables.read_part(part, FACES, ["embedding"])
    known = table["embedding"].is_valid()
    embeddings = np.full((len(table), DIMENSIONS), np.nan, np.float32)
    embeddings[known.to_numpy()] = tables.matrix(table.filter(known), "embedding", (DIMENSIONS,))
    return embeddings


def read_pictures(part: Path) -> dict[tuple[str, str], UniqueRow]:
    """What curation asks of the pictures of a part of `unique`, by (sample_id, identity).

    Of rows with the same bytes the one that is kept counts.
    """
    rows = sorted(tables.part_rows(part, UNIQUE, PICTURE_COLUMNS), key=lambda row: bool(row["keep"]))
    return {(row["sample_id"], row["identity"]): row for row in rows}


def _no_reference(identity: str, parts: Iterable[Path]) -> str:
    columns = ["identity", "role", "status", "error"]
    rows = (row for part in parts for row in tables.part_rows(part, FACES, columns))
    reasons = Counter(
        str(row["error"] or row["status"]) for row in rows if row["role"] == "reference" and row["identity"] == identity
    )
    seen = f"{reasons.total()} reference rows: {listed(reasons)}" if reasons else "no reference picture came in"
    return (
        f"identity {identity}: no usable reference ({seen}). "
        f"Put a picture that shows this person's face large and alone under identities.{identity}.references"
    )


def listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
