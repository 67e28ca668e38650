"""Addresses that a list or a search has found: each is a unit, and each becomes a row.

An `AddressSource`, whose `find` gives `address_unit`s or `ListedUnits`, has `fetch_address` for its `fetch`. What is to
be a row without being asked for, such as a broken line, a picture under an unwanted licence or the end of a search that
broke off, is a `told_unit`.
"""

from __future__ import annotations

import copy
import json
import os
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, overload
from urllib.parse import urlsplit

from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.repeats import Names
from facemill.sources import Item, Source, Unit, UnitList
from facemill.sources._download import Downloader, GoneError, Policy

_ROWS_OF_A_BLOCK = 64
_KEPT = ("max_file_bytes", "allow_private_addresses", "contact")


@dataclass(frozen=True, kw_only=True)
class AddressSource(Source):
    """A source that finds addresses in the network, of which each is a unit."""

    asks_network: ClassVar[bool] = True

    @staticmethod
    def again(unit: Unit, url: str, stated: Mapping[str, str]) -> Unit:
        """The same unit that finding the address gives."""
        return address_unit(unit, url, **stated)


def address_unit(search: Unit, url: str, *, page: str = "", licence: str = "", author: str = "") -> Unit:
    """The unit of one address.

    Args:
        search: the unit of the list or the search, whose options say how it is fetched.
        url: the address of the picture.
        page: the page that shows it, empty where it is not known; the others likewise.
    """
    options = {name: search.options[name] for name in _KEPT if name in search.options}
    stated = {"page": page, "licence": licence, "author": author}
    return replace(search, key=url, single=True, path=None, host=host_of(url), options={**options, "stated": stated})


def told_unit(search: Unit, key: str, reason: Reason, detail: str, **stated: str) -> Unit:
    """The unit of a row that says why there is no picture; nothing is asked for it. `stated` as in `address_unit`."""
    options = {"problem": [str(reason), detail], "stated": stated}
    return replace(search, key=key, single=True, path=None, host=host_of(key), options=options)


class ListedUnits(UnitList):
    """The units of a long list, each put together when it is asked for: what is held is the list, compressed.

    `add` and `tell` take what `address_unit` and `told_unit` take.
    """

    def __init__(self, search: Unit) -> None:
        self._search = replace(search, options={name: search.options[name] for name in _KEPT if name in search.options})
        self._clear()

    def _clear(self) -> None:
        self._blocks, self._last = list[bytes](), list[list[str]]()
        self._opened = (-1, list[list[str]]())

    def add(self, url: str, *, page: str = "", licence: str = "", author: str = "") -> None:
        self._append([url, page, licence, author])

    def tell(self, key: str, reason: Reason, detail: str) -> None:
        self._append([key, reason.value, detail])

    def without_repeats(self) -> ListedUnits:
        """Of units with the same key the first one each."""
        keys = Names()
        for row in range(len(self)):
            keys.add(self._row(row)[0])
        kept = keys.first_of_each()
        return self if len(kept) == len(self) else self._taken(kept.tolist())

    def deal(self, hands: Sequence[Sequence[int]]) -> list[ListedUnits]:
        found = [self._taken(()) for _ in hands]
        for row, hand in sorted((row, hand) for hand, rows in enumerate(hands) for row in rows):
            found[hand]._append(self._row(row))
        return found

    def _taken(self, rows: Iterable[int]) -> ListedUnits:
        found = copy.copy(self)
        found._clear()
        for row in rows:
            found._append(self._row(row))
        return found

    def __len__(self) -> int:
        return len(self._blocks) * _ROWS_OF_A_BLOCK + len(self._last)

    @overload
    def __getitem__(self, row: int) -> Unit: ...
    @overload
    def __getitem__(self, row: slice) -> ListedUnits: ...
    def __getitem__(self, row: int | slice) -> Unit | ListedUnits:
        if isinstance(row, slice):
            return self._taken(range(len(self))[row])
        key, *stated = self._row(range(len(self))[row])
        if len(stated) == 2:
            return told_unit(self._search, key, Reason(stated[0]), stated[1])
        return address_unit(self._search, key, page=stated[0], licence=stated[1], author=stated[2])

    def _append(self, row: list[str]) -> None:
        self._last.append(row)
        if len(self._last) == _ROWS_OF_A_BLOCK:
            self._blocks.append(zlib.compress(json.dumps(self._last).encode("ascii")))
            self._last = []

    def _row(self, row: int) -> list[str]:
        number, at = divmod(row, _ROWS_OF_A_BLOCK)
        if number == len(self._blocks):
            return self._last[at]
        if self._opened[0] != number:
            self._opened = number, json.loads(zlib.decompress(self._blocks[number]))
        return self._opened[1][at]


def is_address(unit: Unit) -> bool:
    """Whether a unit is one of those that a search has found, and not the search."""
    return "stated" in unit.options


def fetch_address(unit: Unit) -> Iterator[Item]:
    """The picture of an address, or the reason why there is none."""
    options = unit.options
    stated = options["stated"]
    try:
        if "problem" in options:
            reason, detail = options["problem"]
            raise InputError(Reason(reason), detail)
        downloader = shared_downloader(policy_of(unit))
        found = downloader.fetch(unit.key, unit.said)
        yield unit.item(data=found.data, said=found.said, unchanged=found.data is None, **stated)
    except InputError as problem:
        yield unit.failed(problem, gone=isinstance(problem, GoneError), **stated)


def policy_of(unit: Unit) -> Policy:
    """How far downloads of a unit may go, as its source's parameters say it."""
    return Policy(
        max_bytes=unit.options["max_file_bytes"],
        allow_private_addresses=unit.options["allow_private_addresses"],
        contact=unit.options.get("contact", ""),
    )


def shared_downloader(policy: Policy) -> Downloader:
    """This thread's downloader: what it knows of sites, and when it asked them last, holds from picture to picture."""
    wanted = (policy, os.environ.get("SSL_CERT_FILE"))
    if getattr(_OF_THREAD, "made_for", None) != wanted:
        _OF_THREAD.downloader, _OF_THREAD.made_for = Downloader(policy), wanted
    found: Downloader = _OF_THREAD.downloader
    return found


def host_of(url: str) -> str:
    """The host of an address, to put together what one host is asked for; empty where there is none to be seen."""
    try:
        return urlsplit(url).hostname or ""  # 20 times as fast as httpx, and lists are long
    except ValueError:
        return ""


_OF_THREAD = threading.local()
