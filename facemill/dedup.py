"""Near-duplicate pictures: 64-bit perceptual hashes, all pairs within a distance, clusters, and which one to keep.

Hash: DCT of the 32×32 grey picture, the 8×8 lowest frequencies against their median (Zauner 2010, "Implementation and
benchmarking of perceptual image hash functions", pHash). The picture is decoded at a fraction of its size, which makes
hashing several times faster than decoding. Distances: up to 4 bits differ between copies of one picture (other size,
format, quality); 5–8 may be copies or merely alike, so a difference hash has to agree; beyond 8 it is noise.

For photos. On aligned face crops distances of 10 pair different people: do not use it there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.errors import InputError
from facemill.pictures import DEFAULT_MAX_PIXELS, picture_size
from facemill.reasons import Reason

SIDE_PX = 32
CONFIRM_BITS = 8
"""Between the two limits, the difference hashes may differ in at most so many bits."""
FLAT_DEVIATION = 4.0
"""Grey levels: below this standard deviation the hash is made of noise."""

_REDUCED = (
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)


@dataclass(frozen=True)
class PictureHash:
    """What a picture is compared by.

    phash, dhash: 64 bits each. flat: too little in it for the hashes to mean anything; equal bytes are the only
    duplicates then. sharpness: standard deviation of the Laplacian at 256×256 px, to choose the sharper of two copies.
    """

    phash: int
    dhash: int
    flat: bool
    sharpness: float


@dataclass(frozen=True)
class Candidate:
    """A picture to be judged. rank: sortable, lower is better, different for each; owner: the identity it is for."""

    sample_id: str
    owner: str
    hash: PictureHash
    rank: tuple[Any, ...]

    @property
    def look(self) -> Any:
        """Equal for pictures that cannot be told apart: by hashes, or by content where those mean nothing."""
        return self.sample_id if self.hash.flat else (self.hash.phash, self.hash.dhash)


def hash_picture(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> PictureHash:
    """Hashes of an encoded picture. Raises InputError as `pictures.decode` does for what is no picture."""
    grey = _reduced_grey(data, max_pixels)
    small = cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    phash = perceptual_hash(small)
    bits = phash.bit_count()
    sharp = cv2.resize(grey, (SIDE_PX * 8, SIDE_PX * 8), interpolation=cv2.INTER_AREA)
    return PictureHash(
        phash=phash,
        dhash=difference_hash(small),
        flat=bool(small.std() < FLAT_DEVIATION) or not 8 < bits < 56,
        sharpness=float(cv2.Laplacian(sharp, cv2.CV_32F).std()),
    )


def judge(
    candidates: Sequence[Candidate], *, distance: int = 4, confirm_distance: int = 8
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which candidate stands for each, and which cluster each is in, both (N,) as rows of `candidates`.

    A candidate that stands for itself is kept; all others are direct copies of the one that stands for them, of the
    same owner. Clusters go across owners and along chains of copies: pictures of different clusters share nothing, so
    a split by cluster does not leak. A cluster's number is a row of it. The order of the candidates does not matter.
    """
    # Candidates of one owner that look the very same are one node, so that a still video costs no N² pairs.
    nodes: dict[Any, list[int]] = {}
    for row, item in enumerate(candidates):
        nodes.setdefault((item.owner, item.look), []).append(row)
    # From here on a node is its best row: `best[node]` is a row of `candidates`, pairs are pairs of nodes.
    best = [min(rows, key=lambda row: candidates[row].rank) for rows in nodes.values()]
    pairs = duplicate_pairs(
        [candidates[row].hash for row in best], distance=distance, confirm_distance=confirm_distance
    )
    # Only a copy of the same owner falls: a picture of two people stays with both.
    owners = np.array([candidates[row].owner for row in best])
    own = pairs[owners[pairs[:, 0]] == owners[pairs[:, 1]]]
    node_stands = choose([candidates[row].rank for row in best], own)
    # Clusters go across owners, and join nodes that only their owners keep apart.
    node_cluster = clusters(len(best), np.concatenate([pairs[:, :2], _same_look([look for _, look in nodes])]))
    # Back from nodes to rows: all rows of a node share its fate.
    stands_for, cluster = np.zeros((2, len(candidates)), np.int64)
    for node, rows in enumerate(nodes.values()):
        stands_for[rows] = best[node_stands[node]]
        cluster[rows] = best[node_cluster[node]]
    return stands_for, cluster


def perceptual_hash(small: npt.NDArray[np.float32]) -> int:
    """(32, 32) grey -> 64 bits: the 8×8 lowest frequencies, each above their median or not."""
    low = cv2.dct(small)[:8, :8]
    return _to_int(low > np.median(low))


def difference_hash(small: npt.NDArray[np.float32]) -> int:
    """(32, 32) grey -> 64 bits: whether each of 8×8 places is brighter than its right neighbour."""
    grid = cv2.resize(small, (9, 8), interpolation=cv2.INTER_AREA)
    return _to_int(grid[:, :-1] > grid[:, 1:])


def pairs_within(hashes: npt.NDArray[np.uint64], distance: int) -> npt.NDArray[np.int64]:
    """All pairs of (N,) hashes that differ in at most `distance` bits -> (M, 3): i < j, and the distance; sorted.

    Of two hashes that differ in k bits, at least one of k + 1 bands of bits is equal (pigeonhole): each band is sorted
    and only equal neighbours are compared. Exact, and far below N² for real pictures.
    """
    if not 0 <= distance < 64:
        raise ValueError(f"distance must be 0…63 bits, got {distance}")
    hashes = np.asarray(hashes, np.uint64)
    found = [np.zeros((0, 3), np.int64)]
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in pairwise(edges):
        mask = np.uint64((1 << int(high - low)) - 1)
        band = (hashes >> np.uint64(low)) & mask
        found.append(_pairs_in_band(hashes, band, distance))
    return np.unique(np.concatenate(found), axis=0)


