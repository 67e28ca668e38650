"""Stage `curate`: table `faces` -> table `dataset`, the same rows with a verdict and, where accepted, a split.

An identity is defined by its reference pictures: the largest face of each. A face is accepted when its embedding lies
near enough to one of them, it is the nearest such face of its picture, and it is large, sharp and frontal enough. Every
other row keeps one reason: those of `extract`, other_identity, second_face, face_too_small, blurred, extreme_pose, in
this order. Train and validation are split by duplicate cluster, so that no picture has its twin on the other side.

A part of `faces` is judged by itself once the references are known; only the split asks about all of them, and that in
a few numbers for each identity. So memory does not grow with the table, and a part is written anew only where a verdict
in it has changed.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from facemill import tables
from facemill.embeddings import DIMENSIONS, distance
from facemill.errors import FacemillError
from facemill.reasons import Reason, State
from facemill.schema import (
    DATASET,
    FACES,
    UNIQUE,
    Bool,
    DatasetRow,
    FaceRow,
    Float32,
    StateColumns,
    String,
    TableSchema,
)
from facemill.split import Split
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
from tasks.work.totals import Totals, count_rows, finish, publish_parts


class JudgedRow(StateColumns, total=False):
    """What is decided of a face from its own part and the references."""

    identity: String
    cluster: String
    reference: Bool
    distance: Float32


class FinalRow(JudgedRow, total=False):
    """The same with its side, which all faces together decide."""

    split: String


JUDGED = TableSchema("judged_faces", 1, JudgedRow)
"""Scratch between judging and the split: a row for each row of `faces`."""
FINAL = TableSchema("split_faces", 1, FinalRow)
_JUDGED = ["face_id", "sample_id", "identity", "role", "face_px", "sharpness", "yaw", "pitch", "roll"]
_JUDGED += ["status", "error", "detail"]

Embeddings = npt.NDArray[np.float32]


@dataclass(frozen=True)
class References:
    """The faces that define the identities: (K, 128) embeddings by identity, and the ids of those faces."""

    embeddings: Mapping[str, Embeddings]
    face_ids: frozenset[str]

    @property
    def key(self) -> str:
        """Hash of their content."""
        plain = {identity: hashlib.sha256(found.tobytes()).hexdigest() for identity, found in self.embeddings.items()}
        return content_key(plain, sorted(self.face_ids))


@dataclass(frozen=True)
class JudgeSettings:
    """What the judging of a part needs beside the part."""

    references: References
    params: CurateParams


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Curates into `root/data/dataset`.

    Raises:
        FacemillError: `faces` is missing; an identity has no usable reference; an identity ends without a single
            accepted face (the table is there then, to see why).
    """
    start = time.monotonic()
    output, identities = root / Data.DATASET, sorted(params.identities)
    parts = tables.checked_parts(root / Data.FACES, FACES)
    references = find_references(parts, identities)

    code = read_deciders(root, "curate", params).key
    limits = params.curate.model_dump(mode="json", exclude={"val_share"})
    judging = open_store(root, "curate-judge", JUDGED, code=code, limits=limits, references=references.key)
    writing = open_store(root, "curate", DATASET, code=code)  # what the parameters decide is in the verdicts
    content = hash_files(root, "faces", parts, ours=True)
    judged = _judge_parts(judging, root, parts, content, JudgeSettings(references, params.curate))
    split = Split.of(_accepted(judged.paths.values()), params.curate.val_share, identities)
    made = judged + _dataset_parts(writing, root, parts, content, judged.paths, split)
    publish_parts(made.paths, output)
    kept_bytes = drop_unreached(judging) + drop_unreached(writing)

    rows, counts = sum(map(tables.count_part, parts)), count_rows(output, DATASET)
    totals = Totals("curate", rows, counts, time.monotonic() - start, made.seconds, made.worked, kept_bytes=kept_bytes)
    finish(root, totals)
    _require_faces(output, identities)
    return totals


def find_references(parts: Sequence[Path], identities: Sequence[str]) -> References:
    """The largest face of each reference picture, a part in memory at a time.

    Raises:
        FacemillError: an identity has no usable reference.
    """
    found: dict[str, dict[str, Embeddings]] = {identity: {} for identity in identities}
    for part in parts:
        rows = tables.part_rows(part, FACES, _JUDGED)
        chosen = reference_rows(rows, [at for at, row in enumerate(rows) if row["status"] == State.OK])
        embeddings = read_embeddings(part) if chosen else np.zeros((0, DIMENSIONS), np.float32)
        for at in chosen:
            if rows[at]["identity"] in found:
                found[rows[at]["identity"]][rows[at]["face_id"]] = embeddings[at]
    for identity, faces in found.items():
        if not faces:
            raise FacemillError(_no_reference(identity, parts))
    ordered = {identity: np.stack([faces[key] for key in sorted(faces)]) for identity, faces in found.items()}
    return References(ordered, frozenset(key for faces in found.values() for key in faces))


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
    rows, clusters = tables.part_rows(faces, FACES, _JUDGED), read_clusters(unique)
    for row in rows:
        if (row["sample_id"], row["identity"]) not in clusters:
            # Without its cluster a picture could get to both sides of the split.
            raise FacemillError(
                f"{unique} has no row of picture {row['sample_id'][:16]} of {row['identity']}, which {faces} has: the "
                "two do not belong together. Bring both tables back with `dvc checkout data/unique data/faces`, or run "
                "`dvc repro`"
            )
    return judge_rows(rows, read_embeddings(faces), clusters, settings.references, settings.params)


