"""Stage `curate`: table `faces` -> table `dataset`, the same rows with a verdict and, where accepted, a split.

An identity is defined by its reference pictures: the largest face of each. A face is accepted when its embedding lies
near enough to one of them, it is the nearest such face of its picture, and it is large, sharp and frontal enough. Every
other row keeps one reason: those of `extract`, other_identity, second_face, face_too_small, blurred, extreme_pose, in
this order. Train and validation are split by duplicate cluster, so that no picture has its twin on the other side.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import folder_sha256
from facemill.identity import distance
from facemill.nets.dlib_resnet import DIMENSIONS
from facemill.reasons import Reason, State
from facemill.schema import DATASET, FACES, DatasetRow, FaceRow
from tasks.catalogue import Data
from tasks.params import CurateParams, Params
from tasks.work import shards
from tasks.work.cluster import InlinePool
from tasks.work.rows import RowAt, all_rows, read_rows
from tasks.work.shards import Shard, Totals

ROWS_PER_SHARD = 256
_JUDGED = ["face_id", "sample_id", "identity", "role", "cluster", "face_px", "sharpness", "yaw", "pitch", "roll"]
_JUDGED += ["status", "error", "detail"]


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Curates into `root/data/dataset`.

    Raises:
        FacemillError: `faces` is missing; an identity has no usable reference; an identity ends without a single
            accepted face (the table is there then, to see why).
    """
    start = time.monotonic()
    source, output = root / Data.FACES, root / Data.DATASET
    places = all_rows(source, FACES)
    rows = list(tables.iterate_rows(source, FACES, _JUDGED))
    verdicts = judge_rows(rows, read_embeddings(source), sorted(params.identities), params.curate)

    work = shards.open_work(root, "curate", inputs=folder_sha256(source), params=params.curate.model_dump())
    plan = shards.plan_shards(list(zip(places, verdicts, strict=True)), ROWS_PER_SHARD, source)
    here = InlinePool()  # copying rows is not worth a cluster's start
    seconds = shards.run_shards(work, plan, dataset_shard, _lost_row, DATASET, here, retry=retry)
    shards.publish(work, plan, output)
    counts = shards.count_rows(output, DATASET)
    totals = shards.finish(root, Totals("curate", len(rows), counts, time.monotonic() - start, seconds))
    judged = [_dataset_row(row, verdict) for row, verdict in zip(rows, verdicts, strict=True)]
    _require_faces(judged, sorted(params.identities))
    return totals


def read_embeddings(source: Path) -> npt.NDArray[np.float32]:
    """(N, 128), one for each row of `faces`, NaN where there is no face: half a kilobyte each, as lists four."""
    table = tables.read_table(source, FACES, ["embedding"])
    known = table["embedding"].is_valid()
    embeddings = np.full((len(table), DIMENSIONS), np.nan, np.float32)
    embeddings[known.to_numpy()] = tables.matrix(table.filter(known), "embedding", (DIMENSIONS,))
    return embeddings


def judge_rows(
    rows: Sequence[FaceRow], embeddings: npt.NDArray[np.float32], identities: Iterable[str], params: CurateParams
) -> list[DatasetRow]:
    """The verdict for each row of `faces`, as the columns that `dataset` adds or replaces.

    Args:
        rows: the columns of `_JUDGED`.
        embeddings: (N, 128), one for each row.
        identities: those that a dataset is wanted of.
        params: the limits.

    Raises:
        FacemillError: an identity has no usable reference.
    """
    verdicts: list[DatasetRow] = [
        {"reference": False, "status": row["status"], "error": row["error"], "detail": row["detail"]} for row in rows
    ]
    for identity in identities:
        faces = [at for at, row in enumerate(rows) if row["identity"] == identity and row["status"] == State.OK]
        references = set(reference_rows(rows, faces))
        if not references:
            raise FacemillError(_no_reference(identity, [row for row in rows if row["identity"] == identity]))
        wanted = embeddings[sorted(references)]
        for at in faces:
            verdicts[at]["distance"] = float(distance(wanted, embeddings[at]).min())
            verdicts[at]["reference"] = at in references
        _judge_identity([rows[at] for at in faces], [verdicts[at] for at in faces], params)
    _set_splits(rows, verdicts, params.val_share)
    return verdicts


