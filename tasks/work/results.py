"""Results by content: a table's parts, each known by the hash of what it was made of.

Three sizes, all by content and none by position:

- an *item* is the smallest thing that a stage works: one picture, one video. Its key is the hash of what it reads.
- a *result* is a Parquet file in `.work/STAGE` under the hash of its items' keys and of all that decides about them
  (stage, parameters, code, packages). Beside it lies how many rows each item gave.
- a *part* is a file of the stage's output. Where a result of just its items is known, that is the part; otherwise the
  items that no result holds are worked, and the part is put together from the results that do.

So a picture that is added, removed, or moved to another part costs itself, whoever worked the others and when. A plan
remembers which results it took: what neither it nor the plan before it took is removed when the table is published.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from facemill import tables
from facemill.batches import batched_by_weight
from facemill.errors import FacemillError
from facemill.files import file_sha256, is_as_stamped, read_json, stamp, sweep, write_json
from facemill.reasons import Reason, State
from facemill.schema import TableSchema
from tasks.work.cluster import InlinePool, Pool, run_all
from tasks.work.failures import Cut, Lost
from tasks.work.known import Known, Place
from tasks.work.progress import track
from tasks.work.scratch import WORK_FOLDER
from tasks.work.terminal import say

PLAN_FILE = "plan.json"
KEY_DIGITS = 32
SHARD_BYTES = 256 * 2**20
"""What is worked or kept together has about so many bytes at most; a column of Arrow's holds 2 GiB."""
ASSEMBLED_IN_WORKERS = 64
"""From so many parts on, putting them together is given to the pool; for fewer its start would take longer."""
PARTS_AT_ONCE = 256
"""So many parts are worked and put together before the next ones are looked at, so that the plan of a table of any
length takes the same memory. With the usual parts of 64 pictures a worker idles once in some ten minutes for it."""
_RUN_AGAIN = "run the same command again: what was finished is kept"


class WorkItem(NamedTuple):
    """The smallest thing that is worked.

    `key`: hash of what it reads; `value`: what the function gets, small. None: its rows were put among the results
    (`put_items`), and only they can give it. `weight`: about how many bytes its rows have, where they may be many.
    """

    key: str
    value: Any
    weight: int = 0


@dataclass(frozen=True)
class Part:
    """A file of the output: its name without suffix, and what its rows are made of, in their order."""

    name: str
    items: tuple[WorkItem, ...]


@dataclass(frozen=True)
class LaterPart:
    """A part whose items are listed each time they are asked for: a plan of millions of items takes no memory."""

    name: str
    list_items: Callable[[], Iterable[WorkItem]]

    @property
    def items(self) -> tuple[WorkItem, ...]:
        """What its rows are made of, in their order."""
        return tuple(self.list_items())


AnyPart = Part | LaterPart


@dataclass(frozen=True)
class Shard:
    """What a stage's function gets: items at a time, and what the stage says to all of them. All of it picklable."""

    items: tuple[Any, ...]
    settings: Any = None


Rows = Sequence[Mapping[str, Any]]
ShardFunction = Callable[[Shard], Sequence[Rows]]
"""Gives the rows of each item, in the items' order; runs in a worker and must be importable there."""
LostRow = Callable[[Any, Reason, str], Mapping[str, Any]]
"""The row of an item that killed its worker or raised; where there is None for it, that is an error of the stage."""


@dataclass(frozen=True)
class Made:
    """The parts of a plan. `worked`: items that no result held; `seconds`: of workers, for those."""

    paths: dict[str, Path]
    worked: int = 0
    seconds: float = 0.0

    def __add__(self, other: Made) -> Made:
        """Both together, for a stage that works in two steps; the paths are those of the second."""
        return Made(other.paths, self.worked + other.worked, self.seconds + other.seconds)


