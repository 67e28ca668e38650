"""What each host is asked for, one after another: numbers, and no unit for each address."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import groupby

import numpy as np
import numpy.typing as npt

from facemill.repeats import Names
from facemill.sources import Unit, UnitList

Host = tuple[Sequence[Unit], ...]
"""The units of one host, in pieces."""


class UnitsByHost:
    """Units by the host that is asked for them; of those with the same name the first one each.

    Of a unit some thirty bytes are held, beside whatever holds the units. All are added before any is taken.
    """

    def __init__(self) -> None:
        self._lists: list[Sequence[Unit]] = []
        self._hosts: dict[str, int] = {}
        self._list_of, self._row_of, self._host_of, self._names = array("I"), array("I"), array("I"), Names()

    def add(self, units: Sequence[Unit], wanted: Callable[[Unit], bool] = lambda unit: True) -> None:
        """Takes units in; the sequence is held as it is."""
        for row, unit in enumerate(units):
            if wanted(unit):
                self._list_of.append(len(self._lists))
                self._row_of.append(row)
                self._host_of.append(self._hosts.setdefault(unit.host, len(self._hosts)))
                self._names.add(unit.identity, unit.role, unit.source, unit.key)
        self._lists.append(units)

    def __len__(self) -> int:
        """How many hosts there are."""
        return len(self._hosts)

    def share(self, number: int, of: int) -> tuple[Host, ...]:
        """The hosts of one of some shares, which have as many units each as nearly as whole hosts allow."""
        order, starts = self._by_size
        hosts = range(number, len(starts) - 1, of)
        hands = dict[int, dict[int, list[int]]]()  # list -> host -> rows: each list is gone through once
        for host in hosts:
            places = order[starts[host] : starts[host + 1]].tolist()
            for at, run in groupby(places, self._list_of.__getitem__):
                hands.setdefault(at, {})[host] = [self._row_of[place] for place in run]
        pieces = {host: list[Sequence[Unit]]() for host in hosts}
        for at, rows in sorted(hands.items()):
            for host, piece in zip(rows, _dealt(self._lists[at], list(rows.values())), strict=True):
                pieces[host].append(piece)
        return tuple(map(tuple, pieces.values()))

    @cached_property
    def _by_size(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(N,) the units of the host with the most first, and (H + 1,) where those of each begin, and the end."""
        units = self._names.first_of_each()
        self._names = Names()
        hosts = np.frombuffer(self._host_of, np.uint32)[units] if len(units) else np.zeros(0, np.uint32)
        counts = np.bincount(hosts, minlength=len(self._hosts))
        largest = np.argsort(-counts, kind="stable")
        rank = np.empty(len(largest), np.uint32)
        rank[largest] = np.arange(len(largest))
        return units[np.argsort(rank[hosts], kind="stable")], np.append(0, np.cumsum(counts[largest]))


def _dealt(units: Sequence[Unit], hands: Sequence[Sequence[int]]) -> Sequence[Sequence[Unit]]:
    return units.deal(hands) if isinstance(units, UnitList) else [tuple(units[row] for row in rows) for rows in hands]
