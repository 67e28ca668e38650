"""Stage `curate`: table `faces` -> table `dataset`, the same rows with a verdict and, where accepted, a split.

An identity is defined by its reference pictures: one face of each, of those that agree with one another
(`facemill.references`). A face is accepted when its embedding lies near enough to them, it is the nearest such face of
its picture, and it is large, sharp and frontal enough. Every other row keeps one reason: those of `extract`,
doubtful_reference, other_identity, second_face, face_too_small, blurred, extreme_pose, near_duplicate, same_look, in
this order. The last two are for faces that show what a better one shows already (`facemill.face_looks`): copies of
whatever picture, mirrored too, and within a video the same pose, expression and light. Train and validation are split
by picture with its copies and by shot, so that no face has its twin on the other side.

A part of `faces` is judged by itself once the references are known; only repeats and the split ask about all of them:
the good faces of one identity at a time are in memory, with some 1.5 KB each, and a number for each cluster. A part is
written anew only where a verdict in it has changed.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from facemill import tables
from facemill.align import transform
from facemill.dedup import licence_rank
from facemill.embeddings import DIMENSIONS, identity_distance
from facemill.errors import FacemillError
from facemill.face_looks import LOOK_BYTES, FaceLooks, copies, same_looks
from facemill.reasons import Reason, State
from facemill.references import ReferenceFace, Verdict, choose, distances_to_others
from facemill.schema import (
    DATASET,
    FACES,
    UNIQUE,
    Bool,
    DatasetRow,
    FaceRow,
    Float32,
    Int32,
    StateColumns,
    String,
    TableSchema,
    UniqueRow,
)
from facemill.split import STRETCH, Split
from tasks.catalogue import Data
from tasks.params import CurateParams, Params
from tasks.work.cluster import InlinePool
from tasks.work.deciders import read_deciders
from tasks.work.file_hashes import hash_files
from tasks.work.results import (
    Made,
    Part,
    Shard,
    Store,
    WorkItem,
    content_key,
    drop_unreached,
    make_parts,
    open_store,
)
from tasks.work.scratch import scratch_folder
from tasks.work.terminal import say
from tasks.work.totals import Totals, count_rows, finish, publish_parts


class JudgedRow(StateColumns, total=False):
    """What is decided of a face from its own part and the references."""

    face_id: String
    identity: String
    cluster: String
    reference: Bool
    distance: Float32
    video: String | None  # that the face is a frame of
    licence_rank: Int32


class FinalRow(StateColumns, total=False):
    """What a row of `dataset` has beside those of a face: the verdict, and its side."""

    cluster: String
    reference: Bool
    distance: Float32
    split: String


JUDGED = TableSchema("judged_faces", 1, JudgedRow)
"""Scratch between judging and the split: a row for each row of `faces`."""
FINAL = TableSchema("split_faces", 1, FinalRow)
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
_LOOKED_AT = ["face_id", "look", "landmarks", "affine", "yaw", "pitch", "embedding", "sharpness", "face_px"]
_PICTURE = ["sample_id", "identity", "cluster", "stated_face", "source", "url", "pts", "shot", "licence"]
_REFERENCE = ["face_id", "sample_id", "identity", "role", "url", "box", "score", "status"]

STRETCH_S = 5
"""Seconds of a shot that go to one side where it has to be cut."""

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


@dataclass(frozen=True)
class JudgeSettings:
    """What the judging of a part needs beside the part."""

    references: References
    params: CurateParams


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Curates into `root/data/dataset`.

    Raises:
        FacemillError: `faces` is missing; an identity has no usable reference, or only a person can say which; an
            identity ends without a single accepted face (the table is there then, to see why).
    """
    start = time.monotonic()
    output, identities = root / Data.DATASET, sorted(params.identities)
    parts = tables.checked_parts(root / Data.FACES, FACES)
    references = find_references(root, parts, identities)

    code = read_deciders(root, "curate", params).key
    limits = params.curate.model_dump(mode="json", exclude={"val_share", "same_look"})
    judging = open_store(root, "curate-judge", JUDGED, code=code, limits=limits, references=references.key)
    writing = open_store(root, "curate", DATASET, code=code)  # what the parameters decide is in the verdicts
    content = hash_files(root, "faces", parts, ours=True)
    judged = _judge_parts(judging, root, parts, content, JudgeSettings(references, params.curate))
    repeats: dict[str, tuple[Reason, str]] = {}
    for identity in identities:
        repeats |= find_repeats(parts, judged.paths, identity, params.curate.same_look)
    split = Split.of(_accepted(judged.paths.values(), repeats), params.curate.val_share, identities)
    made = judged + _dataset_parts(writing, root, parts, content, judged.paths, repeats, split)
    publish_parts(made.paths, output)
    kept_bytes = drop_unreached(judging) + drop_unreached(writing)

    rows, counts = sum(map(tables.count_part, parts)), count_rows(output, DATASET)
    totals = Totals("curate", rows, counts, time.monotonic() - start, made.seconds, made.worked, kept_bytes=kept_bytes)
    finish(root, totals)
    _require_faces(output, identities)
    return totals