def reference_rows(rows: Sequence[FaceRow], faces: Iterable[int]) -> list[int]:
    """The largest face of each reference picture among an identity's faces, as row numbers."""
    largest: dict[str, int] = {}
    for at in faces:
        best = largest.get(rows[at]["sample_id"])
        if rows[at]["role"] == "reference" and (best is None or rows[at]["face_px"] > rows[best]["face_px"]):
            largest[rows[at]["sample_id"]] = at
    return list(largest.values())


def dataset_shard(shard: Shard) -> pa.Table:
    """The rows of `faces` with their verdicts."""
    rows = read_rows(shard.settings, [place for place, _ in shard.items], FACES)
    judged = [_dataset_row(row, verdict) for row, (_, verdict) in zip(rows, shard.items, strict=True)]
    return tables.from_rows(judged, DATASET)


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


def val_clusters(clusters_of: dict[str, set[str]], val_share: float) -> set[str]:
    """Which clusters are for validation: those whose hash falls into the share, the same in every run.

    Each identity with two clusters or more gets at least one on either side, by the order of their hashes.
    """
    chosen = {cluster for own in clusters_of.values() for cluster in own if _fraction(cluster) < val_share}
    orders = [sorted(clusters_of[identity], key=_fraction) for identity in sorted(clusters_of)]
    for order in orders:
        if len(order) > 1 and not chosen.intersection(order):
            chosen.add(order[0])
    for order in orders:  # last, since nothing can be trained without
        if order and chosen.issuperset(order):
            chosen.discard(order[-1])
    return chosen


def _judge_identity(rows: Sequence[FaceRow], verdicts: Sequence[DatasetRow], params: CurateParams) -> None:
    nearest: dict[str, DatasetRow] = {}
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


def _set_splits(rows: Sequence[FaceRow], verdicts: Sequence[DatasetRow], val_share: float) -> None:
    accepted = [(row, verdict) for row, verdict in zip(rows, verdicts, strict=True) if verdict["status"] == State.OK]
    clusters_of: dict[str, set[str]] = defaultdict(set)
    for row, _ in accepted:
        clusters_of[row["identity"]].add(row["cluster"])
    val = val_clusters(clusters_of, val_share)
    for row, verdict in accepted:
        verdict["split"] = "val" if row["cluster"] in val else "train"


def _dataset_row(row: FaceRow, verdict: DatasetRow) -> DatasetRow:
    return {**row, **verdict}


def _require_faces(rows: Sequence[DatasetRow], identities: Iterable[str]) -> None:
    for identity in identities:
        own = [row for row in rows if row["identity"] == identity]
        if not any(row["status"] == State.OK for row in own):
            raise FacemillError(
                f"identity {identity}: not one usable face in {len(own)} rows ({_reasons(own)}). "
                "Give it better pictures, or widen the limits under `curate` in params.yaml"
            )


def _no_reference(identity: str, own: Sequence[FaceRow]) -> str:
    references = [row for row in own if row["role"] == "reference"]
    seen = f"{len(references)} reference rows: {_reasons(references)}" if references else "no reference picture came in"
    return (
        f"identity {identity}: no usable reference ({seen}). "
        f"Put a picture that shows this person's face large and alone under identities.{identity}.references"
    )


def _reasons(rows: Sequence[FaceRow] | Sequence[DatasetRow]) -> str:
    counts = Counter(str(row["error"] or row["status"]) for row in rows)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _fraction(cluster: str) -> float:
    """A number in 0…1 that depends on the cluster alone."""
    return int(hashlib.sha256(cluster.encode()).hexdigest()[:12], 16) / 16**12


def _lost_row(item: tuple[RowAt, DatasetRow], reason: Reason, detail: str) -> DatasetRow:
    _, verdict = item
    lost: DatasetRow = verdict | {"status": reason.state, "error": reason, "detail": detail}
    lost.pop("split", None)
    return lost
