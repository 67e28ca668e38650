"""Stage `collect`: pictures from every source become rows of `raw`; the archive's videos become rows of `videos`.

In: the sources and references of params.yaml, and `data/inventory.json`, which says what lies in them.
Out: `data/raw`, `data/videos`, `data/archive` (the sample videos; empty when the archive is a folder of one's own).

Every picture is decoded once: a row is `ok` with its size, or `failed` with the reason, or `rejected` where its host
has opted out. What is collected is what the inventory saw: a file that came later is tomorrow's, one that has changed
or gone since is a row that says so. What the network gave to earlier runs stays until its address, asked again
(`tasks.work.checks`), gives another picture, is gone or has opted out; each run asks searches again. A row stays in its
part of the table as long as it is wanted (`tasks.work.spread`).

What forgotten.yaml names (`tasks.work.forgotten`) is not asked for where that can be told beforehand; what turns out to
be so is not kept.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import read_object
from facemill.reasons import Reason
from facemill.schema import RAW, VIDEOS, RawRow
from facemill.sources import fetch, network_kinds
from tasks.catalogue import Data
from tasks.collect_videos import collect_videos
from tasks.collecting.network import due_again, fetch_from_network, keep_carried, known_pictures
from tasks.collecting.planning import plan_units
from tasks.collecting.rows import (
    PictureSettings,
    Wanted,
    forgotten_row,
    has_changed,
    is_forgotten,
    lost_row,
    picture_row,
)
from tasks.params import Params
from tasks.work.checks import read_checks
from tasks.work.cluster import Pool, open_pool
from tasks.work.deciders import read_deciders
from tasks.work.forgotten import Forgotten, read_forgotten
from tasks.work.results import (
    Made,
    Part,
    Shard,
    WorkItem,
    content_key,
    drop_unreached,
    make_parts,
    open_store,
)
from tasks.work.spread import spread
from tasks.work.totals import Totals, count_rows, finish, publish_parts


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Collects everything. Raises FacemillError as the sources, `make_parts` and `finish` do."""
    return _run(params, root, retry=retry, ask_network=True)