def find_references(root: Path, parts: Sequence[Path], identities: Sequence[str]) -> References:
    """The faces that define the identities; tells which reference pictures are left out.

    Raises:
        FacemillError: an identity has no usable reference, or only a person can say which one is meant.
    """
    faces = reference_faces(root, parts, identities)
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


def reference_faces(root: Path, parts: Sequence[Path], identities: Sequence[str]) -> dict[str, list[ReferenceFace]]:
    """The faces in the reference pictures of each identity, a part of `faces` in memory at a time."""
    found: dict[str, list[ReferenceFace]] = {identity: [] for identity in identities}
    for part in parts:
        rows = tables.part_rows(part, FACES, _REFERENCE)
        chosen = [
            at
            for at, row in enumerate(rows)
            if row["role"] == "reference" and row["status"] == State.OK and row["identity"] in found
        ]
        if not chosen:
            continue
        embeddings, pictures = read_embeddings(part), read_pictures(root / Data.UNIQUE / part.name)
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
                    stated=picture.get("stated_face") or "",
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


def judge_shard(shard: Shard) -> list[list[JudgedRow]]:
    """Judges parts of `faces`. An item is (part of `faces`, part of `unique` of the same name)."""
    settings: JudgeSettings = shard.settings
    return [_judge_part(Path(faces), Path(unique), settings) for faces, unique in shard.items]


def _judge_part(faces: Path, unique: Path, settings: JudgeSettings) -> list[JudgedRow]:
    rows, pictures = tables.part_rows(faces, FACES, _JUDGED), read_pictures(unique)
    for row in rows:
        if (row["sample_id"], row["identity"]) not in pictures:
            # Without its cluster a picture could get to both sides of the split.
            raise FacemillError(
                f"{unique} has no row of picture {row['sample_id'][:16]} of {row['identity']}, which {faces} has: the "
                "two do not belong together. Bring both tables back with `dvc checkout data/unique data/faces`, or run "
                "`dvc repro`"
            )
    return judge_rows(rows, read_embeddings(faces), pictures, settings.references, settings.params)


def read_pictures(part: Path) -> dict[tuple[str, str], UniqueRow]:
    """What curation asks of the pictures of a part of `unique`, by (sample_id, identity).

    Of rows with the same bytes the one that is kept counts.
    """
    columns = [*_PICTURE, "keep"]
    rows = sorted(tables.part_rows(part, UNIQUE, columns), key=lambda row: bool(row["keep"]))
    return {(row["sample_id"], row["identity"]): row for row in rows}


def judge_rows(
    rows: Sequence[FaceRow],
    embeddings: Embeddings,
    pictures: Mapping[tuple[str, str], UniqueRow],
    references: References,
    params: CurateParams,
) -> list[JudgedRow]:
    """The verdict for each row of a part of `faces`, all faces of a picture among them.

    Args:
        rows: the columns of `_JUDGED`.
        embeddings: (N, 128), one for each row.
        pictures: the columns of `_PICTURE` by (sample_id, identity).
        references: whom the faces are compared with.
        params: the limits.
    """
    verdicts: list[JudgedRow] = [
        {
            "face_id": row["face_id"],
            "identity": row["identity"],
            **_origin(pictures.get((row["sample_id"], row["identity"]), UniqueRow())),
            "reference": row["face_id"] in references.own,
            "status": row["status"],
            "error": row["error"],
            "detail": row["detail"],
        }
        for row in rows
    ]
    for identity, wanted in references.embeddings.items():
        faces = [at for at, row in enumerate(rows) if row["identity"] == identity and row["status"] == State.OK]
        for at in faces:
            away = references.own.get(rows[at]["face_id"])
            verdicts[at]["distance"] = float(identity_distance(wanted, embeddings[at])) if away is None else away
        _judge_identity([rows[at] for at in faces], [verdicts[at] for at in faces], references.refused, params)
    return verdicts


