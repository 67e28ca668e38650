"""All pairs of 64-bit hashes within a Hamming distance: exact, in memory that does not grow with the comparisons.

The bits are cut into bands. Two hashes that differ in few bits agree in whole bands, so all hashes are sorted by a key,
which is some of the bands, and those with equal keys are compared; then by the next key. Which keys reach every pair
follows from the pigeonhole principle: `distance` bits break at most as many bands, so of distance + 1 + G · (T - 1)
bands, dealt to G groups, one group keeps T whole ones, and all choices of T bands inside a group are enough. G = 1 is
Manku, Jain, Das Sarma 2007, "Detecting near-duplicates for web crawling", section 3; T = 1 is Norouzi, Punjani, Fleet
2012, "Fast search in Hamming space with multi-index hashing". For 8 of 64 bits among a million, G = 2 and T = 3 make 55
keys of 14.8 bits; one group would need 165 of 17.5 bits, and twice the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

BITS = 64
BLOCK_HASHES = 2**16
"""Hashes compared at once: with their differences, 1 MiB, they stay in the processor's cache."""
PIECE_PAIRS = 2**16
"""At about so many pairs a piece of the result is handed over."""

_KEY_S, _SORT_S, _COMPARE_S = 1e-3, 100e-9, 4e-9
"""What a key costs by itself and for each hash, and what a comparison costs, as measured; the last three times over,
since hashes of photos share bands that much more often than random ones."""
_MOST_KEYS = 2000

Bits = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Pairs = tuple[Rows, Rows, Bits]