@dataclass(frozen=True)
class Store:
    """The results of one kind of work.

    Attributes:
        name: for progress and messages, such as `extract`.
        folder: where the results lie.
        base: hash of what decides about every item alike: stage, parameters, code, packages.
        schema: of the results.
    """

    name: str
    folder: Path
    base: str
    schema: TableSchema[Any]

    def key(self, items: Iterable[str]) -> str:
        """The key of a result of these items."""
        return content_key(self.base, list(items))

    def holds(self, items: Iterable[str]) -> bool:
        """Whether a result of just these items is there as it was written."""
        return self.told(self.key(items)) is not None

    def told(self, key: str) -> list[tuple[str, int, bool]] | None:
        """What the receipt of a result says of its items: key, rows, whether one of them has failed.

        None where there is none, or none of this base, or where the result is no longer as it was written: it may
        share its bytes with a table that somebody has damaged.
        """
        try:
            receipt = read_json(self.receipt(key))
            items = [(str(item), int(rows), bool(failed)) for item, rows, failed in receipt["items"]]
            if receipt["base"] == self.base and is_as_stamped(self.path(key), receipt["stamp"], receipt["sha256"]):
                return items
        except (FacemillError, KeyError, TypeError, ValueError):  # cut, or none of ours: as if it were not there
            pass
        return None

    def path(self, key: str) -> Path:
        """Where the result of that key lies, or would lie."""
        return self.folder / f"{key}.parquet"

    def receipt(self, key: str) -> Path:
        """What the result is made of and how many rows each item gave, beside it."""
        return self.folder / f"{key}.json"


def content_key(*parts: Any) -> str:
    """32 hex digits of SHA-256 over plain values; equal values give equal keys in any process."""
    plain = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:KEY_DIGITS]


def open_store(root: Path, name: str, schema: TableSchema[Any], **base: Any) -> Store:
    """The results of work `name` in a project; what killed runs left half-written is swept away.

    Args:
        base: what decides about every item alike, as plain values.
    """
    folder = root / WORK_FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    return Store(name, folder, content_key(name, schema.name, schema.version, base), schema)


def make_parts(
    store: Store,
    parts: Sequence[AnyPart],
    function: ShardFunction,
    lost_row: LostRow | None,
    pool: Pool,
    *,
    settings: Any = None,
    rows_per_shard: int,
    retry: bool = False,
    unit: str = "shards",
) -> Made:
    """Sees to it that every part is there, at the price of the items that no result holds.

    Args:
        store: where results are kept.
        parts: the plan, fixed before work starts. The items of `PARTS_AT_ONCE` parts are in memory at a time.
        function: makes the rows of items.
        lost_row: the row of an item that killed its worker or raised; None where no item may be lost, since items are
            only copied.
        pool: where the function runs; untouched when nothing is to do.
        settings: what the function is told beside the items.
        rows_per_shard: items that a worker takes at a time.
        retry: work items again whose rows have failed.

    Returns:
        The file of each part, what had to be worked for them, and in how many worker seconds.

    Raises:
        FacemillError: from the function, such as a full disk; finished results are kept.
    """
    keys: dict[str, str] = {}
    open_parts: list[AnyPart] = []
    for part in parts:
        keys[part.name] = store.key(item.key for item in part.items)
        if retry or store.told(keys[part.name]) is None:
            open_parts.append(part)
    known = known_items(store) if open_parts else Known()
    expected = [_shards_of(part.items, known, rows_per_shard, retry=retry) for part in open_parts]
    worked, seconds, redone = 0, 0.0, set[str]()
    with track(store.name, round(sum(expected)), unit) if any(expected) else nullcontext() as progress:
        for first in range(0, len(open_parts), PARTS_AT_ONCE):
            block = [Part(part.name, part.items) for part in open_parts[first : first + PARTS_AT_ONCE]]
            missing = _missing(block, known, retry=retry)
            shards = _shards(block, missing, rows_per_shard)
            if progress is not None:
                progress.total = progress.done + len(shards) + round(sum(expected[first + PARTS_AT_ONCE :]))
            for spent in _work(store, shards, function, lost_row, pool, settings):
                seconds += spent
                if progress is not None:
                    progress.advance()
            worked += len(missing)
            for shard in shards:
                _learn(store, known, store.key(item.key for item in shard))
            if retry:  # of a later block some part may have the same item, and no longer be what it should be
                redone |= missing
            apart = [
                part
                for part in block
                if store.told(keys[part.name]) is None or redone.intersection(item.key for item in part.items)
            ]
            _assemble_all(store, apart, keys, known, pool, retry=retry)
    if parts and not any(expected):
        say(f"Stage {store.name} has nothing to do: {len(parts)} of {len(parts)} parts are known from earlier runs.")
    _remember(store, keys.values())
    return Made({name: store.path(key) for name, key in keys.items()}, worked, seconds)


def put_items(store: Store, items: Sequence[tuple[str, Rows]]) -> None:
    """Keeps rows that were made elsewhere as the result of their items, so that parts can be put together from them."""
    _write(store, [WorkItem(key, None) for key, _ in items], [rows for _, rows in items])