def _origin(picture: UniqueRow) -> JudgedRow:
    """Which cluster a picture belongs to, and what decides between it and its copies."""
    rank, pts = licence_rank(picture.get("licence")), picture.get("pts")
    if pts is None:
        return {"cluster": picture.get("cluster") or "", "video": None, "licence_rank": rank}
    video, _, place = picture["url"].partition("#pts=")
    seconds = pts * Fraction(place.partition("@")[2] or 1)
    cluster = f"{video}#shot={picture['shot'] or 0}{STRETCH}{int(seconds // STRETCH_S)}"
    return {"cluster": cluster, "video": video, "licence_rank": rank}


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
    repeats: dict[str, tuple[Reason, str]] = {}
    # Last what is told: a copy is that, whatever else it is.
    for reason, stands in ((Reason.SAME_LOOK, same_looks(looks, same_look)), (Reason.NEAR_DUPLICATE, copies(looks))):
        for at in np.flatnonzero(stands != np.arange(len(found))).tolist():
            repeats[found[at][0]["face_id"]] = reason, f"of {found[int(stands[at])][0]['face_id']}"
    return repeats


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


def dataset_shard(shard: Shard) -> list[list[DatasetRow]]:
    """Parts of `faces` with their verdicts. An item is (part of `faces`, table of verdicts)."""
    return [
        [
            _dataset_row(row, verdict)
            for row, verdict in zip(
                tables.part_rows(Path(faces), FACES), tables.part_rows(Path(verdicts), FINAL), strict=True
            )
        ]
        for faces, verdicts in shard.items
    ]


def _dataset_row(row: FaceRow, verdict: FinalRow) -> DatasetRow:
    return {**row, **verdict}


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


def _judge_identity(
    rows: Sequence[FaceRow],
    verdicts: Sequence[JudgedRow],
    refused: Mapping[str, tuple[Reason, str]],
    params: CurateParams,
) -> None:
    nearest: dict[str, JudgedRow] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        best = nearest.get(row["sample_id"])
        if best is None or _nearness(verdict) < _nearness(best):
            nearest[row["sample_id"]] = verdict
    for row, verdict in zip(rows, verdicts, strict=True):
        found: tuple[Reason, str] | None
        if row["face_id"] in refused:
            found = refused[row["face_id"]]
        elif verdict["distance"] > params.identity_distance and not verdict["reference"]:
            found = Reason.OTHER_IDENTITY, f"{verdict['distance']:.2f}, limit {params.identity_distance:g}"
        elif verdict is not nearest[row["sample_id"]]:
            found = (
                Reason.SECOND_FACE,
                f"{verdict['distance']:.2f}, the other {nearest[row['sample_id']]['distance']:.2f}",
            )
        else:
            found = fault(row, params)
        if found is not None:
            verdict |= {"status": found[0].state, "error": found[0], "detail": found[1]}


def _nearness(verdict: JudgedRow) -> tuple[bool, float]:
    """The lowest is the face of a picture that is the identity's: a reference is, whatever else is there."""
    return not verdict["reference"], verdict["distance"]


def _judge_parts(
    store: Store, root: Path, parts: Sequence[Path], content: Mapping[Path, str], settings: JudgeSettings
) -> Made:
    """The verdicts on each part; comparing a part takes milliseconds, which is not worth a cluster's start."""
    unique = root / Data.UNIQUE
    plan = [
        Part(part.stem, (WorkItem(content_key(content[part], _clusters_key(unique / part.name)), _pair(part, unique)),))
        for part in parts
    ]
    return make_parts(store, plan, judge_shard, None, InlinePool(), settings=settings, rows_per_shard=1)


