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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from facemill import tables
from facemill.dedup import Candidate, PictureHash, hash_picture, judge, licence_rank
from facemill.errors import InputError
from facemill.reasons import Reason, State
from facemill.schema import (
    RAW,
    UNIQUE,
    Bool,
    Float64,
    Int32,
    RawRow,
    Row,
    StateColumns,
    String,
    TableSchema,
    UInt64,
    UniqueRow,
)
from tasks.catalogue import Data
from tasks.params import ClusterParams, DedupParams, Params
from tasks.work.cluster import Pool, open_pool
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
from tasks.work.rows import RowAt, read_rows
from tasks.work.scratch import scratch_folder
from tasks.work.totals import Totals, count_rows, finish, publish_parts


class HashColumns(TypedDict, total=False):
    """What `facemill.dedup.hash_picture` found."""

    phash: UInt64
    dhash: UInt64
    flat: Bool
    sharpness: Float64


class HashRow(HashColumns, StateColumns, total=False):
    """The hashes of one picture."""


class VerdictRow(StateColumns, total=False):
    """What `unique` adds to a row of `raw`, or replaces."""

    phash: UInt64
    cluster: String
    keep: Bool
    duplicate_of: String
    distance: Int32


HASHES = TableSchema("hashes", 1, HashRow)
"""Scratch between the two halves of the stage: one row for each picture of a part of `raw` that can be read."""
VERDICTS = TableSchema("verdicts", 1, VerdictRow)
"""Scratch on the way to the workers: a row for each row of a part of `raw`."""

ROWS_WORTH_A_CLUSTER = 2000
"""Hashing takes 1–6 ms a picture, starting workers some seconds; `collect` has decoded every picture in a worker."""
HASHED_TOGETHER = 64
"""Pictures that a worker hashes at a time."""

