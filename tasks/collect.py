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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from facemill import tables
from facemill.batches import batched_by_weight, interleaved
from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256, read_object
from facemill.foreign_files import valid_name
from facemill.media_files import Tell, tell_nobody
from facemill.pictures import decode, sha256_hex, sniff
from facemill.reasons import Reason, State
from facemill.rights import rights_text
from facemill.schema import RAW, VIDEOS, EncodedPicture, RawRow, StateColumns
from facemill.sources import Item, Surroundings, Unit, again, fetch, find, network_kinds, reference_source
from tasks.catalogue import Data
from tasks.collect_videos import collect_videos
from tasks.params import Params, ReferencePicture
from tasks.paths import place
from tasks.work.checks import Checks, read_checks
from tasks.work.cluster import Pool, open_pool, run_all
from tasks.work.deciders import read_deciders
from tasks.work.failures import Cut, Lost
from tasks.work.forgotten import FORGOTTEN_FILE, Forgotten, read_forgotten
from tasks.work.results import (
    SHARD_BYTES,
    Made,
    Part,
    Shard,
    Store,
    WorkItem,
    content_key,
    drop_unreached,
    intact_results,
    known_items,
    make_parts,
    open_store,
    put_items,
)
from tasks.work.spread import spread
from tasks.work.terminal import say
from tasks.work.totals import Totals, count_rows, finish, publish_parts
from tasks.work.wrong_values import WrongValues

KEPT_TOGETHER = 16
"""So many pictures are kept at a time: a kill costs at most these."""
HOSTS_OF_A_JOB = 4
"""For each of those that a worker asks at once: one that is slow holds one of them up, and the others go on."""


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


def plan_units(
    params: Params, root: Path, collected: Mapping[str, Sequence[str]] | None = None, tell: Tell = tell_nobody
) -> list[Unit]:
    """Everything that all sources and references will give, in the order of params.yaml, but what is to be forgotten.

    Args:
        collected: for each identity, addresses that need not be asked again.
        tell: gets what a person should know, such as what is skipped.

    Raises:
        FacemillError: a folder that is missing or empty, an identity that is to be forgotten, and whatever else a
            source finds wrong beforehand; a line for each wrong source, with its key.
    """
    units: list[Unit] = []
    wrong, forgotten = WrongValues(), read_forgotten(root)
    for identity, person in params.identities.items():
        with wrong.under(f"identities.{identity}"):
            if forgotten.covers(identity=identity):
                raise FacemillError(
                    f"this identity was asked to be forgotten ({FORGOTTEN_FILE}): take it out of params.yaml, here and "
                    "in convert.becomes"
                )
        around = Surroundings(
            place=partial(place, root=root),
            seed=params.seed,
            max_file_bytes=params.collect.max_file_bytes,
            collected=tuple((collected or {}).get(identity, ())),
            tell=tell,
        )
        for n, reference in enumerate(person.references):
            with wrong.under(f"identities.{identity}.references.{n}"):
                planned = _reference_units(reference, identity, around)
                units += [replace(unit, rights=rights_text(None, person.rights)) for unit in planned]
        for n, source in enumerate(person.sources):
            with wrong.under(f"identities.{identity}.sources.{n}"):
                planned = source.plan(identity, "sample", around)
                units += [replace(unit, rights=rights_text(source.rights, person.rights)) for unit in planned]
    wrong.complain()
    return [unit for unit in _told_apart(units) if not forgotten.covers(addresses=[unit.key])]


def _reference_units(reference: str | ReferencePicture, identity: str, around: Surroundings) -> list[Unit]:
    if isinstance(reference, str):
        return reference_source(reference).plan(identity, "reference", around)
    units = reference_source(reference.path).plan(identity, "reference", around)
    if len(units) != 1 or not units[0].single:
        raise FacemillError(f"`face` names a face of one picture, and {reference.path} is more than one")
    return [replace(units[0], face=reference.stated)]