def _pair(part: Path, unique: Path) -> tuple[str, str]:
    return str(part), str(unique / part.name)


def _clusters_key(part: Path) -> str:
    return content_key(tables.part_rows(part, UNIQUE, _PICTURE))


def _dataset_parts(
    store: Store,
    root: Path,
    parts: Sequence[Path],
    content: Mapping[Path, str],
    judged: Mapping[str, Path],
    repeats: Mapping[str, tuple[Reason, str]],
    split: Split,
) -> Made:
    """The parts of `dataset`, each from the part of `faces` of its name; those with the same verdicts are known."""
    with scratch_folder(root, "curate-verdicts") as scratch:
        plan = []
        for part in parts:
            verdicts = [_with_split(row, repeats, split) for row in tables.part_rows(judged[part.stem], JUDGED)]
            item = WorkItem(content_key(content[part], verdicts), (str(part), str(scratch / part.name)))
            if not store.holds([item.key]):
                tables.write_part(scratch / part.name, tables.from_rows(verdicts, FINAL), durable=False)
            plan.append(Part(part.stem, (item,)))
        return make_parts(store, plan, dataset_shard, None, InlinePool(), rows_per_shard=1)


def _with_split(verdict: JudgedRow, repeats: Mapping[str, tuple[Reason, str]], split: Split) -> FinalRow:
    final: FinalRow = {
        "cluster": split.cluster_of(verdict["cluster"]),
        "reference": verdict["reference"],
        "distance": verdict["distance"],
        "status": verdict["status"],
        "error": verdict["error"],
        "detail": verdict["detail"],
    }
    if verdict["face_id"] in repeats:
        reason, detail = repeats[verdict["face_id"]]
        final |= {"status": reason.state, "error": reason, "detail": detail}
    elif verdict["status"] == State.OK:
        final["split"] = "val" if split.is_val(verdict["cluster"]) else "train"
    return final


def _accepted(judged: Iterable[Path], repeats: Collection[str]) -> Iterator[tuple[str, str]]:
    for part in judged:
        table = tables.read_part(part, JUDGED, ["face_id", "identity", "cluster", "status"])
        accepted = table.filter(pc.equal(table["status"], State.OK))
        columns = (accepted[name].to_pylist() for name in ("face_id", "identity", "cluster"))
        yield from (
            (identity, name) for face_id, identity, name in zip(*columns, strict=True) if face_id not in repeats
        )


def _require_faces(output: Path, identities: Iterable[str]) -> None:
    found: dict[str, Counter[str]] = {identity: Counter() for identity in identities}
    samples: dict[str, Counter[str]] = {identity: Counter() for identity in identities}
    for part in tables.iterate_parts(output, DATASET, ["identity", "role", "status", "error", "face_index"]):
        for row in tables.to_rows(part, DATASET):
            if row["identity"] in found:
                found[row["identity"]][str(row["error"] or row["status"])] += 1
                if row["role"] != "reference" and row["face_index"] is not None:
                    samples[row["identity"]][str(row["error"] or row["status"])] += 1
    for identity, reasons in samples.items():
        if set(reasons) == {Reason.OTHER_IDENTITY}:
            say(
                f"curate: identity {identity}: none of the {reasons.total()} collected faces looks like its "
                "references. If the report shows somebody else among these, or no face at all, give better ones"
            )
    for identity, reasons in found.items():
        if not reasons[State.OK]:
            raise FacemillError(
                f"identity {identity}: not one usable face in {reasons.total()} rows ({_listed(reasons)}). "
                "Give it better pictures, or widen the limits under `curate` in params.yaml"
            )


def _no_reference(identity: str, parts: Iterable[Path]) -> str:
    columns = ["identity", "role", "status", "error"]
    rows = (row for part in parts for row in tables.part_rows(part, FACES, columns))
    reasons = Counter(
        str(row["error"] or row["status"]) for row in rows if row["role"] == "reference" and row["identity"] == identity
    )
    seen = f"{reasons.total()} reference rows: {_listed(reasons)}" if reasons else "no reference picture came in"
    return (
        f"identity {identity}: no usable reference ({seen}). "
        f"Put a picture that shows this person's face large and alone under identities.{identity}.references"
    )


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