def pairs_within(hashes: Hashes, distance: int) -> npt.NDArray[np.int64]:
    """All pairs of (N,) hashes that differ in at most `distance` bits -> (M, 3): i < j, and the distance; sorted.

    Equal hashes are searched for once, but each has its own pairs: 10,000 copies of one hash have 50 million.

    Raises:
        ValueError: a distance outside 0…63.
    """
    values, value, count = np.unique(np.asarray(hashes, np.uint64), return_inverse=True, return_counts=True)
    rows = np.argsort(value, kind="stable")  # those of one value stand together
    start = np.cumsum(count) - count
    copied = np.flatnonzero(count > 1)
    _, first, second = cross(start[copied], count[copied], start[copied], count[copied])
    once = first < second
    found = [np.column_stack([first[once], second[once], np.zeros(once.sum(), np.int64)])]
    for low, high, bits in near_pairs(values, distance):
        pair, first, second = cross(start[low], count[low], start[high], count[high])
        found.append(np.column_stack([first, second, bits[pair]]))
    pairs = np.concatenate(found)
    pairs[:, :2] = np.sort(rows[pairs[:, :2]], axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def near_pairs(hashes: Hashes, distance: int, labels: Rows | None = None) -> Iterator[Pairs]:
    """The pairs of different hashes that differ in at most `distance` bits, in pieces: rows, other rows, distances.

    Each pair comes once, in no particular order. Memory is that of a few columns of N, however many pairs there are.

    Args:
        hashes: (N,), no two equal.
        distance: 0…63 bits.
        labels: (N,) what is known to belong together. Pairs inside one label are left out; of the others one may come
            more than once then. The caller may join labels in place while pieces come, so that thousands of frames
            that all look alike give their first links and then nothing more.

    Raises:
        ValueError: a distance outside 0…63.
    """
    if not 0 <= distance < BITS:
        raise ValueError(f"distance must be 0…63 bits, got {distance}")
    if distance == 0 or len(hashes) < 2:
        return
    keys = _best_keys(len(hashes), distance)
    for group in range(len(keys.groups)):
        for chosen in combinations(range(len(keys.groups[group])), keys.take):
            bands = [keys.groups[group][band] for band in chosen]
            for low, high, bits in _pairs_of_key(hashes, bands, distance, labels):
                if labels is None:
                    once = keys.is_first(group, chosen, hashes[low] ^ hashes[high])
                    low, high, bits = low[once], high[once], bits[once]
                yield low, high, bits


def cross(left: Rows, left_count: Rows, right: Rows, right_count: Rows) -> tuple[Rows, Rows, Rows]:
    """Every member of one set with every member of another, for P pairs of sets at once.

    The sets of pair p are the numbers left[p] … left[p] + left_count[p] - 1 and right[p] …, likewise, all four (P,).
    Gives (M,) which pair it is, (M,) the member on the left, (M,) the member on the right.
    """
    size = left_count * right_count
    pair = np.repeat(np.arange(len(size)), size)
    at = np.arange(len(pair)) - (np.cumsum(size) - size)[pair]  # 0 … size - 1 inside each pair
    first, second = np.divmod(at, right_count[pair])
    return pair, left[pair] + first, right[pair] + second


@dataclass(frozen=True)
class Band:
    """Neighbouring bits of a hash: `width` of them, from bit `low` on, which counts from the lowest."""

    low: int
    width: int

    @property
    def mask(self) -> np.uint64:
        return np.uint64(((1 << self.width) - 1) << self.low)


@dataclass(frozen=True)
class _Keys:
    """All choices of `take` bands inside each group. No bands at all is one key, the same for all hashes."""

    groups: list[list[Band]]
    take: int

    def is_first(self, group: int, chosen: tuple[int, ...], differences: Hashes) -> npt.NDArray[np.bool_]:
        """(P,) which of the pairs that agree in a key agree in none of the keys before it; differences: their XOR."""
        first = np.ones(len(differences), np.bool_)
        for earlier in self.groups[:group]:
            whole = [(differences & band.mask) == 0 for band in earlier]
            first &= np.sum(whole, axis=0) < self.take
        for band in set(range(chosen[-1] if chosen else 0)).difference(chosen):
            first &= (differences & self.groups[group][band].mask) != 0
        return first


def _best_keys(count: int, distance: int) -> _Keys:
    """The cheapest keys: with few hashes few short ones, or one of no bits; with many more and longer ones."""
    index_bits = (count - 1).bit_length()
    best, cost = _Keys([[]], 0), count**2 / 2 * _COMPARE_S
    for groups in range(1, distance + 2):
        for take in range(1, BITS):
            bands = distance + 1 + groups * (take - 1)
            sizes = [len(part) for part in np.array_split(range(bands), groups)]
            number = sum(math.comb(size, take) for size in sizes)
            # key and row number share a word, so that one sort of plain numbers brings both
            if bands > BITS or number > _MOST_KEYS or take * -(-BITS // bands) + index_bits >= BITS:
                break
            compared = number * 2.0 ** (-take * BITS / bands) * count**2 / 2
            seconds = number * (_KEY_S + count * _SORT_S) + compared * _COMPARE_S
            if seconds < cost:
                best, cost = _Keys(_groups_of_bands(sizes), take), seconds
    return best


def _groups_of_bands(sizes: list[int]) -> list[list[Band]]:
    edges = np.linspace(0, BITS, sum(sizes) + 1).astype(int).tolist()
    bands = iter([Band(low, high - low) for low, high in pairwise(edges)])
    return [[next(bands) for _ in range(size)] for size in sizes]


def _pairs_of_key(hashes: Hashes, key: list[Band], distance: int, labels: Rows | None) -> Iterator[Pairs]:
    """The near pairs among the hashes that agree in the bits of a key."""
    order, starts, sizes = _buckets(hashes, key)
    found, pending = list[Pairs](), 0
    for width, alike in _of_like_width(sizes, len(hashes)):
        at_once = max(1, BLOCK_HASHES // width)
        for chosen in np.split(alike, range(at_once, len(alike), at_once)):
            # One bucket a column: row by row, the n-th members of all buckets are neighbours.
            places = starts[chosen] + np.arange(width)[:, None]
            rows = order[places.ravel() % len(order)]
            for first, second, bits in _near_in_columns(hashes[rows], width, distance):
                place, bucket = np.divmod(second, len(chosen))
                own = place < sizes[chosen][bucket]  # what lies behind a bucket's end only fills up its column
                first, second = rows[first[own]], rows[second[own]]
                new = np.ones(len(first), np.bool_) if labels is None else labels[first] != labels[second]
                found.append((first[new], second[new], bits[own][new]))
                pending += len(found[-1][0])
                if pending > PIECE_PAIRS:
                    yield _joined(found)
                    found, pending = [], 0
    if pending:
        yield _joined(found)


def _near_in_columns(hashes: Hashes, width: int, distance: int) -> Iterator[Pairs]:
    """The near pairs inside each column of hashes, (width · columns,) row by row: places (P,), later places, distances.

    All hashes of a row are compared with those `step` rows further by shifting the array against itself; where rows
    are few or short, several steps at once. Only memory and calls matter here: the comparisons are all of them.
    """
    columns = len(hashes) // width
    shifted = np.concatenate([hashes, np.zeros_like(hashes)])  # what is compared with the zeros is thrown away
    step = 1
    while step < width:
        length = (width - step) * columns
        steps = min(width - step, max(1, BLOCK_HASHES // length))
        others = sliding_window_view(shifted, length)[step * columns : (step + steps) * columns : columns]
        bits = np.bitwise_count(others ^ hashes[:length])  # (steps, length)
        if bits.min() <= distance:
            near = np.flatnonzero(bits <= distance)
            later, first = np.divmod(near, length)
            second = first + (step + later) * columns
            inside = second < len(hashes)
            yield first[inside], second[inside], bits.ravel()[near[inside]]
        step += steps


def _buckets(hashes: Hashes, key: list[Band]) -> tuple[Rows, Rows, Rows]:
    """Rows in the order of their keys, and where each set of equal keys begins and how many it has, from two up."""
    index_bits = np.uint64((len(hashes) - 1).bit_length())
    words = np.zeros(len(hashes), np.uint64)
    for band in key:
        words <<= np.uint64(band.width)
        words |= (hashes & band.mask) >> np.uint64(band.low)
    words <<= index_bits
    words |= np.arange(len(hashes), dtype=np.uint64)
    words.sort()
    order = (words & ((np.uint64(1) << index_bits) - np.uint64(1))).view(np.int64)
    words >>= index_bits
    starts = np.flatnonzero(np.concatenate([[True], words[1:] != words[:-1]]))
    sizes = np.diff(starts, append=len(words))
    return order, starts[sizes > 1], sizes[sizes > 1]


def _of_like_width(sizes: Rows, most: int) -> Iterator[tuple[int, Rows]]:
    """Buckets of about one size together: the width that holds them, at most 1/16 wider, and which they are."""
    unit = 2 ** np.maximum(np.log2(sizes).astype(np.int64) - 4, 0)  # sizes up to 31 as they are
    widths = np.minimum(-(-sizes // unit) * unit, most)
    order = np.argsort(widths, kind="stable")
    for chosen in np.split(order, np.flatnonzero(np.diff(widths[order])) + 1):
        if len(chosen):
            yield int(widths[chosen[0]]), chosen


def _joined(found: list[Pairs]) -> Pairs:
    low, high, bits = zip(*found, strict=True)
    return np.concatenate(low), np.concatenate(high), np.concatenate(bits)
