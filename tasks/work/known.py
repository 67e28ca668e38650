"""Where the rows of every known item lie: an index that takes some thirty bytes an item, for tables of millions.

A dict of keys to places would take ten times as much, and more than all else that a stage holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_MERGED_AT = 2**16
"""So many items that came last wait in a dict before they are put among the others."""

_FOUND = np.dtype([("low", "u8"), ("result", "i4"), ("start", "i4"), ("rows", "i4"), ("failed", "?")])
"""An item without the first half of its digest: the second half, the number of its result, its place there."""

_Digest = tuple[int, int]
"""128 bits of the hash of a key, in two halves."""


class Place(NamedTuple):
    """Where an item's rows lie: in which result, from which row, how many; whether one of them has failed."""

    result: str
    start: int
    rows: int
    failed: bool


class Known:
    """The items that results hold. Of an item that several hold, one that went well is preferred to one that failed,
    else the one that was told of first.
    """

    def __init__(self) -> None:
        self._results: list[str] = []
        self._numbers: dict[str, int] = {}
        # By the first half of the digest, which is a column of its own: numpy searches no column of records.
        self._high: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._found: npt.NDArray[np.void] = np.zeros(0, _FOUND)
        self._recent: dict[_Digest, tuple[int, int, int, bool]] = {}

    def add(self, result: str, items: Iterable[tuple[str, int, bool]]) -> None:
        """Takes note of a result: the key of each of its items, how many rows it has, and whether one has failed.

        A result that was told of before has been written anew; whatever was known to lie in it lies there now as said.
        """
        number = self._numbers.setdefault(result, len(self._results))
        if number == len(self._results):
            self._results.append(result)
        start = 0
        for key, rows, failed in items:
            digest = _digest(key)
            at = None if digest in self._recent else self._search(digest)
            old = self._recent.get(digest) if at is None else self._found[at].item()[1:]
            if old is None or old[0] == number or (old[3] and not failed):
                if at is None:
                    self._recent[digest] = (number, start, rows, failed)
                else:
                    self._found[at] = (digest[1], number, start, rows, failed)
            start += rows
        if len(self._recent) >= _MERGED_AT:
            self._merge()

    def places(self, keys: Sequence[str]) -> list[Place | None]:
        """Where the rows of each item lie, None for one that no result holds."""
        return [self._place(_digest(key)) for key in keys]

    def _place(self, digest: _Digest) -> Place | None:
        found = self._recent.get(digest)
        if found is None:
            at = self._search(digest)
            if at is None:
                return None
            found = self._found[at].item()[1:]
        result, start, rows, failed = found
        return Place(self._results[result], start, rows, failed)

    def _search(self, digest: _Digest) -> int | None:
        """Where an item is among the sorted ones."""
        high, low = digest
        at = int(self._high.searchsorted(np.uint64(high)))
        while at < len(self._high) and self._high[at] == high:  # one, but for the rarest of chances
            if self._found[at]["low"] == low:
                return at
            at += 1
        return None

    def _merge(self) -> None:
        """Puts the recent ones among the others; none of them is there already."""
        fresh = sorted(self._recent)
        high = np.array([digest[0] for digest in fresh], np.uint64)
        found = np.array([(digest[1], *self._recent[digest]) for digest in fresh], _FOUND)
        places = self._high.searchsorted(high)
        self._found = np.insert(self._found, places, found)
        self._high = np.insert(self._high, places, high)
        self._recent.clear()


def _digest(key: str) -> _Digest:
    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest())
    return number >> 64, number & (2**64 - 1)