def _pairs_in_band(
    hashes: npt.NDArray[np.uint64], band: npt.NDArray[np.uint64], distance: int
) -> npt.NDArray[np.int64]:
    # Sorted by band, equal bands are neighbours: row k is compared with k + 1, then k + 2, … while their bands agree.
    order = np.argsort(band, kind="stable")
    band, sorted_hashes = band[order], hashes[order]
    found = [np.zeros((0, 3), np.int64)]
    first, step = np.arange(len(order) - 1), 1
    while len(first):
        first = first[first + step < len(order)]
        first = first[band[first] == band[first + step]]  # sorted, so nothing equal lies behind an unequal one
        bits = np.bitwise_count(sorted_hashes[first] ^ sorted_hashes[first + step])
        near = bits <= distance
        # `order` leads from places in the sorted band back to rows; the lower row comes first.
        pair = np.sort(np.stack([order[first[near]], order[first[near] + step]], axis=1), axis=1)
        found.append(np.column_stack([pair, bits[near]]).astype(np.int64))
        step += 1
    return np.concatenate(found)


def duplicate_pairs(
    hashes: Sequence[PictureHash], *, distance: int = 4, confirm_distance: int = 8
) -> npt.NDArray[np.int64]:
    """Rows (i, j, distance), i < j, of pictures that are copies of one another; flat pictures have none.

    Up to `distance` bits of the perceptual hash are enough; up to `confirm_distance` the difference hashes must agree
    within CONFIRM_BITS too.
    """
    usable = np.array([row for row, item in enumerate(hashes) if not item.flat], np.int64)
    phash = np.array([hashes[row].phash for row in usable], np.uint64)
    dhash = np.array([hashes[row].dhash for row in usable], np.uint64)
    pairs = pairs_within(phash, max(distance, confirm_distance))
    unlike = np.bitwise_count(dhash[pairs[:, 0]] ^ dhash[pairs[:, 1]]) > CONFIRM_BITS
    pairs = pairs[~((pairs[:, 2] > distance) & unlike)]
    return np.column_stack([usable[pairs[:, :2]], pairs[:, 2]])


def clusters(count: int, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(count,) the lowest row that each row is connected to: union-find over the whole graph.

    Args:
        count: of the rows.
        pairs: (M, 2 or more) int64, whose first two columns are rows that are connected.
    """
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for first, second in pairs[:, :2].tolist():
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return np.array([root(row) for row in range(count)], np.int64)


def choose(ranks: Sequence[Any], pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(N,) which row stands for each row: itself where it is kept, else one that it is a direct copy of.

    The best row is taken first, and its copies fall. A row that is only linked through a chain of others is kept, so
    nothing falls that is not close to what stands for it, and the order of the rows does not matter.

    Args:
        ranks: sortable, lower is better, all different.
        pairs: (M, 2 or more) int64, whose first two columns are rows that are copies of one another.
    """
    copies: dict[int, list[int]] = {}
    for first, second in pairs[:, :2].tolist():
        copies.setdefault(first, []).append(second)
        copies.setdefault(second, []).append(first)
    stands_for = np.full(len(ranks), -1, np.int64)  # -1: not decided yet
    for row in sorted(range(len(ranks)), key=ranks.__getitem__):
        if stands_for[row] < 0:
            stands_for[row] = row
            fallen = [copy for copy in copies.get(row, ()) if stands_for[copy] < 0]
            stands_for[fallen] = row
    return stands_for


def _same_look(looks: Sequence[Any]) -> npt.NDArray[np.int64]:
    """(M, 2) links between nodes of different owners that look the very same, flat ones included."""
    first: dict[Any, int] = {}
    links = [(first.setdefault(look, node), node) for node, look in enumerate(looks)]
    return np.array([link for link in links if link[0] != link[1]], np.int64).reshape(-1, 2)


def licence_rank(licence: str | None) -> int:
    """0 public domain, 1 attribution, 2 some other stated licence, 3 unknown: freer copies are kept first."""
    text = (licence or "").lower().replace("_", " ").replace("-", " ")
    if not text.strip():
        return 3
    if any(word in text for word in ("public domain", "cc0", "pdm")):
        return 0
    return 1 if text.startswith("cc by") and " n" not in text else 2


def _reduced_grey(data: bytes, max_pixels: int) -> npt.NDArray[np.uint8]:
    size = picture_size(data, max_pixels=max_pixels)
    shorter = min(size) if size else 0
    # four times the side of what is hashed: enough that the fraction does not change the hash
    flag = next((flag for factor, flag in _REDUCED if shorter >= factor * SIDE_PX * 4), cv2.IMREAD_GRAYSCALE)
    try:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise InputError(Reason.NOT_A_PICTURE, "decoder error") from error
    if grey is None:
        raise InputError(Reason.NOT_A_PICTURE, "the decoder gave up")
    return np.asarray(grey, np.uint8)


def _to_int(bits: npt.NDArray[np.bool_]) -> int:
    return int(struct.unpack(">Q", np.packbits(bits.ravel()).tobytes())[0])
