"""Which of many things were there before, by a hash for each: eight bytes where a set of texts takes a hundred."""

from __future__ import annotations

from array import array
from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def first_of_each(hashes: array[int], are_same: Callable[[int, int], bool]) -> npt.NDArray[np.int64]:
    """The rows that are not the same as an earlier one, rising.

    Args:
        hashes: of each row 64 bits, an array of type "q"; equal for what is the same.
        are_same: whether two rows are; asked only where their hashes are equal.
    """
    found = np.frombuffer(hashes, np.int64) if hashes else np.zeros(0, np.int64)
    order = np.argsort(found, kind="stable")
    found = found[order]
    repeats = np.flatnonzero(found[1:] == found[:-1]) + 1
    kept = np.ones(len(order), np.bool_)
    for at in repeats.tolist():
        first = int(np.searchsorted(found, found[at]))
        kept[at] = not any(are_same(int(order[row]), int(order[at])) for row in range(first, at) if kept[row])
    return np.sort(order[kept])
