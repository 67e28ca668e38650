"""Which of many names were there before, by a hash of each: sixteen bytes where a set of texts takes a hundred."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


class Names:
    """128-bit hashes of names, in the order in which they come.

    BLAKE2b: as good as no two names have the same, not even where somebody looks for such, so that no name is needed to
    tell which are.
    """

    def __init__(self) -> None:
        self._hashes = bytearray()

    def add(self, *name: str) -> None:
        """Takes a name in, of one text or several."""
        self._hashes += hashlib.blake2b(ascii(name).encode("ascii"), digest_size=16).digest()

    def first_of_each(self) -> npt.NDArray[np.int64]:
        """The places, rising, of the names that are not the same as an earlier one."""
        halves = np.frombuffer(self._hashes or b"", np.uint64).reshape(-1, 2).T
        order = np.lexsort(halves)  # stable: of the same ones the first stands first
        is_first = np.zeros(len(order), np.bool_)
        is_first[:1] = True
        for half in halves:
            ordered = half[order]
            is_first[1:] |= ordered[1:] != ordered[:-1]
        return np.sort(order[is_first])