def known_items(store: Store) -> Known:
    """Every item that some result of this base holds."""
    known = Known()
    for receipt in sorted(store.folder.glob("*.json")):
        if receipt.name != PLAN_FILE:
            _learn(store, known, receipt.stem)
    return known


def intact_results(store: Store) -> Iterator[Path]:
    """Every result that is as it was written, also those of other code or other parameters."""
    for receipt in sorted(store.folder.glob("*.json")):
        try:
            told = {} if receipt.name == PLAN_FILE else read_json(receipt)
            if told and is_as_stamped(store.path(receipt.stem), told["stamp"], told["sha256"]):
                yield store.path(receipt.stem)
        except (FacemillError, KeyError, TypeError):  # cut, or none of ours
            continue


def drop_unreached(store: Store) -> int:
    """Removes results that neither the present nor the previous plan took; returns the bytes that are left."""
    plans = _plans(store)
    wanted = {key for plan in plans for key in plan}
    left = 0
    for path in store.folder.iterdir():
        if path.suffix not in (".parquet", ".json") or path.name == PLAN_FILE:
            continue
        if path.stem in wanted:
            left += path.stat().st_size
        else:
            path.unlink(missing_ok=True)
    return left


def drop_all_but_present(folder: Path) -> None:
    """Removes from a store's folder every result that its present plan does not have, also those of the plan before."""
    try:
        present = {str(key) for key in read_json(folder / PLAN_FILE)[0]}
    except (FacemillError, TypeError, KeyError, IndexError):
        present = set()
    for path in folder.iterdir():
        if path.suffix in (".parquet", ".json") and path.name != PLAN_FILE and path.stem not in present:
            path.unlink(missing_ok=True)
    write_json(folder / PLAN_FILE, [sorted(present)])


def _plans(store: Store) -> list[list[str]]:
    try:
        return [list(map(str, plan)) for plan in read_json(store.folder / PLAN_FILE)]
    except (FacemillError, TypeError):  # there was none, or it was cut: then only the present one counts
        return []


def _remember(store: Store, keys: Iterable[str]) -> None:
    """The present plan and the one before it; a plan that is run again does not push the one before it out."""
    present, before = sorted(set(keys)), _plans(store)
    if before[:1] != [present]:
        write_json(store.folder / PLAN_FILE, [present, *before[:1]])


def _learn(store: Store, known: Known, result: str) -> None:
    known.add(result, store.told(result) or ())


def _missing(parts: Sequence[Part], known: Known, *, retry: bool) -> set[str]:
    """Keys of the items that are to be worked: no result holds them or, with `retry`, they had failed."""
    return {key for part in parts for key in _missing_of(part.items, known, retry=retry)}


def _missing_of(items: Sequence[WorkItem], known: Known, *, retry: bool) -> Iterator[str]:
    for item, place in zip(items, known.places([item.key for item in items]), strict=True):
        if place is None or (retry and place.failed and item.value is not None):
            yield item.key


