"""Stage `dedup`: table `raw` -> table `unique`, the same rows with a verdict.

Rows that `collect` could not read pass through as they are. Of the others, those with the same bytes and those that
look the same (perceptual hash, see `facemill.dedup`) fall to the best one of their identity: a reference first, then
the freer licence, the larger, the more detailed. Duplicates are decided inside one identity, so that a picture of two
people stays with both; clusters go across identities, so that `curate` can split without leaking.

Rows that are not kept lose their picture bytes, which stay in `raw`. Reasons: exact_duplicate, near_duplicate, and
those of a picture that does not decode.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import pyarrow as pa

from facemill import tables
from facemill.dedup import Candidate, PictureHash, hash_picture, judge, licence_rank
from facemill.errors import InputError
from facemill.files import folder_sha256
from facemill.reasons import Reason, State
from facemill.schema import (
    RAW,
    UNIQUE,
    Bool,
    Float64,
    RawRow,
    StateColumns,
    TableSchema,
    UInt64,
    UniqueRow,
)
from tasks.catalogue import Data
from tasks.params import ClusterParams, DedupParams, Params
from tasks.work import shards
from tasks.work.cluster import open_pool
from tasks.work.rows import RowAt, all_rows, read_rows
from tasks.work.shards import Shard, Totals


class HashColumns(TypedDict, total=False):
    """What `facemill.dedup.hash_picture` found."""

    phash: UInt64
    dhash: UInt64
    flat: Bool
    sharpness: Float64


class HashRow(HashColumns, StateColumns, total=False):
    """A row of table `hashes`: the hashes of one picture, or why there are none."""


HASHES = TableSchema("hashes", 1, HashRow)
"""Scratch between the two halves of the stage: one row for each row of `raw`, in its order."""

ROWS_WORTH_A_CLUSTER = 2000
"""Hashing takes 1–6 ms a picture, starting workers some seconds; `collect` has decoded every picture in a worker."""

_JUDGED = ["sample_id", "identity", "role", "url", "licence", "width", "height"]


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Hashes in the workers, judges here, publishes `root/data/unique`. Raises FacemillError when `raw` is missing."""
    start = time.monotonic()
    source, output = root / Data.RAW, root / Data.UNIQUE
    places, inputs = all_rows(source, RAW), folder_sha256(source)
    plan = shards.plan_shards(places, params.dedup.rows_per_shard, source)

    cluster = params.cluster if len(places) > ROWS_WORTH_A_CLUSTER else ClusterParams(kind="inline")
    with open_pool(cluster) as pool:
        hashing = shards.open_work(root, "dedup-hash", inputs=inputs, rows_per_shard=params.dedup.rows_per_shard)
        seconds = shards.run_shards(hashing, plan, hash_shard, _lost_hash, HASHES, pool, retry=retry)
        hashes = list(tables.iterate_rows(hashing.folder, HASHES))
        verdicts = judge_rows(list(tables.iterate_rows(source, RAW, _JUDGED)), hashes, params.dedup)

        work = shards.open_work(root, "dedup", inputs=inputs, params=params.dedup.model_dump())
        judged = shards.plan_shards(list(zip(places, verdicts, strict=True)), params.dedup.rows_per_shard, source)
        seconds += shards.run_shards(work, judged, unique_shard, _lost_row, UNIQUE, pool, retry=retry)
    shards.publish(work, judged, output)
    shards.drop_other_work(hashing)
    totals = Totals("dedup", len(places), shards.count_rows(output, UNIQUE), time.monotonic() - start, seconds)
    return shards.finish(root, totals)


def hash_shard(shard: Shard) -> pa.Table:
    """The hashes of the rows that `collect` could read; the others keep their state."""
    columns = ["image", "status", "error", "detail"]
    rows = read_rows(shard.settings, shard.items, RAW, columns)
    return tables.from_rows([_hash_row(row) for row in rows], HASHES)


def judge_rows(rows: Sequence[RawRow], hashes: Sequence[HashRow], params: DedupParams) -> list[UniqueRow]:
    """The verdict for each row of `raw`, as the columns that `unique` adds or replaces."""
    verdicts: list[UniqueRow] = [
        {"keep": False, "status": item["status"], "error": item["error"], "detail": item["detail"]} for item in hashes
    ]
    # `at` counts rows of the table, `own` the candidates: those rows that have hashes.
    usable = [at for at, item in enumerate(hashes) if item["status"] == State.OK]
    candidates = [_candidate(rows[at], hashes[at], at) for at in usable]
    stands_for, cluster = judge(candidates, distance=params.hash_distance, confirm_distance=params.confirm_distance)
    # A cluster is called after its smallest sample_id, which does not depend on the order of the rows.
    names: dict[int, str] = {}
    for number, item in zip(cluster.tolist(), candidates, strict=True):
        names[number] = min(names.get(number, item.sample_id), item.sample_id)
    for own, at in enumerate(usable):
        kept = candidates[stands_for[own]]
        verdicts[at] |= {"phash": candidates[own].hash.phash, "cluster": names[int(cluster[own])]}
        verdicts[at].update({"keep": True} if stands_for[own] == own else _duplicate(candidates[own], kept))
    return verdicts


def unique_shard(shard: Shard) -> pa.Table:
    """The rows of `raw` with their verdicts; pictures only where they are kept."""
    rows = read_rows(shard.settings, [place for place, _ in shard.items], RAW)
    merged = [_unique_row(row, verdict) for row, (_, verdict) in zip(rows, shard.items, strict=True)]
    return tables.from_rows(merged, UNIQUE)


def _unique_row(row: RawRow, verdict: UniqueRow) -> UniqueRow:
    merged: UniqueRow = {**row, **verdict}
    if not merged["keep"]:
        del merged["image"]
    return merged


def _hash_row(row: RawRow) -> HashRow:
    if row["status"] != State.OK:
        return {"status": row["status"], "error": row["error"], "detail": row["detail"]}
    try:
        found = hash_picture(row["image"]["bytes"])
    except InputError as error:
        return {"status": error.reason.state, "error": error.reason, "detail": error.detail}
    return {
        "phash": found.phash,
        "dhash": found.dhash,
        "flat": found.flat,
        "sharpness": found.sharpness,
        "status": State.OK,
    }


def _candidate(row: RawRow, found: HashRow, at: int) -> Candidate:
    pixels = (row["width"] or 0) * (row["height"] or 0)
    rank = (row["role"] != "reference", licence_rank(row["licence"]), -pixels, -found["sharpness"])
    return Candidate(
        sample_id=row["sample_id"],
        owner=row["identity"],
        hash=PictureHash(found["phash"], found["dhash"], found["flat"], found["sharpness"]),
        rank=(*rank, row["sample_id"], row["url"] or "", at),
    )


def _duplicate(item: Candidate, kept: Candidate) -> UniqueRow:
    reason = Reason.EXACT_DUPLICATE if item.sample_id == kept.sample_id else Reason.NEAR_DUPLICATE
    distance = (item.hash.phash ^ kept.hash.phash).bit_count()
    return {
        "duplicate_of": kept.sample_id,
        "distance": distance,
        "status": reason.state,
        "error": reason,
        "detail": f"of {kept.rank[-2]}",
    }


def _lost_hash(place: RowAt, reason: Reason, detail: str) -> HashRow:
    return {"status": reason.state, "error": reason, "detail": detail}


def _lost_row(item: tuple[RowAt, UniqueRow], reason: Reason, detail: str) -> UniqueRow:
    _, verdict = item
    return verdict | {"keep": False, "status": reason.state, "error": reason, "detail": detail}
