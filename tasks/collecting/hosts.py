"""What each host is asked for, one after another: numbers, and no unit for each address."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import groupby

import numpy as np
import numpy.typing as npt

from facemill.repeats import first_of_each
from facemill.sources import Unit, UnitList

Host = tuple[Sequence[Unit], ...]
"""The units of one host, in pieces."""


class UnitsByHost:
    """Units by the host that is asked for them; of those with the same name the first one each.

    Of a unit some twenty bytes are held, beside whatever holds the units. All are added before any is taken.
    """

    def __init__(self) -> None:
        self._lists: list[Sequence[Unit]] = []
        self._hosts: dict[str, int] = {}
        self._list_of, self._row_of, self._host_of, self._hashes = array("I"), array("I"), array("I"), array("q")

    def add(self, units: Sequence[Unit], wanted: Callable[[Unit], bool] = lambda unit: True) -> None:
        """Takes units in; the sequence is held as it is."""
        for row, unit in enumerate(units):
            if wanted(unit):
                self._list_of.append(len(self._lists))
                self._row_of.append(row)
                self._host_of.append(self._hosts.setdefault(unit.host, len(self._hosts)))
                self._hashes.append(hash(_name(unit)))
        self._lists.append(units)

    def __len__(self) -> int:
        """How many hosts there are."""
        return len(self._hosts)

    def share(self, number: int, of: int) -> Iterator[Host]:
        """The hosts of one of some shares, of which each has about as many units as the others."""
        order, starts = self._by_size
        for host in range(number, len(starts) - 1, of):
            places = order[starts[host] : starts[host + 1]].tolist()
            yield tuple(
                self._taken(self._lists[at], [self._row_of[place] for place in run])
                for at, run in groupby(places, self._list_of.__getitem__)
            )

    @cached_property
    def _by_size(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(N,) the units of the host with the most first, and (H + 1,) where those of each begin, and the end."""
        units = first_of_each(self._hashes, lambda one, other: _name(self._unit(one)) == _name(self._unit(other)))
        self._hashes = array("q")
        hosts = np.frombuffer(self._host_of, np.uint32)[units] if len(units) else np.zeros(0, np.uint32)
        counts = np.bincount(hosts, minlength=len(self._hosts))
        largest = np.argsort(-counts, kind="stable")
        rank = np.empty(len(largest), np.uint32)
        rank[largest] = np.arange(len(largest))
        return units[np.argsort(rank[hosts], kind="stable")], np.append(0, np.cumsum(counts[largest]))

    def _unit(self, place: int) -> Unit:
        return self._lists[self._list_of[place]][self._row_of[place]]

    @staticmethod
    def _taken(units: Sequence[Unit], rows: Sequence[int]) -> Sequence[Unit]:
        return units.take(rows) if isinstance(units, UnitList) else tuple(units[row] for row in rows)


def _name(unit: Unit) -> tuple[str, str, str, str]:
    return unit.identity, unit.role, unit.source, unit.key
