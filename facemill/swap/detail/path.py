"""Which exemplar lends its detail to which frame of a track: the cheapest way through all frames, changes included.

An exemplar that suits one frame best is rarely the best one a frame later, and a face whose pores change 25 times a
second boils. So the whole track is looked at: an exemplar costs in each frame what it differs from the face in
expression and turn of the head, a change costs a fixed price, and the sum is the least that can be had (Viterbi 1967).
Since a change costs the same whichever way it goes, the best way to change is from whatever was cheapest so far: the
search takes frames × exemplars steps. Changes are faded, and where nothing fits there is less detail.

All of this depends on landmarks alone, so that it is the same however a video is cut into segments, and a track of
100,000 frames needs a few megabytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.swap.detail.exemplars import Points, aligned

BROWS_AND_EYES, MOUTH, REST = "eyes", "mouth", "rest"
REGIONS = (REST, BROWS_AND_EYES, MOUTH)
"""What is chosen apart, in the order of `Choice`'s second axis: eyes may be open while another picture's mouth fits."""
CHANGE_PRICE = 0.012
"""Of another exemplar, in the unit of a difference: widths of the face."""
FADE_FRAMES = 2.0
"""Standard deviation of the Gaussian that fades a change."""
KEPT = 3
"""Exemplars that are mixed in a frame at most."""
FITS, FITS_NOT = 0.045, 0.11
"""Up to which difference there is all the detail, and from which on none, in widths of the face."""
_BLOCK = 2048  # frames whose costs lie in memory at once
_OWN, _OTHER = 1.0, 0.15  # weights of a region's own points and of all others, which tell the turn of the head


@dataclass(frozen=True)
class Choice:
    """What each of T frames takes from which exemplar, for each of `REGIONS`.

    Attributes:
        index: (T, 3, KEPT) int16, exemplars.
        weight: (T, 3, KEPT) float32, their shares, summing to 1.
        gain: (T, 3) float32 in 0…1, how much detail there is to be.
    """

    index: npt.NDArray[np.int16]
    weight: npt.NDArray[np.float32]
    gain: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.index)


def choose(
    landmarks: npt.NDArray[Any], neutral: Points, exemplars: Points, exemplars_neutral: Points | None = None
) -> Choice:
    """The exemplars of every frame of a track.

    Args:
        landmarks: (T, 68, 2) of the face that is replaced, frame by frame, in pixels.
        neutral: (68, 2) its usual shape, as `usual_shape` makes it of any pictures of that person: what the two people
            differ in is no expression.
        exemplars: (N, 68, 2) of the person who is put there, N ≥ 1.
        exemplars_neutral: (68, 2) likewise; of the exemplars themselves by default.
    """
    known = aligned(exemplars)
    own = known - (usual_shape(exemplars) if exemplars_neutral is None else exemplars_neutral)
    count = len(landmarks)
    index = np.zeros((count, len(REGIONS), KEPT), np.int16)
    weight = np.zeros((count, len(REGIONS), KEPT), np.float32)
    gain = np.zeros((count, len(REGIONS)), np.float32)
    for at, region in enumerate(REGIONS):
        path, price = _cheapest(landmarks, neutral, own, _weights(region))
        index[:, at], weight[:, at] = faded(path)
        fits = np.clip((FITS_NOT - price) / (FITS_NOT - FITS), 0, 1)
        gain[:, at] = _smooth(fits)
    return Choice(index, weight, gain)


def usual_shape(landmarks: npt.NDArray[Any]) -> Points:
    """(N, 68, 2) landmarks of one person → (68, 2): the median of their aligned shapes."""
    middle: Points = np.median(aligned(landmarks), axis=0)
    return middle


def cheapest_path(costs: npt.NDArray[np.float64], price: float) -> npt.NDArray[np.int64]:
    """(T, N) costs → (T,): the row of indices whose costs, with `price` for each change, sum to the least."""
    return _Path(len(costs), price).add(costs).indices()


def faded(path: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32]]:
    """(T,) indices → (T, KEPT) indices and shares: each frame takes a little of what its neighbours take."""
    count, reach = len(path), int(np.ceil(2.5 * FADE_FRAMES))
    index = np.repeat(path[:, None], KEPT, axis=1).astype(np.int16)
    weight = np.zeros((count, KEPT), np.float32)
    weight[:, 0] = 1.0
    share = np.exp(-0.5 * (np.arange(-reach, reach + 1) / FADE_FRAMES) ** 2)
    changes = np.flatnonzero(np.diff(path)) + 1
    near = np.unique(np.clip((changes[:, None] + np.arange(-reach, reach)).ravel(), 0, max(count - 1, 0)))
    for at in near:  # elsewhere all neighbours are of one mind
        first, last = max(0, at - reach), min(count, at + reach + 1)
        names, where = np.unique(path[first:last], return_inverse=True)
        sums = np.bincount(where, weights=share[first - at + reach : last - at + reach])
        best = np.argsort(-sums, kind="stable")[:KEPT]
        index[at, : len(best)], weight[at] = names[best], 0.0
        weight[at, : len(best)] = sums[best] / sums[best].sum()
    return index, weight


class _Path:
    """Viterbi's search over blocks of frames. Kept of each frame is what is needed to walk back: a bit for each
    exemplar, and one index."""

    def __init__(self, frames: int, price: float) -> None:
        self._price, self._at = price, 0
        self._changed = np.zeros((frames, 0), np.uint8)  # a bit for each exemplar: whether it is reached by a change
        self._best = np.zeros(frames, np.int64)  # cheapest index of the frame before
        self._total: npt.NDArray[np.float64] | None = None

    def add(self, costs: npt.NDArray[np.float64]) -> _Path:
        """Takes the costs of the next frames: (B, N), B frames by N exemplars. Returns itself."""
        for cost in costs:
            if self._total is None:
                self._total = np.zeros(len(cost))
                self._changed = np.zeros((len(self._best), -(-len(cost) // 8)), np.uint8)
            best = int(np.argmin(self._total))
            by_change = self._total[best] + self._price
            changed = self._total > by_change
            # only differences matter: the sum itself would lose digits over a long film
            self._total = np.where(changed, by_change, self._total) - self._total[best] + cost
            self._changed[self._at] = np.packbits(changed)
            self._best[self._at] = best
            self._at += 1
        return self

    def indices(self) -> npt.NDArray[np.int64]:
        """The exemplar of each of the T frames on the cheapest way: (T,) indices."""
        path = np.zeros(len(self._best), np.int64)
        if self._total is None:
            return path
        now = int(np.argmin(self._total))
        for at in range(len(path) - 1, -1, -1):
            path[at] = now
            if self._changed[at, now >> 3] >> (7 - (now & 7)) & 1:
                now = int(self._best[at])
        return path


def _cheapest(
    landmarks: npt.NDArray[Any], neutral: Points, own: Points, weights: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The path of one region, and what its exemplar differs by in each frame."""
    root = np.sqrt(weights)[:, None]
    flat = (own * root).reshape(len(own), -1)  # (N, 136)
    path = _Path(len(landmarks), CHANGE_PRICE)
    blocks = range(0, len(landmarks), _BLOCK)

    def differences(start: int) -> npt.NDArray[np.float64]:
        frames = ((aligned(landmarks[start : start + _BLOCK]) - neutral) * root).reshape(-1, flat.shape[1])
        # |a - b|² = |a|² - 2ab + |b|²: no array of frames × exemplars × points
        squared = (frames**2).sum(axis=1)[:, None] - 2 * frames @ flat.T + (flat**2).sum(axis=1)
        found: npt.NDArray[np.float64] = np.sqrt(np.maximum(squared, 0.0))
        return found

    for start in blocks:
        path.add(differences(start))
    indices = path.indices()
    price = np.concatenate(
        [np.zeros(0)]
        + [
            np.take_along_axis(differences(start), indices[start : start + _BLOCK, None], axis=1)[:, 0]
            for start in blocks
        ]
    )
    return indices, price


def _weights(region: str) -> npt.NDArray[np.float64]:
    """(68,) how much each point's difference counts; they sum to 1."""
    weights = np.full(68, _OTHER)
    weights[:17] = 0.5 * _OTHER  # the jaw is told least exactly
    if region == BROWS_AND_EYES:
        weights[17:27], weights[36:48] = 0.7 * _OWN, _OWN
    elif region == MOUTH:
        weights[48:68] = _OWN
    else:
        weights[:] = 0.5 * _OWN
        weights[:17] = 0.25 * _OWN
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A Gaussian over frames; the first and last go on."""
    reach = int(np.ceil(2.5 * FADE_FRAMES))
    share = np.exp(-0.5 * (np.arange(-reach, reach + 1) / FADE_FRAMES) ** 2)
    padded = np.pad(values, reach, mode="edge") if len(values) else values
    smooth: npt.NDArray[np.float64] = np.convolve(padded, share / share.sum(), mode="valid") if len(values) else values
    return smooth