def _told_apart(units: Sequence[Unit]) -> list[Unit]:
    """The units with names that mean one file each: `p1/photos/a.jpg` where two sources have a `photos/a.jpg`."""
    files: dict[tuple[str, str], set[Path]] = {}
    for unit in units:
        if unit.path is not None:
            files.setdefault((unit.source, unit.key), set()).add(unit.path)
    return [
        replace(unit, key=_longer_name(unit.key, unit.path, others))
        if unit.path is not None and len(others := files[(unit.source, unit.key)]) > 1
        else unit
        for unit in units
    ]


def _longer_name(key: str, path: Path, others: Collection[Path]) -> str:
    """A name with as many of the folders above as tell a file from the others of that name."""
    known = PurePosixPath(key).parts
    for count in range(len(known) + 1, len(path.parts) + 1):
        if len({each.parts[-count:] for each in others}) == len(others):
            above = "/".join(path.parts[-count : len(path.parts) - len(known)]).strip("/")
            return valid_name(f"{above}/{key}")
    return valid_name(f"{path.as_posix()}/{key}")


@dataclass(frozen=True)
class PictureSettings:
    """What every shard of pictures needs to know."""

    max_pixels: int
    forgotten: Forgotten


@dataclass(frozen=True)
class Wanted:
    """A unit of the inventory: None where its file has gone since. `sha256` is the file's, where it has one."""

    entry: Mapping[str, Any]
    unit: Unit | None
    sha256: str | None
    key: str

    @property
    def is_single(self) -> bool:
        """Whether it is bound to give one row."""
        return self.unit is None or self.unit.single


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
    old = _old_network_rows(params, output, store, settings.forgotten, checks)
    wanted = _wanted(params, root, inventory, old.urls, settings.forgotten)
    kinds = network_kinds()
    local = {each.key: each for each in wanted if each.entry["source"] not in kinds}
    network = [each for each in wanted if each.entry["source"] in kinds]
    found: dict[str, int] = {}
    if ask_network:
        known = _due(old, network, checks, params.collect.recheck_days)
        fetched = _ask_network(store, network, known, settings, pool, params.collect.hosts_at_once)
        found = fetched.kept
        checks.note(fetched.said, fetched.withdrawn)
    checks.save(root, {unit for units in old.urls.values() for unit in units} | found.keys())
    carried = [
        unit for units in old.urls.values() for unit in units if unit not in found and unit not in checks.withdrawn
    ]
    _keep_carried(store, output, carried)

    alone = [each.key for each in local.values() if each.unit is not None and not each.unit.single]
    sizes = old.sizes | found | {key: _file_size(each) for key, each in local.items()}
    planned = spread([*local, *found, *carried], present, params.collect.rows_per_shard, alone, sizes)
    plan = [
        Part(part.name, tuple(WorkItem(key, local.get(key), sizes.get(key, 0)) for key in part.units))
        for part in planned
    ]
    made = make_parts(
        store, plan, collect_shard, _lost_row, pool,
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
        return [_lost_row(wanted, Reason.UNREADABLE, "it was there when the inventory looked, and has gone since")]
    if not unit.single and _has_changed(unit.path, wanted.sha256):
        return [_lost_row(wanted, Reason.CHANGED, "")]
    stated: RawRow = {"stated_face": unit.face or None, "unit": wanted.key}
    rows: list[RawRow] = [{**_row(item, settings), **stated} for item in fetch(unit)]
    # A picture that is just its file has the file's hash, so that nothing need be read twice.
    if unit.single and rows[0].get("sample_id") != wanted.sha256 and _has_changed(unit.path, wanted.sha256):
        return [_lost_row(wanted, Reason.CHANGED, "")]
    if unit.single and _is_forgotten(rows[0], settings.forgotten):
        return [_forgotten_row(wanted)]
    return [row for row in rows if not _is_forgotten(row, settings.forgotten)]


def _is_forgotten(row: RawRow, forgotten: Forgotten) -> bool:
    return forgotten.covers(
        identity=row.get("identity"),
        sample_id=row.get("sample_id"),
        addresses=[row.get("url"), row.get("page")],
        author=row.get("author"),
    )


def _has_changed(path: Path | None, sha256: str | None) -> bool:
    try:
        return path is not None and sha256 is not None and file_sha256(path) != sha256
    except OSError:
        return False  # whoever reads it says so


@dataclass(frozen=True)
class Addresses:
    """Units of some hosts, which a worker fetches and keeps in a store: `at_once` hosts at a time, the units of each
    one after another."""

    store: Store
    hosts: tuple[tuple[Unit, ...], ...]
    settings: PictureSettings
    at_once: int

    @property
    def units(self) -> list[Unit]:
        return [unit for units in self.hosts for unit in units]


def find_addresses(search: Wanted) -> list[Unit] | str:
    """What a search has found, or in words why it has not."""
    if search.unit is None:
        return "it was there when the inventory looked, and has gone since"
    if _has_changed(search.unit.path, search.sha256):
        return Reason.CHANGED.sentence
    try:
        return find(search.unit)
    except FacemillError as problem:
        return str(problem)


@dataclass
class Fetched:
    """What addresses gave.

    Attributes:
        kept: keys of rows that are among the results now, each with the bytes of its picture.
        said: keys of pictures that were there, each with what its host said of it (`Item.said`).
        withdrawn: keys of pictures that were known and are no longer what their address gives.
    """

    kept: dict[str, int] = field(default_factory=dict)
    said: dict[str, Mapping[str, str]] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)

    def add(self, other: Fetched) -> None:
        self.kept |= other.kept
        self.said |= other.said
        self.withdrawn |= other.withdrawn