_JUDGED = ["sample_id", "identity", "role", "url", "licence", "width", "height"]
_STATE = ["status", "error", "detail"]


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Hashes in the workers, judges here, publishes `root/data/unique`. Raises FacemillError when `raw` is missing."""
    start = time.monotonic()
    source, output = root / Data.RAW, root / Data.UNIQUE
    code = read_deciders(root, "dedup", params).key
    parts = tables.checked_parts(source, RAW)
    rows = sum(tables.count_part(part) for part in parts)

    cluster = params.cluster if rows > ROWS_WORTH_A_CLUSTER else ClusterParams(kind="inline")
    with open_pool(cluster) as pool:
        hashing = open_store(root, "dedup-hash", HASHES, code=code)
        hashed = hash_parts(hashing, parts, pool, retry=retry)
        verdicts = Verdicts.judged(parts, hashed.paths, params.dedup)
        judging = open_store(root, "dedup", UNIQUE, code=code)  # what the parameters decide is in the verdicts
        made = hashed + _unique_parts(judging, root, parts, hashed.paths, verdicts, pool)
    publish_parts(made.paths, output)
    kept_bytes = drop_unreached(hashing) + drop_unreached(judging)
    counts = count_rows(output, UNIQUE)
    totals = Totals("dedup", rows, counts, time.monotonic() - start, made.seconds, made.worked, kept_bytes=kept_bytes)
    return finish(root, totals)


def hash_parts(store: Store, parts: Sequence[Path], pool: Pool, *, retry: bool = False) -> Made:
    """The hashes of all pictures, part by part; a picture that lies in many rows is hashed once."""
    plan = [Part(part.stem, tuple(_picture_items(part))) for part in parts]
    return make_parts(store, plan, hash_shard, _lost_hash, pool, rows_per_shard=HASHED_TOGETHER, retry=retry)


def hash_shard(shard: Shard) -> list[list[HashRow]]:
    """The hashes of some pictures of `raw`, each a row."""
    return [[_hash_row(row)] for row in read_rows(shard.items, RAW, ["image"])]


@dataclass(frozen=True)
class Verdicts:
    """What became of every picture of `raw`, by its number over all parts."""

    stands_for: Sequence[int]
    """(N,) the picture that is kept for each; itself where it is kept."""
    cluster: Sequence[str]
    """(N,) the smallest sample_id of its duplicate cluster."""
    kept: Mapping[int, tuple[str, str, int]]
    """sample_id, url and hash of the pictures that stand for others."""

    @classmethod
    def judged(cls, parts: Sequence[Path], hashes: Mapping[str, Path], params: DedupParams) -> Verdicts:
        """Compares all pictures with each other."""
        candidates = [_candidate(row, found, at) for at, (row, found) in enumerate(_readable(parts, hashes))]
        stands_for, cluster = judge(candidates, distance=params.hash_distance, confirm_distance=params.confirm_distance)
        names: dict[int, str] = {}
        for number, item in zip(cluster.tolist(), candidates, strict=True):
            names[number] = min(names.get(number, item.sample_id), item.sample_id)
        chosen = {int(at): candidates[at] for at in stands_for}
        kept = {at: (item.sample_id, item.rank[-2], item.hash.phash) for at, item in chosen.items()}
        return cls(stands_for.tolist(), [names[number] for number in cluster.tolist()], kept)

    def of_part(self, rows: Sequence[RawRow], hashes: Iterable[HashRow], first: int) -> list[VerdictRow]:
        """The verdicts of a part's rows, as the columns that `unique` adds or replaces.

        Args:
            rows: sample_id and state of each row of a part of `raw`.
            hashes: of those among them that `collect` could read.
            first: number of the first picture among them that could be hashed.
        """
        found, at, verdicts = iter(hashes), first, list[VerdictRow]()
        for row in rows:
            hashed = next(found) if row["status"] == State.OK else None
            verdicts.append(_not_kept(hashed or row))
            if hashed is not None and hashed["status"] == State.OK:
                verdicts[-1] |= self._of_picture(row["sample_id"], hashed["phash"], at)
                at += 1
        return verdicts

    def _of_picture(self, sample_id: str, phash: int, at: int) -> VerdictRow:
        seen: VerdictRow = {"phash": phash, "cluster": self.cluster[at]}
        if self.stands_for[at] == at:
            return seen | {"keep": True}
        kept_id, kept_url, kept_hash = self.kept[self.stands_for[at]]
        reason = Reason.EXACT_DUPLICATE if sample_id == kept_id else Reason.NEAR_DUPLICATE
        return seen | {
            "duplicate_of": kept_id,
            "distance": (phash ^ kept_hash).bit_count(),
            "status": reason.state,
            "error": reason,
            "detail": f"of {kept_url}",
        }


def unique_shard(shard: Shard) -> list[list[UniqueRow]]:
    """Parts of `raw` with their verdicts; pictures only where they are kept. An item is (part, table of verdicts)."""
    return [
        [_unique_row(row, verdict) for row, verdict in zip(_rows(part, RAW), _rows(verdicts, VERDICTS), strict=True)]
        for part, verdicts in shard.items
    ]


def _unique_row(row: RawRow, verdict: VerdictRow) -> UniqueRow:
    merged: UniqueRow = {**row, **verdict}
    if not merged["keep"]:
        del merged["image"]
    return merged


def _rows(part: str | Path, schema: TableSchema[Row], columns: Sequence[str] | None = None) -> list[Row]:
    return tables.to_rows(tables.read_part(Path(part), schema, columns), schema)


def _not_kept(row: RawRow | HashRow) -> VerdictRow:
    return {"keep": False, "status": row["status"], "error": row["error"], "detail": row["detail"]}


def _unique_parts(
    store: Store, root: Path, parts: Sequence[Path], hashes: Mapping[str, Path], verdicts: Verdicts, pool: Pool
) -> Made:
    """The parts of `unique`, each from the part of `raw` of its name; those whose verdicts are as before are known."""
    content = hash_files(root, "raw", parts)
    with scratch_folder(root, "dedup-verdicts") as scratch:
        plan, first = [], 0
        for part in parts:
            rows, found = _rows(part, RAW, ["sample_id", *_STATE]), _rows(hashes[part.stem], HASHES)
            own = verdicts.of_part(rows, found, first)
            first += sum(item["status"] == State.OK for item in found)
            item = WorkItem(content_key(content[part], own), (str(part), str(scratch / part.name)))
            if not store.holds([item.key]):
                tables.write_part(scratch / part.name, tables.from_rows(own, VERDICTS))
            plan.append(Part(part.stem, (item,)))
        return make_parts(store, plan, unique_shard, None, pool, rows_per_shard=1)


def _picture_items(part: Path) -> Iterator[WorkItem]:
    """What is to be hashed of a part: each picture that `collect` could read, known by its content."""
    for at, row in enumerate(_rows(part, RAW, ["sample_id", "status"])):
        if row["status"] == State.OK:
            yield WorkItem(row["sample_id"], RowAt(str(part), at))


def _readable(parts: Sequence[Path], hashes: Mapping[str, Path]) -> Iterator[tuple[RawRow, HashRow]]:
    """Every picture that could be hashed, with what it is judged by, a part in memory at a time."""
    for part in parts:
        usable = [row for row in _rows(part, RAW, [*_JUDGED, "status"]) if row["status"] == State.OK]
        found = _rows(hashes[part.stem], HASHES)
        yield from ((row, item) for row, item in zip(usable, found, strict=True) if item["status"] == State.OK)


def _hash_row(row: RawRow) -> HashRow:
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


def _lost_hash(place: RowAt, reason: Reason, detail: str) -> HashRow:
    return {"status": reason.state, "error": reason, "detail": detail}
