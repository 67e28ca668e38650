"""Pictures of the network: what earlier runs have, which addresses are asked again, and what is new.

What was fetched lies among the results of stage `collect` at once, so that a kill loses nothing that the network gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import overload

from facemill import tables
from facemill.batches import batched_by_weight, interleaved
from facemill.errors import FacemillError, InputError
from facemill.reasons import Reason, State
from facemill.schema import RAW, RawRow
from facemill.sources import Item, Unit, again, fetch, find, network_kinds
from tasks.collecting.hosts import Host, UnitsByHost
from tasks.collecting.rows import PictureSettings, Wanted, has_changed, is_forgotten, lost_row, picture_row
from tasks.params import Params
from tasks.work.checks import Checks
from tasks.work.cluster import Pool, run_all
from tasks.work.failures import Cut, Lost
from tasks.work.forgotten import Forgotten
from tasks.work.results import (
    SHARD_BYTES,
    Store,
    content_key,
    intact_results,
    known_items,
    put_items,
)
from tasks.work.terminal import say

KEPT_TOGETHER = 16
"""So many pictures are kept at a time: a kill costs at most these."""
HOSTS_OF_A_JOB = 4
"""For each of those that a worker asks at once: one that is slow holds one of them up, and the others go on."""


@dataclass(frozen=True)
class Addresses:
    """Units of some hosts, which a worker fetches and keeps in a store: `at_once` hosts at a time, the units of each
    one after another."""

    store: Store
    hosts: tuple[Host, ...]
    settings: PictureSettings
    at_once: int

    @property
    def units(self) -> list[Unit]:
        return [unit for host in self.hosts for units in host for unit in units]


class Jobs(Sequence[Addresses]):
    """The addresses in pieces of work, each put together when it is asked for."""

    def __init__(self, store: Store, units: UnitsByHost, settings: PictureSettings, at_once: int, workers: int) -> None:
        self._store, self._units, self._settings, self._at_once = store, units, settings, at_once
        # each worker has one, and none has so many hosts that its death would cost much
        self._count = max(min(len(units), workers), -(-len(units) // (HOSTS_OF_A_JOB * at_once)))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> Addresses: ...
    @overload
    def __getitem__(self, number: slice) -> list[Addresses]: ...
    def __getitem__(self, number: int | slice) -> Addresses | list[Addresses]:
        if isinstance(number, slice):
            return [self[each] for each in range(self._count)[number]]
        hosts = self._units.share(range(self._count)[number], self._count)
        return Addresses(self._store, hosts, self._settings, self._at_once)


def find_addresses(search: Wanted) -> Sequence[Unit] | str:
    """What a search has found, or in words why it has not."""
    if search.unit is None:
        return "it was there when the inventory looked, and has gone since"
    if has_changed(search.unit.path, search.sha256):
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


def _items_of(host: Host) -> Iterator[tuple[Unit, Item]]:
    for unit in chain.from_iterable(host):
        for item in fetch(unit):
            yield unit, item


def _new_row(unit: Unit, item: Item, settings: PictureSettings, fetched: Fetched) -> RawRow | None:
    """The row to be kept; None for a picture to be forgotten, and where what is known of the address stays as it is."""
    if item.unchanged:
        fetched.said |= dict.fromkeys(unit.known, item.said)
        return None
    row = picture_row(item, settings)
    key = _network_key(row)
    is_there, is_unwanted = row["status"] == State.OK, is_forgotten(row, settings.forgotten)
    if unit.known and not (is_there or is_unwanted or item.gone or item.error == Reason.OPTED_OUT):
        return None  # a host that fails, or sends something that is no picture, has withdrawn nothing
    fetched.withdrawn.update(known for known in unit.known if known != key or is_unwanted)
    if is_there and not is_unwanted:
        fetched.said[key] = item.said
    return None if is_unwanted or key in unit.known else row


def fetch_from_network(
    store: Store, searches: Sequence[Wanted], known: Sequence[Unit], settings: PictureSettings, pool: Pool, at_once: int
) -> Fetched:
    """What the network has today: what searches find, and the addresses that are to be asked again.

    A search that fails is a row, and so is each address that kills its worker; all others go on. Whichever search ends
    first, what several have found is the first one's.
    """
    fetched, by_host = Fetched(), UnitsByHost()
    found: dict[int, Sequence[Unit]] = {}
    for index, result in run_all(pool, find_addresses, searches):
        if isinstance(result, str | Lost):
            reason, detail = (
                (result.reason, result.detail) if isinstance(result, Lost) else (Reason.SEARCH_FAILED, result)
            )
            say(f"collect: {detail or reason.sentence}")
            fetched.kept |= _keep(store, [lost_row(searches[index], reason, detail)])
        else:
            found[index] = result
    by_host.add(known)
    for index in sorted(found):  # of an address that several have found, the first one's page, licence and author count
        by_host.add(found[index], lambda unit: not settings.forgotten.covers(addresses=[unit.key]))
    jobs = Jobs(store, by_host, settings, at_once, pool.workers)
    for index, result in run_all(pool, fetch_addresses, jobs, _one_by_one):
        for number, part in enumerate(result.results if isinstance(result, Cut) else [result]):
            if not isinstance(part, Lost):
                fetched.add(part)
            elif not (unit := jobs[index].units[number]).known:
                problem = InputError(part.reason, part.detail)
                fetched.kept |= _keep(store, [picture_row(unit.failed(problem), settings)])
    return fetched


def due_again(old: KnownPictures, searches: Sequence[Wanted], checks: Checks, days: float | None) -> list[Unit]:
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


def _one_by_one(job: Addresses) -> tuple[Callable[[Addresses], Fetched], list[Addresses]]:
    return fetch_addresses, [replace(job, hosts=(((unit,),),)) for unit in job.units]


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
class KnownPictures:
    """What earlier runs fetched well.

    Attributes:
        urls: unit → address, for each identity that still has a network source.
        sizes: about how many bytes each of these units has.
        rows: what its row says of each of them, without the picture.
    """

    urls: dict[str, dict[str, str]]
    sizes: dict[str, int] = field(default_factory=dict)
    rows: dict[str, RawRow] = field(default_factory=dict)


def known_pictures(params: Params, output: Path, store: Store, forgotten: Forgotten, checks: Checks) -> KnownPictures:
    """What earlier runs fetched well and is neither withdrawn nor to be forgotten, for each identity that still has a
    network source.

    Also what a run has fetched that was killed before it could publish, and what lay in a table that a kill has taken.
    """
    asked = {
        name for name, person in params.identities.items() if any(source.asks_network for source in person.sources)
    }
    old = KnownPictures({name: {} for name in sorted(asked)})
    kinds = network_kinds()
    if not asked:
        return old
    columns = ["identity", "role", "source", "url", "page", "licence", "author", "sample_id", "status", "unit"]
    for path in [*(tables.checked_parts(output, RAW) if output.is_dir() else ()), *intact_results(store)]:
        rows = _readable_rows(path, columns)
        for row in rows:
            well = row["identity"] in old.urls and row["source"] in kinds and row["status"] == State.OK
            if well and row["unit"] not in checks.withdrawn and not is_forgotten(row, forgotten):
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


def keep_carried(store: Store, output: Path, units: Sequence[str]) -> None:
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