def fetch_addresses(addresses: Addresses) -> Fetched:
    """Fetches pictures and keeps their rows among the results, some at a time."""
    fetched = Fetched()
    with closing(interleaved(_items_of, addresses.hosts, addresses.at_once)) as items:
        # Decoded one at a time: that costs memory and processor, where fetching costs patience.
        rows = (row for unit, item in items if (row := _new_row(unit, item, addresses.settings, fetched)))
        for together in batched_by_weight(rows, KEPT_TOGETHER, _weight, SHARD_BYTES):
            fetched.kept |= _keep(addresses.store, together)
    return fetched


def _items_of(units: Sequence[Unit]) -> Iterator[tuple[Unit, Item]]:
    for unit in units:
        for item in fetch(unit):
            yield unit, item


def _new_row(unit: Unit, item: Item, settings: PictureSettings, fetched: Fetched) -> RawRow | None:
    """The row to be kept; None for a picture to be forgotten, and where what is known of the address stays as it is."""
    if item.unchanged:
        fetched.said |= dict.fromkeys(unit.known, item.said)
        return None
    row = _row(item, settings)
    key = _network_key(row)
    is_there, is_forgotten = row["status"] == State.OK, _is_forgotten(row, settings.forgotten)
    if unit.known and not (is_there or is_forgotten or item.gone or item.error == Reason.OPTED_OUT):
        return None  # a host that fails, or sends something that is no picture, has withdrawn nothing
    fetched.withdrawn.update(known for known in unit.known if known != key or is_forgotten)
    if is_there and not is_forgotten:
        fetched.said[key] = item.said
    return None if is_forgotten or key in unit.known else row