def run_without_network(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """`run`, with what the network gave to earlier runs and without asking it for anything."""
    return _run(params, root, retry=retry, ask_network=False)


def _run(params: Params, root: Path, *, retry: bool, ask_network: bool) -> Totals:
    start = time.monotonic()
    inventory = read_object(root / Data.INVENTORY, "sources", "portraits", "archive")
    code = read_deciders(root, "collect", params).key

    raw, videos = root / Data.RAW, root / Data.VIDEOS
    with open_pool(params.cluster) as pool:
        pictures, rows_in, kept_bytes = _collect_pictures(
            params, root, inventory, code, pool, retry=retry, ask_network=ask_network
        )
        probed, kept_videos_bytes = collect_videos(params, root, inventory, code, pool, retry=retry)
    counts, video_counts = count_rows(raw, RAW), count_rows(videos, VIDEOS)
    totals = Totals(
        stage="collect",
        rows_in=rows_in,
        counts=counts,
        seconds=time.monotonic() - start,
        worker_seconds=pictures.seconds + probed.seconds,
        worked=pictures.worked + probed.worked,
        kept_bytes=kept_bytes + kept_videos_bytes,
        extra={"videos": {state: sum(reasons.values()) for state, reasons in sorted(video_counts.items())}},
    )
    return finish(root, totals, params.collect.failure_limit)


def collect_shard(shard: Shard) -> list[list[RawRow]]:
    """Fetches units and checks each picture: rows of `raw`."""
    return [_rows_of(wanted, shard.settings) for wanted in shard.items]


def _collect_pictures(
    params: Params, root: Path, inventory: Mapping[str, Any], code: str, pool: Pool, *, retry: bool, ask_network: bool
) -> tuple[Made, int, int]:
    """Fetches what is new, keeps what is known, publishes `data/raw`.

    Returns:
        What was made, how many rows there should be, and the bytes of results that are kept.
    """
    output = root / Data.RAW
    present = _present_units(output)
    settings = PictureSettings(params.collect.max_pixels, read_forgotten(root))
    store = open_store(root, "collect", RAW, code=code, max_pixels=settings.max_pixels)
    checks = read_checks(root)
    old = known_pictures(params, output, store, settings.forgotten, checks)
    wanted = _wanted(params, root, inventory, old.urls, settings.forgotten)
    kinds = network_kinds()
    local = {each.key: each for each in wanted if each.entry["source"] not in kinds}
    network = [each for each in wanted if each.entry["source"] in kinds]
    found: dict[str, int] = {}
    if ask_network:
        known = due_again(old, network, checks, params.collect.recheck_days)
        fetched = fetch_from_network(store, network, known, settings, pool, params.collect.hosts_at_once)
        found = fetched.kept
        checks.note(fetched.said, fetched.withdrawn)
    checks.save(root, {unit for units in old.urls.values() for unit in units} | found.keys())
    carried = [
        unit for units in old.urls.values() for unit in units if unit not in found and unit not in checks.withdrawn
    ]
    keep_carried(store, output, carried)

    alone = [each.key for each in local.values() if each.unit is not None and not each.unit.single]
    sizes = old.sizes | found | {key: _file_size(each) for key, each in local.items()}
    planned = spread([*local, *found, *carried], present, params.collect.rows_per_shard, alone, sizes)
    plan = [
        Part(part.name, tuple(WorkItem(key, local.get(key), sizes.get(key, 0)) for key in part.units))
        for part in planned
    ]
    made = make_parts(
        store, plan, collect_shard, lost_row, pool,
        settings=settings, rows_per_shard=params.collect.rows_per_shard, retry=retry, unit="shards of pictures",
    )  # fmt: skip
    publish_parts(made.paths, output)
    return made, _rows_in(plan, output), drop_unreached(store)


def _file_size(wanted: Wanted) -> int:
    """The bytes of the file that a unit is; 0 where there is none, or where whoever reads it says what is wrong."""
    if wanted.unit is None:
        return 0
    try:
        return wanted.unit.size_bytes if wanted.unit.path is None else wanted.unit.path.stat().st_size
    except OSError:
        return 0


def _present_units(output: Path) -> dict[str, list[str]]:
    """The units in each part of the table as it is, in their order; nothing where there is no table yet.

    Raises:
        FacemillError: a part that cannot be read, with what to do: it may hold what only the network could give again.
    """
    if not output.is_dir():
        return {}
    try:
        parts = tables.checked_parts(output, RAW)
        columns = {part.stem: tables.read_part(part, RAW, ["unit"])["unit"].to_pylist() for part in parts}
    except FacemillError as error:
        raise FacemillError(f"{error}. If it cannot be mended, move {output} away to collect anew") from error
    return {name: list(dict.fromkeys(units)) for name, units in columns.items()}


def _wanted(
    params: Params,
    root: Path,
    inventory: Mapping[str, Any],
    old: Mapping[str, Mapping[str, str]],
    forgotten: Forgotten,
) -> list[Wanted]:
    """What the inventory saw, each with its unit as the sources plan it now. What came later is the next run's."""
    collected = {identity: list(units.values()) for identity, units in old.items()}
    planned = {(unit.identity, unit.role, unit.source, unit.key): unit for unit in plan_units(params, root, collected)}
    found = []
    for entry in inventory["sources"]:
        if forgotten.covers(identity=entry["identity"], sample_id=entry.get("sha256"), addresses=[entry["name"]]):
            continue  # since the inventory looked
        unit = planned.get((entry["identity"], entry["role"], entry["source"], entry["name"]))
        rights = "" if unit is None else unit.rights
        options = None if unit is None else dict(unit.options)
        face = [unit.face] if unit is not None and unit.face else []
        # Only its pictures can tell whether an author is one to be forgotten, or a frame, or a picture without a file.
        is_file = unit is None or (unit.single and "sha256" in entry)
        told = [key] if (key := forgotten.authors_key if is_file else forgotten.key) else []
        found.append(Wanted(entry, unit, entry.get("sha256"), content_key(entry, options, rights, *face, *told)))
    return found


def _rows_of(wanted: Wanted, settings: PictureSettings) -> list[RawRow]:
    """The rows of one unit: those of its pictures, or one that says why there are none."""
    unit = wanted.unit
    if unit is None:
        return [lost_row(wanted, Reason.UNREADABLE, "it was there when the inventory looked, and has gone since")]
    if not unit.single and has_changed(unit.path, wanted.sha256):
        return [lost_row(wanted, Reason.CHANGED, "")]
    stated: RawRow = {"stated_face": unit.face or None, "unit": wanted.key}
    rows: list[RawRow] = [{**picture_row(item, settings), **stated} for item in fetch(unit)]
    # A picture that is just its file has the file's hash, so that nothing need be read twice.
    if unit.single and rows[0].get("sample_id") != wanted.sha256 and has_changed(unit.path, wanted.sha256):
        return [lost_row(wanted, Reason.CHANGED, "")]
    if unit.single and is_forgotten(rows[0], settings.forgotten):
        return [forgotten_row(wanted)]
    return [row for row in rows if not is_forgotten(row, settings.forgotten)]


def _rows_in(plan: Sequence[Part], output: Path) -> int:
    """Rows that the units are bound to give; where only fetching could tell, as of videos, those that are there."""
    single = {item.key for part in plan for item in part.items if item.value is not None and item.value.is_single}
    units: list[str] = tables.read_table(output, RAW, ["unit"])["unit"].to_pylist()
    return len(single) + sum(unit not in single for unit in units)
