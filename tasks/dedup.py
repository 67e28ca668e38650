"""Stage `dedup`: table `raw` -> table `unique`, the same rows with a verdict.

Rows that `collect` could not read pass through as they are. Of the others, those with the same bytes and those that
look the same (perceptual hash, see `facemill.dedup`) fall to the best one of their identity: a reference first, then
the freer licence, the more detailed, the larger. Frames of videos all look the same as whole pictures, and fall for
equal bytes alone: `curate` compares the faces. Duplicates are decided inside one identity, so that a picture of two
people stays with both; clusters go across identities, so that `curate` can split without leaking.

A picture whose licence is none of `dedup.licences` falls, whether it is a copy or not (`unwanted_licence`). It shares a
cluster with its copies and ranks below all of them that are wanted, so that none of those falls to it.

Rows that are not kept lose their picture bytes, which stay in `raw`. Reasons: exact_duplicate, near_duplicate, and
those of a picture that does not decode.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from facemill import tables
from facemill.dedup import Looks, judge
from facemill.errors import InputError
from facemill.picture_hash import detail, hash_small, shrink
from facemill.picture_licences import is_wanted, licence_of
from facemill.reasons import Reason, State
from facemill.schema import (
    RAW,
    UNIQUE,
    Bool,
    Float64,
    Int32,
    RawRow,
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
    LaterPart,
    Made,
    Part,
    Shard,
    Store,
    WorkItem,
    content_key,
    drop_unreached,
    known_items,
    make_parts,
    open_store,
)
from tasks.work.rows import RowAt, read_rows
from tasks.work.scratch import scratch_folder
from tasks.work.totals import Totals, count_rows, finish, publish_parts


class HashColumns(TypedDict, total=False):
    """Those of `facemill.picture_hash.PictureHash`."""

    phash: UInt64
    dhash: UInt64
    flat: Bool


class HashRow(HashColumns, StateColumns, total=False):
    """The hashes of one picture."""


class DetailRow(StateColumns, total=False):
    """How good a copy one picture is, see `facemill.picture_hash.PictureDetail`."""

    detail_share: Float64
    sharpness: Float64


class VerdictRow(StateColumns, total=False):
    """What `unique` adds to a row of `raw`, or replaces."""

    phash: UInt64
    cluster: String
    keep: Bool
    duplicate_of: String
    distance: Int32


HASHES = TableSchema("hashes", 2, HashRow)
"""Scratch between the two halves of the stage: one row for each picture of a part of `raw` that can be read."""
DETAILS = TableSchema("details", 2, DetailRow)
"""Scratch: one row for each picture that has copies with other bytes."""
VERDICTS = TableSchema("verdicts", 1, VerdictRow)
"""Scratch on the way to the workers: a row for each row of a part of `raw`."""

PICTURES_WORTH_A_CLUSTER = 2000
"""So many that no result holds. Hashing takes up to 3 ms a picture, starting workers some seconds; `collect` has
decoded every picture in a worker."""
PICTURES_WORTH_A_CLUSTER_TO_LOOK_AT = 200
"""Likewise; looking at the detail of one takes some 50 ms."""
DETAIL_STEP = 1.05
"""Copies whose detail differs by less than about this factor are as good as each other: the larger one stays."""
HASHED_TOGETHER = 64
"""Pictures that a worker hashes at a time."""

_JUDGED = ["sample_id", "identity", "role", "licence", "width", "height", "pts"]
_UNWANTED, _DETAIL, _SHARPNESS = 0, 3, 5
"""Which columns of a picture's rank say that its licence is not wanted, how much detail it has and how sharp it is."""
_STATE = ["status", "error", "detail"]


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Hashes in the workers, judges here, publishes `root/data/unique`. Raises FacemillError when `raw` is missing."""
    start = time.monotonic()
    source, output = root / Data.RAW, root / Data.UNIQUE
    code = read_deciders(root, "dedup", params).key
    parts = tables.checked_parts(source, RAW)

    hashing = open_store(root, "dedup-hash", HASHES, code=code)
    plan = [LaterPart(part.stem, partial(_picture_items, part)) for part in parts]
    cluster = params.cluster if _are_worth_a_cluster(hashing, plan) else ClusterParams(kind="inline")
    with open_pool(cluster) as pool:
        hashed = make_parts(hashing, plan, hash_shard, _lost_hash, pool, rows_per_shard=HASHED_TOGETHER, retry=retry)
        looking = open_store(root, "dedup-detail", DETAILS, code=code)
        details = Details(looking, parts, hashed.paths, params.cluster)
        verdicts = Verdicts.judged(parts, hashed.paths, params.dedup, details)
        judging = open_store(root, "dedup", UNIQUE, code=code)  # what the parameters decide is in the verdicts
        made = hashed + details.made + _unique_parts(judging, root, parts, hashed.paths, verdicts, pool)
    publish_parts(made.paths, output)
    kept_bytes = sum(map(drop_unreached, (hashing, looking, judging)))
    rows, counts = sum(map(tables.count_part, parts)), count_rows(output, UNIQUE)
    totals = Totals("dedup", rows, counts, time.monotonic() - start, made.seconds, made.worked, kept_bytes=kept_bytes)
    return finish(root, totals)


def _are_worth_a_cluster(hashing: Store, plan: Iterable[LaterPart]) -> bool:
    known, fresh = known_items(hashing), 0
    for part in plan:
        fresh += sum(place is None for place in known.places([item.key for item in part.items]))
        if fresh > PICTURES_WORTH_A_CLUSTER:
            return True
    return False


def hash_shard(shard: Shard) -> list[list[HashRow]]:
    """The hashes of some pictures of `raw`, each a row."""
    rows, small = list[HashRow](), list[npt.NDArray[np.uint8]]()
    for picture in read_rows(shard.items, RAW, ["image"]):
        try:
            small.append(shrink(picture["image"]["bytes"], max_pixels=None))  # collect has judged it
            rows.append({"status": State.OK})
        except InputError as error:
            rows.append({"status": error.reason.state, "error": error.reason, "detail": error.detail})
    readable = (row for row in rows if row["status"] == State.OK)
    for known, found in zip(readable, hash_small(np.array(small, np.uint8)), strict=True):
        known["phash"], known["dhash"], known["flat"] = found.phash, found.dhash, found.flat
    return [[row] for row in rows]


def detail_shard(shard: Shard) -> list[list[DetailRow]]:
    """How much there is to see in some pictures of `raw`, each a row."""
    return [[_detail_row(row)] for row in read_rows(shard.items, RAW, ["image"])]


class Details:
    """Finds out how much there is to see in pictures that have copies, which costs ten times what hashing does."""

    def __init__(self, store: Store, parts: Sequence[Path], hashes: Mapping[str, Path], cluster: ClusterParams) -> None:
        self._store, self._parts, self._hashes, self._cluster = store, parts, hashes, cluster
        self.made = Made({})

    def of(self, looks: Looks, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(M, 2) for pictures of `looks`: detail in steps of DETAIL_STEP, and sharpness; of what cannot be decoded the
        lowest."""
        ids = looks.ids(rows)
        places = _places(self._parts, self._hashes, np.sort(rows))
        items = {name: WorkItem(name, places[at]) for name, at in zip(ids, rows.tolist(), strict=True)}
        known = known_items(self._store).places(list(items))
        many = sum(place is None for place in known) > PICTURES_WORTH_A_CLUSTER_TO_LOOK_AT
        plan = [Part("details", tuple(items.values()))] if items else []
        with open_pool(self._cluster if many else ClusterParams(kind="inline")) as pool:
            self.made = make_parts(self._store, plan, detail_shard, _lost_hash, pool, rows_per_shard=HASHED_TOGETHER)
        found = dict.fromkeys(items, (0.0, 0.0))
        for path in self.made.paths.values():
            for name, row in zip(items, tables.part_rows(path, DETAILS), strict=True):
                found[name] = row["detail_share"] or 0.0, row["sharpness"] or 0.0
        both = np.array([found[name] for name in ids], np.float64).reshape(-1, 2)
        both[:, 0] = np.round(np.log(np.maximum(both[:, 0], 1e-6)) / np.log(DETAIL_STEP))
        return both


