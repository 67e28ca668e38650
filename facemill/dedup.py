"""Near-duplicate pictures: which of them are copies of one another, and which one to keep.

Compared are the hashes of `facemill.picture_hash`. Up to 4 bits differ between copies of one picture (other size,
format, quality); 5–8 may be copies or merely alike, so a difference hash has to agree; beyond 8 it is noise.

For photos. On aligned face crops distances of 10 pair different people: do not use it there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from facemill.hamming import Hashes, Rows, cross, near_pairs, pairs_within

CONFIRM_BITS = 8
"""Between the two limits, the difference hashes may differ in at most so many bits."""

_ROUNDS = 256
"""So often the best of each cluster is taken and compared with the others; the pairs of what is left are looked up."""
_COMPARED_AT_ONCE = 2**17
_LINKS_AT_ONCE = 2**17

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class Looks:
    """N pictures to be judged, a column for each thing that the verdict depends on: about a hundred bytes a picture.

    Attributes:
        phash: (N,) uint64, as in `facemill.picture_hash.PictureHash`.
        dhash: (N,) uint64, as in `facemill.picture_hash.PictureHash`.
        flat: (N,) bool, as in `facemill.picture_hash.PictureHash`.
        owner: (N,) int32, the identity that a picture is for, as a number of the caller's choice.
        sample_id: (N, 4) uint64, the SHA-256 of the bytes, its most significant word first.
        rank: (N, R) float64, which copy is the best: the lowest in the first column, among equals in the second, …
        tie: (N,) int64, which is the best of those that are equal in rank and sample_id: the lowest. Pictures that are
            equal in this as well are interchangeable, and the first of them is taken.

    Raises:
        ValueError: a column is of another type or shape, or a rank is NaN.
    """

    phash: Hashes
    dhash: Hashes
    flat: npt.NDArray[np.bool_]
    owner: npt.NDArray[np.int32]
    sample_id: npt.NDArray[np.uint64]
    rank: npt.NDArray[np.float64]
    tie: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        width = {"sample_id": (4,), "rank": self.rank.shape[1:2] or (0,)}
        for name, dtype in _DTYPES.items():
            column, shape = getattr(self, name), (len(self), *width.get(name, ()))
            if column.dtype != dtype or column.shape != shape:
                raise ValueError(f"{name}: expected {np.dtype(dtype)} {shape}, got {column.dtype} {column.shape}")
        if np.isnan(self.rank).any():
            raise ValueError("rank: NaN is neither better nor worse than a number")

    @classmethod
    def from_columns(
        cls, *, phash: Any, dhash: Any, flat: Any, owner: Any, sample_id: Any, rank: Sequence[Any], tie: Any
    ) -> Self:
        """From Arrow arrays, numpy arrays or lists, one value for each picture, converted to the types above.

        Args:
            phash: 64 bits as a number, like dhash.
            dhash: see phash.
            flat: true or false.
            owner: numbers.
            sample_id: texts of 64 lower-case hex digits.
            rank: one or more columns of numbers, the most important one first.
            tie: numbers.

        Raises:
            ValueError: a null, an id that is not 64 hex digits, columns of different lengths.
        """
        return cls(
            phash=_column("phash", phash),
            dhash=_column("dhash", dhash),
            flat=_column("flat", flat),
            owner=_column("owner", owner),
            sample_id=_digest_words(sample_id),
            rank=np.stack([_column("rank", column) for column in rank], axis=1),
            tie=_column("tie", tie),
        )

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        """The pictures of all parts, in their order; none where there is no part. The parts rank by equal columns."""
        columns = {name: bytearray() for name in _DTYPES}
        shapes: dict[str, tuple[int, ...]] = {}
        # Into one growing piece of memory for each column: thousands of small arrays would leave it full of holes, and
        # the table twice.
        for part in parts:
            for name, column in columns.items():
                values = getattr(part, name)
                if shapes.setdefault(name, values.shape[1:]) != values.shape[1:]:
                    raise ValueError(f"{name}: parts of {shapes[name]} and {values.shape[1:]} for each picture")
                column += values.tobytes()
        if not shapes:
            return cls.from_columns(phash=(), dhash=(), flat=(), owner=(), sample_id=(), rank=[()], tie=())
        return cls(**{name: np.frombuffer(columns[name], _DTYPES[name]).reshape(-1, *shapes[name]) for name in _DTYPES})

    def take(self, rows: Rows) -> Self:
        """The pictures of these rows, in their order."""
        return type(self)(**{name: getattr(self, name)[rows] for name in _DTYPES})

    def ids(self, rows: Rows) -> list[str]:
        """The sample ids of these rows as 64 hex digits."""
        text = self.sample_id[rows].astype(">u8").tobytes().hex()
        return [text[at : at + 64] for at in range(0, len(text), 64)]

    def same_bytes(self) -> Rows:
        """(M,) the rows whose sample_id is that of other rows too: `tie` decides among these alone."""
        number = _numbers(*self.sample_id.T)
        return np.flatnonzero(np.bincount(number)[number] > 1)

    def best_first(self) -> Rows:
        """(N,) the rows by rank, then by sample_id, then by tie, then by position."""
        return np.lexsort([*self.rank.T, *self.sample_id.T, self.tie][::-1])

    def __len__(self) -> int:
        return len(self.phash)


_DTYPES: dict[str, Any] = {
    "phash": np.uint64,
    "dhash": np.uint64,
    "flat": np.bool_,
    "owner": np.int32,
    "sample_id": np.uint64,
    "rank": np.float64,
    "tie": np.int64,
}


Ranking = Callable[[Rows], npt.NDArray[np.float64]]
"""(M,) rows of `Looks` -> (M, R) their ranks, as in `Looks.rank`."""


def judge(
    looks: Looks, *, distance: int = 4, confirm_distance: int = 8, ranking: Ranking | None = None
) -> tuple[Rows, Rows]:
    """Which picture stands for each, and which cluster each is in, both (N,) int64, as rows of `looks`.

    A picture that stands for itself is kept; all others are direct copies of the one that stands for them, of the same
    owner: the best is taken first and its copies fall, then the best of what is left. Clusters go across owners and
    along chains of copies: pictures of different clusters share nothing, so a split by cluster does not leak. A
    cluster's number is the row of the lowest sample_id in it. The verdict does not depend on the order of the rows.

    Copies: up to `distance` bits of the perceptual hash are enough; up to `confirm_distance` the difference hashes must
    agree within CONFIRM_BITS too. Of flat pictures only those with equal bytes are copies.

    `ranking` gives the ranks of those alone that are not alone in their cluster, where finding out is dear; without it
    those of `looks` are taken.
    """
    look, cluster = _clusters(looks, distance, confirm_distance)
    stands_for, named = np.arange(len(looks)), np.arange(len(looks))
    # From here on only what is not alone in its cluster, from the best to the worst.
    rows = np.flatnonzero(np.bincount(cluster)[cluster] > 1)
    some = looks.take(rows)
    if ranking is not None:  # of what has the same bytes there is nothing to find out
        content = _numbers(cluster[rows], *some.sample_id.T)
        contents = np.bincount(cluster[rows][np.unique(content, return_index=True)[1]], minlength=len(looks) + 1)
        several = contents[cluster[rows]] > 1
        rank = some.rank.copy()
        rank[several] = ranking(rows[several])
        some = replace(some, rank=rank)
    order = some.best_first()
    some, rows = some.take(order), rows[order]
    look, cluster = look[rows], cluster[rows]

    by_id = np.lexsort((*some.sample_id.T[::-1], cluster))
    first = _begins(cluster[by_id])
    named[rows[by_id]] = rows[by_id[first]][np.cumsum(first) - 1]

    # Pictures of one owner that look the very same are one node, the best of them.
    node = _numbers(cluster, some.owner, look)
    best = np.unique(node, return_index=True)[1]
    group = _numbers(cluster[best], some.owner[best])
    order = np.lexsort((best, group))
    ranked = best[order]
    stands = _choose(group[order], some.phash[ranked], some.dhash[ranked], distance, confirm_distance)
    stands_for_node = np.empty_like(best)
    stands_for_node[order] = ranked[stands]
    stands_for[rows] = rows[stands_for_node[node]]
    return stands_for, named


def _clusters(looks: Looks, distance: int, confirm_distance: int) -> tuple[Rows, Rows]:
    """(N,) equal numbers for pictures that look the very same, and (N,) equal numbers for those of one cluster."""
    look = _look_numbers(looks)
    row = np.empty(look.max(initial=-1) + 1, np.int64)  # one for each look
    row[look] = np.arange(len(look))
    hashed = row[~looks.flat[row]]  # they come first, by phash
    begins = _begins(looks.phash[hashed])
    values, start = looks.phash[hashed[begins]], np.flatnonzero(begins)
    linked = _linked(values, start, looks.dhash[hashed], distance, confirm_distance)
    cluster = np.concatenate([linked[np.cumsum(begins) - 1], len(linked) + np.arange(len(row) - len(hashed))])
    return look, cluster[look]


def _look_numbers(looks: Looks) -> Rows:
    """(N,) equal numbers for pictures that cannot be told apart: by hashes, or by content where those mean nothing."""
    first, second = np.where(looks.flat, 0, looks.phash), np.where(looks.flat, 0, looks.dhash)
    first[looks.flat] = _numbers(*looks.sample_id[looks.flat].T)
    return _numbers(looks.flat, first, second)


def _linked(values: Hashes, start: Rows, dhash: Hashes, distance: int, confirm_distance: int) -> Rows:
    """(V,) equal numbers for the perceptual hashes that copies connect, directly or along chains.

    values: (V,), all different. Those of value v have the difference hashes from dhash[start[v]] up to the next start.
    """
    count = np.diff(start, append=len(dhash))
    labels, links = np.arange(len(values)), _Links()
    for low, high, bits in near_pairs(values, max(distance, confirm_distance), labels):
        sure = bits <= distance
        links.add(low[sure], high[sure])
        low, high = low[~sure], high[~sure]
        if len(links) > _LINKS_AT_ONCE or (count[low] * count[high]).sum() > _COMPARED_AT_ONCE:
            links.join(labels)
            apart = labels[low] != labels[high]  # what is linked by now need not be looked at
            low, high = low[apart], high[apart]
        agree = _any_agree(start, count, dhash, low, high)
        links.add(low[agree], high[agree])
    links.join(labels)
    return labels


class _Links:
    """Links between rows that wait to be joined, some millions at once rather than each by itself."""

    def __init__(self) -> None:
        self._links: list[Rows] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, low: Rows, high: Rows) -> None:
        self._links.append(np.stack([low, high]))
        self._count += len(low)

    def join(self, labels: Rows) -> None:
        """Gives equal labels, in place, to all that links connect; labels are numbers below their count."""
        if self._count:
            # here, since the import takes longer than all the rest of a small table
            from scipy.sparse import coo_array
            from scipy.sparse.csgraph import connected_components

            low, high = labels[np.concatenate(self._links, axis=1)]
            graph = coo_array((np.ones(len(low), np.bool_), (low, high)), shape=(len(labels), len(labels)))
            labels[:] = connected_components(graph, directed=False)[1][labels]
        self._links.clear()
        self._count = 0


def _any_agree(start: Rows, count: Rows, dhash: Hashes, low: Rows, high: Rows) -> npt.NDArray[np.bool_]:
    """(P,) for pairs of values whether any difference hash of the one agrees with any of the other."""
    # Pictures of one value are few as a rule; where they are not, its difference hashes are taken in slices, so that
    # a pair of slices is at most _COMPARED_AT_ONCE comparisons.
    slice_size = np.maximum(_COMPARED_AT_ONCE // count[high], 1)
    slices = -(-count[low] // slice_size)
    pair = np.repeat(np.arange(len(low)), slices)
    begin = (np.arange(len(pair)) - (np.cumsum(slices) - slices)[pair]) * slice_size[pair]
    size = np.minimum(count[low][pair] - begin, slice_size[pair])
    agree = np.zeros(len(low), np.bool_)
    done = np.cumsum(size * count[high][pair]) // _COMPARED_AT_ONCE
    for some in np.split(np.arange(len(pair)), np.flatnonzero(np.diff(done)) + 1):
        own = pair[some]
        at, first, second = cross(start[low][own] + begin[some], size[some], start[high][own], count[high][own])
        agree[own[at[np.bitwise_count(dhash[first] ^ dhash[second]) <= CONFIRM_BITS]]] = True
    return agree


def _choose(group: Rows, phash: Hashes, dhash: Hashes, distance: int, confirm_distance: int) -> Rows:
    """(M,) which row stands for each row: itself where it is kept, else one of its group that it is a copy of.

    Rows stand group by group, in each the best first. The best is taken, its copies fall, then the best of those left:
    one that is only linked through a chain of others is kept, so nothing falls that is not close to what stands for it.
    """
    stands = np.arange(len(group))
    left = np.arange(len(group))
    for _ in range(_ROUNDS):
        # One picture of each group at a time against all that is left of it: where all are alike, that is one round.
        if not len(left):
            return stands
        first = _begins(group[left])
        best = left[first][np.cumsum(first) - 1]
        copy = _are_copies(phash[left] ^ phash[best], dhash[left] ^ dhash[best], distance, confirm_distance)
        stands[left[copy]] = best[copy]
        left = left[~copy]
    # A large group that is not alike in itself: it has few pairs for its size, which are looked up together.
    pairs = left[pairs_within(phash[left], max(distance, confirm_distance))[:, :2]]
    first, second = pairs[group[pairs[:, 0]] == group[pairs[:, 1]]].T
    copy = _are_copies(phash[first] ^ phash[second], dhash[first] ^ dhash[second], distance, confirm_distance)
    first, second = first[copy], second[copy]
    edges = [*np.flatnonzero(_begins(first)).tolist(), len(first)]
    for begin, end in pairwise(edges):
        best, copies = first[begin], second[begin:end]
        if stands[best] == best:
            stands[copies[stands[copies] == copies]] = best
    return stands


def _are_copies(
    phash_difference: Hashes, dhash_difference: Hashes, distance: int, confirm_distance: int
) -> npt.NDArray[np.bool_]:
    """(P,) for pairs of pictures, each given as the XOR of their hashes."""
    bits = np.bitwise_count(phash_difference)
    alike = np.bitwise_count(dhash_difference) <= CONFIRM_BITS
    return (bits <= distance) | ((bits <= confirm_distance) & alike)


def _begins(*columns: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """(N,) where a row differs from the one before it in any of some columns."""
    begins = np.ones(len(columns[0]), np.bool_)
    begins[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return begins


def _numbers(*columns: npt.NDArray[Any]) -> Rows:
    """(N,) equal numbers for rows that are equal in all columns: 0, 1, … in their order, the first column first."""
    order = np.lexsort(columns[::-1])
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(_begins(*(column[order] for column in columns))) - 1
    return numbers


def _column(name: str, values: Any) -> npt.NDArray[Any]:
    if getattr(values, "null_count", 0):
        raise ValueError(f"{name}: {values.null_count} rows are null; leave out the rows that have no hash")
    return np.asarray(values, _DTYPES[name])


def _digest_words(texts: Any) -> npt.NDArray[np.uint64]:
    """(N, 4) words of SHA-256 sums that are given as 64 hex digits each, in an Arrow array or a list."""
    ids = texts.to_pylist() if isinstance(texts, pa.Array | pa.ChunkedArray) else list(texts)
    for text in ids:
        if not isinstance(text, str) or not _SHA256.fullmatch(text):
            raise ValueError(f"sample_id: expected a SHA-256 as 64 hex digits, got {text!r}")
    return np.frombuffer(bytes.fromhex("".join(ids)), ">u8").reshape(-1, 4).astype(np.uint64)