def _shards_of(items: Sequence[WorkItem], known: Known, rows_per_shard: int, *, retry: bool) -> float:
    """About how many shards a part's missing items are: those of several parts may share one."""
    missing = sum(1 for _ in _missing_of(items, known, retry=retry))
    return -(-missing // rows_per_shard) if missing == len(items) else missing / rows_per_shard


def _shards(parts: Sequence[Part], missing: set[str], rows_per_shard: int) -> list[tuple[WorkItem, ...]]:
    """What is missing, cut into shards: parts of which all is missing by themselves, so that a shard may be the part;
    the rest together. Each item once."""
    whole: list[tuple[WorkItem, ...]] = []
    rest: list[WorkItem] = []
    taken: set[str] = set()
    for part in parts:
        fresh = [item for item in part.items if item.key in missing and item.key not in taken]
        taken.update(item.key for item in fresh)
        if fresh and len(fresh) == len(part.items):
            whole += map(tuple, _batches(fresh, rows_per_shard))
        else:
            rest += fresh
    return [*whole, *map(tuple, _batches({item.key: item for item in rest}.values(), rows_per_shard))]


def _batches(items: Iterable[WorkItem], rows_per_shard: int) -> Iterator[list[WorkItem]]:
    return batched_by_weight(items, rows_per_shard, lambda item: item.weight, SHARD_BYTES)


def _work(
    store: Store,
    shards: Sequence[tuple[WorkItem, ...]],
    function: ShardFunction,
    lost_row: LostRow | None,
    pool: Pool,
    settings: Any,
) -> Iterator[float]:
    """Works each shard; one in which a worker died or something raised item by item, so that only the guilty is lost.

    Yields the seconds of each.
    """
    jobs = [(store, shard, function, settings) for shard in shards]
    for index, result in run_all(pool, _work_shard, jobs, _items):
        if isinstance(result, Cut):
            rows = [
                _rows_or_lost(item, found, lost_row) for item, found in zip(shards[index], result.results, strict=True)
            ]
            _write(store, shards[index], rows)
            yield sum(found[1] for found in result.results if not isinstance(found, Lost))
        else:
            yield float(result)


def _rows_or_lost(item: WorkItem, found: Any, lost_row: LostRow | None) -> Rows:
    if not isinstance(found, Lost):
        rows: Rows = found[0]
        return rows
    if lost_row is None:
        raise FacemillError(f"{found.reason}: {found.detail}; {_RUN_AGAIN}")
    return [lost_row(item.value, found.reason, found.detail)]


Job = tuple[Store, tuple[WorkItem, ...], ShardFunction, Any]


def _items(job: Job) -> tuple[Callable[[Job], tuple[Rows, float]], list[Job]]:
    store, items, function, settings = job
    return _work_item, [(store, (item,), function, settings) for item in items]


def _work_item(job: Job) -> tuple[Rows, float]:
    _, items, function, settings = job
    start = time.monotonic()
    [rows] = function(Shard(tuple(item.value for item in items), settings))
    return rows, time.monotonic() - start


def _work_shard(job: Job) -> float:
    store, items, function, settings = job
    start = time.monotonic()
    _write(store, items, function(Shard(tuple(item.value for item in items), settings)))
    return time.monotonic() - start


def _write(store: Store, items: Sequence[WorkItem], rows: Sequence[Rows]) -> None:
    if len(rows) != len(items):
        raise ValueError(f"{store.name}: rows of {len(rows)} items for {len(items)}")
    table = tables.from_rows([row for own in rows for row in own], store.schema)
    told = [[item.key, len(own), _has_failed(own)] for item, own in zip(items, rows, strict=True)]
    _keep(store, store.key(item.key for item in items), table, told)


def _has_failed(rows: Rows) -> bool:
    return any(row.get("status") == State.FAILED for row in rows)


def _keep(store: Store, key: str, table: pa.Table, items: Sequence[Sequence[Any]]) -> None:
    # The table first: a receipt that exists then always has one.
    tables.write_part(store.path(key), table)
    path = store.path(key)
    told = {"base": store.base, "items": [list(item) for item in items]}
    write_json(store.receipt(key), {**told, "stamp": stamp(path), "sha256": file_sha256(path)})


def _assemble_all(
    store: Store, parts: Sequence[Part], keys: Mapping[str, str], known: Known, pool: Pool, *, retry: bool
) -> None:
    if retry:  # a part that is written anew may be where another one finds its rows: one after another, told of at once
        for part in parts:
            _assemble((store, keys[part.name], _placed(store, part, known)))
            _learn(store, known, keys[part.name])
        return
    jobs = [(store, keys[part.name], _placed(store, part, known)) for part in parts]
    chosen: Pool = pool if len(jobs) >= ASSEMBLED_IN_WORKERS else InlinePool()
    for _, result in run_all(chosen, _assemble, jobs):
        if isinstance(result, Lost):
            raise FacemillError(f"{store.name}: {result.detail or result.reason}; {_RUN_AGAIN}")


def _placed(store: Store, part: Part, known: Known) -> tuple[tuple[str, Place], ...]:
    placed = []
    for item, place in zip(part.items, known.places([item.key for item in part.items]), strict=True):
        if place is None:
            raise FacemillError(_has_gone(store))
        placed.append((item.key, place))
    return tuple(placed)


def _has_gone(store: Store) -> str:
    return f"a result in {store.folder} has gone while the stage ran (was {WORK_FOLDER} deleted?); {_RUN_AGAIN}"


def _assemble(job: tuple[Store, str, tuple[tuple[str, Place], ...]]) -> None:
    """Puts a part together from results; each run of items that lie in one result reads it once."""
    store, key, places = job
    pieces = []
    for result, group in groupby(places, key=lambda each: each[1].result):
        if not store.path(result).exists():
            raise FacemillError(_has_gone(store))
        table = tables.read_part(store.path(result), store.schema)
        pieces += [table.slice(place.start, place.rows) for _, place in group]
    table = pa.concat_tables(pieces).combine_chunks() if pieces else tables.empty(store.schema)
    told = [[item, place.rows, place.failed] for item, place in places]
    _keep(store, key, table, told)