def _ask_network(
    store: Store, searches: Sequence[Wanted], known: Sequence[Unit], settings: PictureSettings, pool: Pool, at_once: int
) -> Fetched:
    """What the network has today: what searches find, and the addresses that are to be asked again.

    A search that fails is a row, and so is each address that kills its worker; all others go on.
    """
    fetched = Fetched()
    by_host: dict[str, dict[tuple[str, str, str, str], Unit]] = {}
    for unit in known:
        by_host.setdefault(unit.host, {})[(unit.identity, unit.role, unit.source, unit.key)] = unit
    for index, found in run_all(pool, find_addresses, searches):
        if isinstance(found, list):
            for unit in found:
                if settings.forgotten.covers(addresses=[unit.key]):
                    continue
                by_host.setdefault(unit.host, {})[(unit.identity, unit.role, unit.source, unit.key)] = unit
        else:
            reason, detail = (found.reason, found.detail) if isinstance(found, Lost) else (Reason.SEARCH_FAILED, found)
            say(f"collect: {detail or reason.sentence}")
            fetched.kept |= _keep(store, [_lost_row(searches[index], reason, detail)])
    hosts = sorted((tuple(units.values()) for units in by_host.values()), key=len, reverse=True)
    count = _jobs_for(len(hosts), at_once, pool.workers)
    jobs = [Addresses(store, tuple(hosts[number::count]), settings, at_once) for number in range(count)]
    for index, result in run_all(pool, fetch_addresses, jobs, _one_by_one):
        for number, part in enumerate(result.results if isinstance(result, Cut) else [result]):
            if not isinstance(part, Lost):
                fetched.add(part)
            elif not (unit := jobs[index].units[number]).known:
                problem = InputError(part.reason, part.detail)
                fetched.kept |= _keep(store, [_row(unit.failed(problem), settings)])
    return fetched


def _due(old: Old, searches: Sequence[Wanted], checks: Checks, days: float | None) -> list[Unit]:
    """The known addresses that are to be asked again, each as the first source of its kind says how it is fetched."""
    sources: dict[tuple[str, str], Unit] = {}
    for search in searches:
        if search.unit is not None:
            sources.setdefault((search.unit.identity, search.unit.source), search.unit)
    by_address: dict[tuple[str, str, str, str], list[RawRow]] = {}
    for row in old.rows.values():
        by_address.setdefault((row["identity"], row["role"], row["source"], row["url"]), []).append(row)
    due = []
    for (identity, _, kind, url), rows in by_address.items():
        source, known = sources.get((identity, kind)), tuple(row["unit"] for row in rows)
        # Two pictures of one address are left where a run was killed: only the picture itself tells which one it is.
        if source is None or not (len(known) > 1 or checks.is_due(known[0], days)):
            continue
        stated = {name: rows[0][name] for name in ("page", "licence", "author")}
        said = checks.said(known[0]) if len(known) == 1 else {}
        due.append(replace(again(source, url, stated), said=said, known=known))
    return due


def _weight(row: RawRow) -> int:
    return len(row["image"]["bytes"]) if row.get("image") else 0


