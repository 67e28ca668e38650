"""The verdict on each face from its own part of `faces` and the references."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

from facemill import tables
from facemill.embeddings import identity_distance
from facemill.errors import FacemillError
from facemill.picture_licences import licence_of
from facemill.reasons import Reason, State
from facemill.schema import FACES, UNIQUE, Bool, FaceRow, Float32, Int32, StateColumns, String, TableSchema, UniqueRow
from facemill.split import STRETCH
from tasks.catalogue import Data
from tasks.curating.decided import NOBODY, Decided
from tasks.curating.references import PICTURE_COLUMNS, Embeddings, References, read_embeddings, read_pictures
from tasks.params import CurateParams
from tasks.work.cluster import InlinePool
from tasks.work.results import Made, Part, Shard, Store, WorkItem, content_key, make_parts


class JudgedRow(StateColumns, total=False):
    """What is decided of a face from its own part and the references."""

    face_id: String
    identity: String
    cluster: String
    kept: Bool  # by a person, whatever the rules say
    reference: Bool
    distance: Float32
    video: String | None  # that the face is a frame of
    licence_rank: Int32
    page: String  # that showed the picture
    licence: String
    author: String
    rights: String


JUDGED = TableSchema("judged_faces", 3, JudgedRow)
"""Scratch between judging and the split: a row for each row of `faces`."""
_JUDGED = [
    "face_id",
    "sample_id",
    "identity",
    "role",
    "face_px",
    "sharpness",
    "yaw",
    "pitch",
    "roll",
    "visibility",
    "doubt",
    "presence",
]
_JUDGED += ["status", "error", "detail"]

STRETCH_S = 1
"""Seconds of a shot that go to one side in any case (facemill.split)."""


@dataclass(frozen=True)
class JudgeSettings:
    """What the judging of a part needs beside the part."""

    references: References
    params: CurateParams
    decided: Decided = field(default_factory=Decided)


def judge_parts(
    store: Store, root: Path, parts: Sequence[Path], content: Mapping[Path, str], settings: JudgeSettings
) -> Made:
    """The verdicts on each part; comparing a part takes milliseconds, which is not worth a cluster's start.

    What a person has said of faces counts for the parts that they lie in alone.
    """
    unique, plan = root / Data.UNIQUE, []
    for part in parts:
        decided = _decided_in(part, settings.decided)
        key = content_key(content[part], _clusters_key(unique / part.name), *([decided] if decided else []))
        plan.append(Part(part.stem, (WorkItem(key, (str(part), str(unique / part.name), decided)),)))
    settings = replace(settings, decided=Decided())
    return make_parts(store, plan, judge_shard, None, InlinePool(), settings=settings, rows_per_shard=1)


def _decided_in(part: Path, decided: Decided) -> dict[str, str]:
    if not decided.whose:
        return {}
    return decided.of(tables.read_part(part, FACES, ["face_id"])["face_id"].to_pylist())


def _clusters_key(part: Path) -> str:
    return content_key(tables.part_rows(part, UNIQUE, PICTURE_COLUMNS))


def judge_shard(shard: Shard) -> list[list[JudgedRow]]:
    """Judges parts of `faces`. An item is (part of `faces`, part of `unique` of the same name, what was decided)."""
    settings: JudgeSettings = shard.settings
    return [_judge_part(Path(faces), Path(unique), whose, settings) for faces, unique, whose in shard.items]


def _judge_part(faces: Path, unique: Path, whose: Mapping[str, str], settings: JudgeSettings) -> list[JudgedRow]:
    rows, pictures = tables.part_rows(faces, FACES, _JUDGED), read_pictures(unique)
    for row in rows:
        if (row["sample_id"], row["identity"]) not in pictures:
            # Without its cluster a picture could get to both sides of the split.
            raise FacemillError(
                f"{unique} has no row of picture {row['sample_id'][:16]} of {row['identity']}, which {faces} has: the "
                "two do not belong together. Bring both tables back with `dvc checkout data/unique data/faces`, or run "
                "`dvc repro`"
            )
    return judge_rows(rows, read_embeddings(faces), pictures, settings.references, settings.params, whose)


def judge_rows(
    rows: Sequence[FaceRow],
    embeddings: Embeddings,
    pictures: Mapping[tuple[str, str], UniqueRow],
    references: References,
    params: CurateParams,
    whose: Mapping[str, str],
) -> list[JudgedRow]:
    """The verdict for each row of a part of `faces`, all faces of a picture among them.

    Args:
        rows: the columns of `_JUDGED`.
        embeddings: (N, 128), one for each row.
        pictures: the columns of `PICTURE_COLUMNS` by (sample_id, identity).
        references: whom the faces are compared with.
        params: the limits.
        whose: what a person has said of faces, see `tasks.curating.decided.Decided`.
    """
    verdicts: list[JudgedRow] = [
        {
            "face_id": row["face_id"],
            "identity": whose.get(row["face_id"]) or row["identity"],
            **_origin(pictures.get((row["sample_id"], row["identity"]), UniqueRow())),
            "kept": whose.get(row["face_id"], NOBODY) != NOBODY,
            "reference": row["face_id"] in references.own,
            "status": row["status"],
            "error": row["error"],
            "detail": row["detail"],
        }
        for row in rows
    ]
    for identity, wanted in references.embeddings.items():
        faces = [
            at for at, row in enumerate(rows) if verdicts[at]["identity"] == identity and row["status"] == State.OK
        ]
        for at in faces:
            away = references.own.get(rows[at]["face_id"])
            verdicts[at]["distance"] = float(identity_distance(wanted, embeddings[at])) if away is None else away
        own = [rows[at] for at in faces], [verdicts[at] for at in faces]
        dropped = {row["face_id"] for row in own[0] if whose.get(row["face_id"]) == NOBODY}
        _judge_identity(*own, references.refused, params, dropped)
    return verdicts


def _origin(picture: UniqueRow) -> JudgedRow:
    """Which cluster a picture belongs to, what decides between it and its copies, and whose it is."""
    licence, pts = picture.get("licence") or "", picture.get("pts")
    origin: JudgedRow = {
        "video": None,
        "licence_rank": licence_of(licence).rank,
        "page": picture.get("page") or "",
        "licence": licence,
        "author": picture.get("author") or "",
        "rights": picture.get("rights") or "",
    }
    if pts is None:
        return origin | {"cluster": picture.get("cluster") or ""}
    video, _, place = picture["url"].partition("#pts=")
    seconds = pts * Fraction(place.partition("@")[2] or 1)
    cluster = f"{video}#shot={picture['shot'] or 0}{STRETCH}{int(seconds // STRETCH_S)}"
    return origin | {"cluster": cluster, "video": video}


def _judge_identity(
    rows: Sequence[FaceRow],
    verdicts: Sequence[JudgedRow],
    refused: Mapping[str, tuple[Reason, str]],
    params: CurateParams,
    dropped: Collection[str],
) -> None:
    nearest: dict[str, JudgedRow] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        if row["face_id"] in dropped:
            continue
        best = nearest.get(row["sample_id"])
        if best is None or _nearness(verdict) < _nearness(best):
            nearest[row["sample_id"]] = verdict
    for row, verdict in zip(rows, verdicts, strict=True):
        found: tuple[Reason, str] | None
        if row["face_id"] in refused:
            found = refused[row["face_id"]]
        elif verdict["distance"] > params.identity_distance and not verdict["reference"]:
            found = Reason.OTHER_IDENTITY, f"{verdict['distance']:.2f}, limit {params.identity_distance:g}"
        elif (best := nearest.get(row["sample_id"], verdict)) is not verdict and row["face_id"] not in dropped:
            found = Reason.SECOND_FACE, f"{verdict['distance']:.2f}, the other {best['distance']:.2f}"
        else:
            found = fault(row, params)
        if row["face_id"] in dropped:
            found = Reason.DROPPED, _rules_said(found)
        elif verdict["kept"]:
            verdict["detail"] = f"a person has kept it; {_rules_said(found)}"
            found = None
        if found is not None:
            verdict |= {"status": found[0].state, "error": found[0], "detail": found[1]}


def _rules_said(found: tuple[Reason, str] | None) -> str:
    return "the rules take it" if found is None else f"the rules say {found[0]}, {found[1]}"


def _nearness(verdict: JudgedRow) -> tuple[bool, bool, float]:
    """The lowest is the face of a picture that is the identity's: a person's word, then a reference, then nearness."""
    return not verdict["kept"], not verdict["reference"], verdict["distance"]


def fault(row: FaceRow, params: CurateParams) -> tuple[Reason, str] | None:
    """The first limit of quality that a face breaks, with the numbers; None for a good face."""
    if row["face_px"] < params.min_face_px:
        return Reason.FACE_TOO_SMALL, f"{row['face_px']:.0f} px, limit {params.min_face_px}"
    if row["sharpness"] < params.min_sharpness:
        return Reason.BLURRED, f"{row['sharpness']:.1f}, limit {params.min_sharpness:g}"
    for name, angle, limit in (
        ("yaw", row["yaw"], params.max_yaw_deg),
        ("pitch", row["pitch"], params.max_pitch_deg),
        ("roll", row["roll"], params.max_roll_deg),
    ):
        if abs(angle) > limit:
            return Reason.EXTREME_POSE, f"{name} {angle:.0f}°, limit {limit:g}°"
    for name, found, least in (
        ("visibility", row["visibility"], params.min_visibility),
        ("presence", row["presence"], params.min_presence),
    ):
        if found is not None and found < least:
            return Reason.HIDDEN, f"{name} {found:.2f}, limit {least:g}"
    if row["doubt"] is not None and row["doubt"] > params.max_doubt:
        return Reason.HIDDEN, f"doubt {row['doubt']:.2f}, limit {params.max_doubt:g}"
    return None