def read_clusters(part: Path) -> dict[tuple[str, str], str]:
    """Duplicate cluster by (sample_id, identity), of a part of `unique`."""
    columns = ["sample_id", "identity", "cluster"]
    return {(row["sample_id"], row["identity"]): row["cluster"] for row in tables.part_rows(part, UNIQUE, columns)}


def judge_rows(
    rows: Sequence[FaceRow],
    embeddings: Embeddings,
    clusters: Mapping[tuple[str, str], str],
    references: References,
    params: CurateParams,
) -> list[JudgedRow]:
    """The verdict for each row of a part of `faces`, all faces of a picture among them.

    Args:
        rows: the columns of `_JUDGED`.
        embeddings: (N, 128), one for each row.
        clusters: duplicate cluster by (sample_id, identity).
        references: whom the faces are compared with.
        params: the limits.
    """
    verdicts: list[JudgedRow] = [
        {
            "identity": row["identity"],
            "cluster": clusters.get((row["sample_id"], row["identity"]), ""),
            "reference": row["face_id"] in references.face_ids,
            "status": row["status"],
            "error": row["error"],
            "detail": row["detail"],
        }
        for row in rows
    ]
    for identity, wanted in references.embeddings.items():
        faces = [at for at, row in enumerate(rows) if row["identity"] == identity and row["status"] == State.OK]
        for at in faces:
            verdicts[at]["distance"] = float(distance(wanted, embeddings[at]).min())
        _judge_identity([rows[at] for at in faces], [verdicts[at] for at in faces], params)
    return verdicts


def reference_rows(rows: Sequence[FaceRow], faces: Iterable[int]) -> list[int]:
    """The largest face of each reference picture among an identity's faces, as row numbers."""
    largest: dict[str, int] = {}
    for at in faces:
        best = largest.get(rows[at]["sample_id"])
        if rows[at]["role"] == "reference" and (best is None or rows[at]["face_px"] > rows[best]["face_px"]):
            largest[rows[at]["sample_id"]] = at
    return list(largest.values())


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
    return None


def _judge_identity(rows: Sequence[FaceRow], verdicts: Sequence[JudgedRow], params: CurateParams) -> None:
    nearest: dict[str, JudgedRow] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        best = nearest.get(row["sample_id"])
        if best is None or verdict["distance"] < best["distance"]:
            nearest[row["sample_id"]] = verdict
    for row, verdict in zip(rows, verdicts, strict=True):
        found: tuple[Reason, str] | None
        if verdict["distance"] > params.identity_distance:
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
    return content_key(tables.part_rows(part, UNIQUE, ["sample_id", "identity", "cluster"]))


def _dataset_parts(
    store: Store,
    root: Path,
    parts: Sequence[Path],
    content: Mapping[Path, str],
    judged: Mapping[str, Path],
    split: Split,
) -> Made:
    """The parts of `dataset`, each from the part of `faces` of its name; those with the same verdicts are known."""
    with scratch_folder(root, "curate-verdicts") as scratch:
        plan = []
        for part in parts:
            verdicts = [_with_split(row, split) for row in tables.part_rows(judged[part.stem], JUDGED)]
            item = WorkItem(content_key(content[part], verdicts), (str(part), str(scratch / part.name)))
            if not store.holds([item.key]):
                tables.write_part(scratch / part.name, tables.from_rows(verdicts, FINAL), durable=False)
            plan.append(Part(part.stem, (item,)))
        return make_parts(store, plan, dataset_shard, None, InlinePool(), rows_per_shard=1)


def _with_split(verdict: JudgedRow, split: Split) -> FinalRow:
    side = "val" if split.is_val(verdict["cluster"]) else "train"
    final: FinalRow = {**verdict, "split": side}
    if verdict["status"] != State.OK:
        del final["split"]
    return final


def _accepted(judged: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for part in judged:
        table = tables.read_part(part, JUDGED, ["identity", "cluster", "status"])
        accepted = table.filter(pc.equal(table["status"], State.OK))
        yield from zip(accepted["identity"].to_pylist(), accepted["cluster"].to_pylist(), strict=True)


def _require_faces(output: Path, identities: Iterable[str]) -> None:
    found: dict[str, Counter[str]] = {identity: Counter() for identity in identities}
    for part in tables.iterate_parts(output, DATASET, ["identity", "status", "error"]):
        for row in tables.to_rows(part, DATASET):
            if row["identity"] in found:
                found[row["identity"]][str(row["error"] or row["status"])] += 1
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
