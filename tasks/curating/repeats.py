"""Which of an identity's good faces show what a better one shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facemill import tables
from facemill.align import transform
from facemill.embeddings import DIMENSIONS
from facemill.face_looks import LOOK_BYTES, FaceLooks, repeats
from facemill.reasons import Reason, State
from facemill.schema import FACES, FaceRow
from tasks.curating.judging import JUDGED, JudgedRow

_LOOKED_AT = ["face_id", "look", "landmarks", "affine", "yaw", "pitch", "embedding", "sharpness", "face_px"]


def find_repeats(
    parts: Sequence[Path], judged: Mapping[str, Path], identity: str, same_look: float
) -> dict[str, tuple[Reason, str]]:
    """The good faces of an identity that show what a better one shows, by their ids, with the reason.

    Better is a reference, then the freer licence, the sharper face, the larger.
    """
    found: list[tuple[FaceRow, JudgedRow]] = []
    for part in parts:
        verdicts = tables.part_rows(judged[part.stem], JUDGED)
        good = {one["face_id"]: one for one in verdicts if one["identity"] == identity and one["status"] == State.OK}
        if good:
            rows = tables.part_rows(part, FACES, _LOOKED_AT)
            found += [(_narrow(row), good[row["face_id"]]) for row in rows if row["face_id"] in good]
    found.sort(key=_best_first)
    videos = {name: number for number, name in enumerate(sorted({one["video"] or "" for _, one in found}))}
    looks = FaceLooks(
        look=np.array([np.frombuffer(row["look"], np.uint8) for row, _ in found]).reshape(-1, LOOK_BYTES),
        points=np.array([row["landmarks"] for row, _ in found], np.float32).reshape(-1, 68, 2),
        angles_deg=np.array([(row["yaw"], row["pitch"]) for row, _ in found], np.float32).reshape(-1, 2),
        embedding=np.array([row["embedding"] for row, _ in found], np.float32).reshape(-1, DIMENSIONS),
        video=np.array([videos[one["video"]] if one["video"] else -1 for _, one in found], np.int64),
    )
    fallen: dict[str, tuple[Reason, str]] = {}
    stands = repeats(looks, same_look)
    for at in np.flatnonzero(stands != np.arange(len(found))).tolist():
        other = int(stands[at])
        own_video = looks.video[at] >= 0 and looks.video[at] == looks.video[other]
        reason = Reason.SAME_LOOK if own_video else Reason.NEAR_DUPLICATE
        fallen[found[at][0]["face_id"]] = reason, f"of {found[other][0]['face_id']}"
    return fallen


def _narrow(row: FaceRow) -> FaceRow:
    """The numbers that are compared, in arrays that take a tenth of the memory of lists."""
    points = transform(np.array(row["landmarks"]).reshape(68, 2), np.array(row["affine"]).reshape(2, 3))
    arrays: Any = {
        "landmarks": points.astype(np.float32),
        "embedding": np.array(row["embedding"], np.float32),
        "affine": None,
    }
    return {**row, **arrays}


def _best_first(face: tuple[FaceRow, JudgedRow]) -> tuple[Any, ...]:
    row, verdict = face
    return not verdict["reference"], verdict["licence_rank"], -row["sharpness"], -row["face_px"], row["face_id"]