def _jobs_for(hosts: int, at_once: int, workers: int) -> int:
    """How many pieces of work: each worker has one, and none has so many hosts that its death would cost much."""
    return max(min(hosts, workers), -(-hosts // (HOSTS_OF_A_JOB * at_once)))


def _one_by_one(job: Addresses) -> tuple[Callable[[Addresses], Fetched], list[Addresses]]:
    return fetch_addresses, [replace(job, hosts=((unit,),)) for unit in job.units]


def _keep(store: Store, rows: Sequence[RawRow]) -> dict[str, int]:
    """Keeps rows of the network among the results; their keys, each once, with the bytes of its picture."""
    keyed: dict[str, RawRow] = {}
    for row in rows:
        unit = _network_key(row)
        keyed.setdefault(unit, {**row, "unit": unit})
    if keyed:
        put_items(store, [(unit, [row]) for unit, row in keyed.items()])
    return {unit: _weight(row) for unit, row in keyed.items()}


def _network_key(row: RawRow) -> str:
    return content_key(row["identity"], row["role"], row["source"], row["url"], row.get("sample_id"))


@dataclass
class Old:
    """What earlier runs fetched well.

    Attributes:
        urls: unit → address, for each identity that still has a network source.
        sizes: about how many bytes each of these units has.
        rows: what its row says of each of them, without the picture.
    """

    urls: dict[str, dict[str, str]]
    sizes: dict[str, int] = field(default_factory=dict)
    rows: dict[str, RawRow] = field(default_factory=dict)


def _old_network_rows(params: Params, output: Path, store: Store, forgotten: Forgotten, checks: Checks) -> Old:
    """What earlier runs fetched well and is neither withdrawn nor to be forgotten, for each identity that still has a
    network source.

    Also what a run has fetched that was killed before it could publish, and what lay in a table that a kill has taken.
    """
    asked = {
        name for name, person in params.identities.items() if any(source.asks_network for source in person.sources)
    }
    old = Old({name: {} for name in sorted(asked)})
    kinds = network_kinds()
    if not asked:
        return old
    columns = ["identity", "role", "source", "url", "page", "licence", "author", "sample_id", "status", "unit"]
    for path in [*(tables.checked_parts(output, RAW) if output.is_dir() else ()), *intact_results(store)]:
        rows = _readable_rows(path, columns)
        for row in rows:
            well = row["identity"] in old.urls and row["source"] in kinds and row["status"] == State.OK
            if well and row["unit"] not in checks.withdrawn and not _is_forgotten(row, forgotten):
                old.urls[row["identity"]][row["unit"]] = row["url"]
                old.rows[row["unit"]] = row
                old.sizes[row["unit"]] = path.stat().st_size // len(rows)
    return old


def _readable_rows(path: Path, columns: Sequence[str] | None = None) -> list[RawRow]:
    """The rows of a result; none of one that another version of facemill wrote."""
    try:
        return tables.part_rows(path, RAW, columns)
    except FacemillError:
        return []


def _keep_carried(store: Store, output: Path, units: Sequence[str]) -> None:
    """Puts rows that only the present table or results of other code hold among the results, for parts to be made."""
    lost = {unit for unit, place in zip(units, known_items(store).places(units), strict=True) if place is None}
    if not lost:
        return
    published = tables.checked_parts(output, RAW) if output.is_dir() else []
    for path in [*published, *intact_results(store)]:
        own = [row["unit"] for row in _readable_rows(path, ["unit"])]
        if lost.isdisjoint(own):
            continue
        rows = {row["unit"]: row for row in _readable_rows(path) if row["unit"] in lost}
        put_items(store, [(unit, [row]) for unit, row in rows.items()])
        lost -= rows.keys()


def _row(item: Item, settings: PictureSettings) -> RawRow:
    """An item as a row: three ways out, and no fourth."""
    row: RawRow = {
        "identity": item.identity,
        "role": item.role,
        "source": item.source,
        "url": item.url,
        "page": item.page,
        "pts": item.pts,
        "shot": item.shot,
        "licence": item.licence,
        "author": item.author,
        "rights": item.rights,
    }
    if item.data is None:
        return {**row, **_problem(item.error or Reason.PROCESSING_ERROR, item.detail)}
    row["sample_id"] = sha256_hex(item.data)
    try:
        height, width = decode(item.data, max_pixels=settings.max_pixels).shape[:2]
    except InputError as problem:
        return {**row, **_problem(problem.reason, problem.detail)}
    image: EncodedPicture = {"bytes": item.data, "path": f"{row['sample_id'][:16]}.{sniff(item.data)}"}
    read: RawRow = {"width": width, "height": height, "image": image, "status": State.OK}
    return {**row, **read}


def _problem(reason: Reason, detail: str) -> StateColumns:
    return {"status": reason.state, "error": reason, "detail": detail}


def _lost_row(wanted: Wanted, reason: Reason, detail: str) -> RawRow:
    entry = wanted.entry
    where: RawRow = {
        "identity": entry["identity"],
        "role": entry["role"],
        "source": entry["source"],
        "url": entry["name"],
        "unit": wanted.key,
    }
    return {**where, **_problem(reason, detail)}


def _forgotten_row(wanted: Wanted) -> RawRow:
    """The row of a picture that is not kept: nothing that tells which it was."""
    where: RawRow = {**_lost_row(wanted, Reason.FORGOTTEN, ""), "url": ""}
    return where


def _rows_in(plan: Sequence[Part], output: Path) -> int:
    """Rows that the units are bound to give; where only fetching could tell, as of videos, those that are there."""
    single = {item.key for part in plan for item in part.items if item.value is not None and item.value.is_single}
    units: list[str] = tables.read_table(output, RAW, ["unit"])["unit"].to_pylist()
    return len(single) + sum(unit not in single for unit in units)