@dataclass(frozen=True)
class Verdicts:
    """What became of every picture of `raw` that could be hashed, by its number over all parts.

    Attributes:
        looks: what they were judged by.
        stands_for: (N,) int64, the picture that is kept for each; itself where it is kept.
        cluster: (N,) int64, the picture with the smallest sample_id of its duplicate cluster.
        urls: of the pictures that stand for others, by their numbers.
    """

    looks: Looks
    stands_for: npt.NDArray[np.int64]
    cluster: npt.NDArray[np.int64]
    urls: Mapping[int, str]

    @classmethod
    def judged(
        cls, parts: Sequence[Path], hashes: Mapping[str, Path], params: DedupParams, details: Details
    ) -> Verdicts:
        """Compares all pictures with each other."""
        looks = _looks(parts, hashes, params)

        def ranking(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            rank = looks.rank[rows]
            rank[:, [_DETAIL, _SHARPNESS]] = -details.of(looks, rows)
            return rank

        stands_for, cluster = judge(
            looks, distance=params.hash_distance, confirm_distance=params.confirm_distance, ranking=ranking
        )
        others = stands_for[stands_for != np.arange(len(looks))]
        return cls(looks, stands_for, cluster, _urls(parts, hashes, np.unique(others)))

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
                verdicts[-1] |= self._of_picture(at)
                at += 1
        return verdicts

    def _of_picture(self, at: int) -> VerdictRow:
        kept = int(self.stands_for[at])
        sample_id, kept_id, cluster = self.looks.ids(np.array([at, kept, self.cluster[at]]))
        seen: VerdictRow = {"phash": int(self.looks.phash[at]), "cluster": cluster}
        if self.looks.rank[at, _UNWANTED]:  # ranked below all that is wanted, so that nothing wanted stands for it
            reason = Reason.UNWANTED_LICENCE
            return seen | {"keep": False, "status": reason.state, "error": reason, "detail": ""}
        if kept == at:
            return seen | {"keep": True}
        reason = Reason.EXACT_DUPLICATE if sample_id == kept_id else Reason.NEAR_DUPLICATE
        return seen | {
            "duplicate_of": kept_id,
            "distance": int(np.bitwise_count(self.looks.phash[at] ^ self.looks.phash[kept])),
            "status": reason.state,
            "error": reason,
            "detail": f"of {self.urls[kept]}",
        }


def unique_shard(shard: Shard) -> list[list[UniqueRow]]:
    """Parts of `raw` with their verdicts; pictures only where they are kept. An item is (part, table of verdicts)."""
    return [
        [
            _unique_row(row, verdict)
            for row, verdict in zip(
                tables.part_rows(Path(part), RAW), tables.part_rows(Path(verdicts), VERDICTS), strict=True
            )
        ]
        for part, verdicts in shard.items
    ]


def _unique_row(row: RawRow, verdict: VerdictRow) -> UniqueRow:
    merged: UniqueRow = {**row, **verdict}
    if not merged["keep"]:
        del merged["image"]
    return merged


def _not_kept(row: RawRow | HashRow) -> VerdictRow:
    return {"keep": False, "status": row["status"], "error": row["error"], "detail": row["detail"]}


def _unique_parts(
    store: Store, root: Path, parts: Sequence[Path], hashes: Mapping[str, Path], verdicts: Verdicts, pool: Pool
) -> Made:
    """The parts of `unique`, each from the part of `raw` of its name; those whose verdicts are as before are known."""
    content = hash_files(root, "raw", parts, ours=True)
    with scratch_folder(root, "dedup-verdicts") as scratch:
        plan, first = [], 0
        for part in parts:
            rows, found = (
                tables.part_rows(part, RAW, ["sample_id", *_STATE]),
                tables.part_rows(hashes[part.stem], HASHES),
            )
            own = verdicts.of_part(rows, found, first)
            first += sum(item["status"] == State.OK for item in found)
            item = WorkItem(content_key(content[part], own), (str(part), str(scratch / part.name)))
            if not store.holds([item.key]):
                tables.write_part(scratch / part.name, tables.from_rows(own, VERDICTS), durable=False)
            plan.append(Part(part.stem, (item,)))
        return make_parts(store, plan, unique_shard, None, pool, rows_per_shard=1)


def _picture_items(part: Path) -> Iterator[WorkItem]:
    """What is to be hashed of a part: each picture that `collect` could read, known by its content."""
    for at, row in enumerate(tables.part_rows(part, RAW, ["sample_id", "status"])):
        if row["status"] == State.OK:
            yield WorkItem(row["sample_id"], RowAt(str(part), at))


def _looks(parts: Sequence[Path], hashes: Mapping[str, Path], params: DedupParams) -> Looks:
    """What every picture that could be hashed is judged by, a part of `raw` in memory at a time."""
    owners: dict[str, int] = {}
    looks = Looks.concatenate(_looks_of(*_hashed(part, hashes, _JUDGED), owners, params.licences) for part in parts)
    # Only the url is left to tell rows of the same bytes apart.
    same = looks.same_bytes()
    urls = _urls(parts, hashes, same)
    place = {url: number for number, url in enumerate(sorted(set(urls.values())))}
    tie = np.zeros(len(looks), np.int64)
    tie[same] = [place[urls[at]] for at in same.tolist()]
    return replace(looks, tie=tie)


def _looks_of(rows: pa.Table, found: pa.Table, owners: dict[str, int], licences: Sequence[str]) -> Looks:
    width, height = (np.asarray(pc.fill_null(rows[side], 0), np.float64) for side in ("width", "height"))
    return Looks.from_columns(
        phash=found["phash"],
        dhash=found["dhash"],
        flat=pc.or_(found["flat"], pc.is_valid(rows["pts"])),
        owner=[owners.setdefault(name, len(owners)) for name in rows["identity"].to_pylist()],
        sample_id=rows["sample_id"],
        rank=[
            [not is_wanted(text, licences) for text in rows["licence"].to_pylist()],
            pc.not_equal(rows["role"], "reference"),
            [licence_of(text).rank for text in rows["licence"].to_pylist()],
            np.zeros(len(rows)),  # detail, like sharpness: only of those that have copies, see `Details`
            -width * height,
            np.zeros(len(rows)),
        ],
        tie=np.zeros(len(rows), np.int64),
    )


def _urls(parts: Sequence[Path], hashes: Mapping[str, Path], numbers: npt.NDArray[np.int64]) -> dict[int, str]:
    """Where pictures came from: (M,) their numbers, rising."""
    urls, first = dict[int, str](), 0
    for part in parts:
        hashed = pc.equal(tables.read_part(hashes[part.stem], HASHES, ["status"])["status"], State.OK.value)
        count = pc.sum(hashed).as_py() or 0
        own = numbers[slice(*np.searchsorted(numbers, [first, first + count]))]
        if len(own):
            rows, _ = _hashed(part, hashes, ["url"])
            texts = rows["url"].take(own - first).to_pylist()
            urls |= {at: text or "" for at, text in zip(own.tolist(), texts, strict=True)}
        first += count
    return urls


def _places(parts: Sequence[Path], hashes: Mapping[str, Path], numbers: npt.NDArray[np.int64]) -> dict[int, RowAt]:
    """Where pictures lie: (M,) their numbers, rising."""
    places, first = dict[int, RowAt](), 0
    for part in parts:
        readable = tables.read_part(part, RAW, ["status"])["status"]
        readable_rows = np.flatnonzero(np.asarray(pc.equal(readable, State.OK.value)))
        hashed = np.asarray(pc.equal(tables.read_part(hashes[part.stem], HASHES, ["status"])["status"], State.OK.value))
        rows = readable_rows[hashed]
        for at in numbers[slice(*np.searchsorted(numbers, [first, first + len(rows)]))].tolist():
            places[at] = RowAt(str(part), int(rows[at - first]))
        first += len(rows)
    return places


def _hashed(part: Path, hashes: Mapping[str, Path], columns: Sequence[str]) -> tuple[pa.Table, pa.Table]:
    """Columns of a part of `raw` and the hashes, of the pictures in it that could be hashed."""
    rows = tables.read_part(part, RAW, [*columns, "status"])
    rows = rows.filter(pc.equal(rows["status"], State.OK.value))
    found = tables.read_part(hashes[part.stem], HASHES)
    hashed = pc.equal(found["status"], State.OK.value)
    return rows.filter(hashed), found.filter(hashed)


def _detail_row(row: RawRow) -> DetailRow:
    try:
        found = detail(row["image"]["bytes"], max_pixels=None)
    except InputError as error:
        return {"status": error.reason.state, "error": error.reason, "detail": error.detail}
    return {"detail_share": found.share, "sharpness": found.sharpness, "status": State.OK}


def _lost_hash(place: RowAt, reason: Reason, detail: str) -> HashRow:
    return {"status": reason.state, "error": reason, "detail": detail}
