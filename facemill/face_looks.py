"""What an aligned face looks like in a few numbers, and which faces show what another one shows already.

Two questions with one answer each. Of whatever sources: is this face a copy, of another size, quality or brightness,
cropped, with a caption or a border, or mirrored? Within one video: are pose, expression and light the same? Both are
asked of the aligned face and not of the picture, where a talking head is the same from the first frame to the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from facemill.embeddings import DIMENSIONS, distance

LOOK_PX = 16
LOOK_BYTES = LOOK_PX * LOOK_PX
COPIES = ((0.97, 0.4), (0.9, 0.12))
"""Faces are copies whose looks correlate at least so much while their embeddings lie at most so far apart; the second
rule, for landmarks that were placed otherwise, is for stills alone. Of 446 faces of ten people of LFW the three pairs
that are copies, and no other pair of one person, pass either (`benchmarks/copies.py`)."""
SAME_MOUTH, SAME_EYES = 0.03, 0.02
"""Mean distance of the points of mouth and eyes within which an expression is the same, over the distance of the
eyes."""
SAME_ANGLE_DEG = 3.0
SAME_LIGHT = 6.0
"""Mean difference of looks, 0 to 255."""
_COMPARED_AT_ONCE, _PAIRS_AT_ONCE = 2048, 2**14
_ROUGHLY = 1e-3
"""More than a correlation in float32 is ever wrong by: pairs that may pass a limit are computed again, exactly."""

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def face_look(crop: npt.NDArray[np.uint8], coverage: float) -> bytes:
    """The middle of an aligned RGB crop, the face itself, as LOOK_PX × LOOK_PX grey levels, row by row."""
    side = crop.shape[0]
    margin = round(side * (1 - 1 / max(coverage, 1.0)) / 2)
    grey = cv2.cvtColor(crop[margin : side - margin, margin : side - margin], cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (LOOK_PX, LOOK_PX), interpolation=cv2.INTER_AREA), np.uint8).tobytes()


@dataclass(frozen=True, eq=False)
class FaceLooks:
    """N faces of one person, the best first.

    Attributes:
        look: (N, LOOK_BYTES) uint8, as `face_look` has it.
        points: (N, 68, 2) landmarks as the aligned crop has them, in any unit.
        angles_deg: (N, 2) yaw and pitch.
        embedding: (N, 128).
        video: (N,) a number for each video, negative for stills.
    """

    look: npt.NDArray[np.uint8]
    points: npt.NDArray[np.float32]
    angles_deg: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]
    video: Rows

    def __post_init__(self) -> None:
        shapes = {"look": (LOOK_BYTES,), "points": (68, 2), "angles_deg": (2,), "embedding": (DIMENSIONS,), "video": ()}
        for name, shape in shapes.items():
            if getattr(self, name).shape != (len(self.video), *shape):
                raise ValueError(f"{name}: expected {(len(self.video), *shape)}, got {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.video)

    def take(self, rows: Rows) -> FaceLooks:
        """Some of them, by their numbers."""
        return FaceLooks(
            self.look[rows], self.points[rows], self.angles_deg[rows], self.embedding[rows], self.video[rows]
        )

    @cached_property
    def halves(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The look taken apart as `_halves` does it, once for all comparisons of this face."""
        return _halves(self.look)


class StoredLooks(Protocol):
    """Faces of one person, the best first, of which some at a time are in memory; `FaceLooks` are such, too."""

    def __len__(self) -> int: ...

    def take(self, rows: Rows, /) -> FaceLooks:
        """Some of them, by their numbers."""


Alike = Callable[[FaceLooks, FaceLooks], Flags]
"""S faces and O others -> (S, O) which of the former repeat which of the latter."""


def repeats(looks: StoredLooks, step: float, pinned: int = 0) -> Rows:
    """(N,) for each face the better one that it is a copy of, or has the look of within its video; itself where none.

    The best is taken first and all that repeats it falls, then the best of what is left: what a face falls to stays,
    and no two that stay repeat each other. Frames of one video are asked for their look, all others for copies.

    Args:
        looks: `_COMPARED_AT_ONCE` of them are taken twice at a time.
        step: how many times as far as the limits above two looks may be apart; 0 keeps all.
        pinned: so many of the best stay whatever they repeat; what they are given is the pinned one that they repeat.
    """

    def repeat(some: FaceLooks, others: FaceLooks) -> Flags:
        return np.asarray(_are_copies(some, others) | _look_the_same(some, others, step), np.bool_)

    return _chosen(looks, repeat, pinned)


def copies(looks: StoredLooks) -> Rows:
    """(N,) for each face the better one that it is a copy of, as in `repeats`; itself where it is none."""
    return _chosen(looks, _are_copies)


def same_looks(looks: StoredLooks, step: float) -> Rows:
    """(N,) for each face the better one of its video with the same pose, expression and light, as in `repeats`."""
    return _chosen(looks, lambda some, others: _look_the_same(some, others, step))


def _are_copies(some: FaceLooks, others: FaceLooks) -> Flags:
    (symmetric, odd), (other_symmetric, other_odd) = some.halves, others.halves
    likeness = odd @ other_odd.T  # (S, O)
    np.abs(likeness, out=likeness)  # the better of the face and its mirror image
    likeness += symmetric @ other_symmetric.T
    (strong, far), (weak, near) = COPIES
    alike = np.asarray(likeness >= weak - _ROUGHLY, np.bool_)
    first, second = np.nonzero(alike)
    alike[:] = False
    for at in range(0, len(first), _PAIRS_AT_ONCE):
        a, b = first[at : at + _PAIRS_AT_ONCE], second[at : at + _PAIRS_AT_ONCE]
        apart = distance(some.embedding[a], others.embedding[b])
        stills = (some.video[a] < 0) & (others.video[b] < 0)
        # Within a video it is for `_look_the_same` to say: a mouth that opens changes the look little.
        asked = stills | (some.video[a] != others.video[b])
        may_be = asked & (((likeness[a, b] >= strong - _ROUGHLY) & (apart <= far)) | (stills & (apart <= near)))
        a, b, apart, stills = a[may_be], b[may_be], apart[may_be], stills[may_be]
        exactly = _correlations(some.look[a], others.look[b])
        alike[a, b] = ((exactly >= strong) & (apart <= far)) | (stills & (exactly >= weak) & (apart <= near))
    return alike


def _halves(look: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """(N, LOOK_BYTES / 2) twice: the looks at length 1 around their mean, as what a mirror keeps and what it turns.

    The sum of the products of both halves is the correlation of two looks, and their difference that with the mirror
    image, for half of what computing both takes. A flat look is all zeros.
    """
    picture = look.reshape(-1, LOOK_PX, LOOK_PX).astype(np.float32)
    picture -= picture.mean(axis=(1, 2), keepdims=True)
    length = np.linalg.norm(picture, axis=(1, 2), keepdims=True) * np.float32(np.sqrt(2))
    picture /= np.where(length > 0, length, 1)
    left, right = picture[:, :, : LOOK_PX // 2], picture[:, :, : LOOK_PX // 2 - 1 : -1]
    return (left + right).reshape(-1, LOOK_BYTES // 2), (left - right).reshape(-1, LOOK_BYTES // 2)


def _correlations(some: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """(P,) of pairs of looks, or with the mirror image where that is more; 0 where one is flat.

    From sums of whole numbers, the same in whatever order they are added.
    """
    first, second = some.astype(np.int64), others.astype(np.int64)
    products = np.maximum((first * second).sum(axis=1), (first * _mirrored(second)).sum(axis=1))
    covariance = LOOK_BYTES * products - first.sum(axis=1) * second.sum(axis=1)
    scale = _power(first) * _power(second)
    return np.asarray(covariance / np.sqrt(np.where(scale > 0, scale, np.inf)), np.float64)


def _power(look: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray(LOOK_BYTES * np.square(look).sum(axis=1) - np.square(look.sum(axis=1)), np.float64)


def _look_the_same(some: FaceLooks, others: FaceLooks, step: float) -> Flags:
    alike = np.zeros((len(some), len(others)), np.bool_)
    if step <= 0 or some.video.max(initial=-1) < 0:
        return alike
    first, second = np.nonzero((some.video[:, None] == others.video) & (some.video[:, None] >= 0))
    for at in range(0, len(first), _PAIRS_AT_ONCE):
        a, b = first[at : at + _PAIRS_AT_ONCE], second[at : at + _PAIRS_AT_ONCE]
        # What is cheap to tell first: the landmarks are compared of those alone that are turned and lit alike.
        turned = np.abs(some.angles_deg[a] - others.angles_deg[b]).max(axis=1) <= step * SAME_ANGLE_DEG
        a, b = a[turned], b[turned]
        lit = np.abs(some.look[a].astype(np.int16) - others.look[b]).mean(axis=1) <= step * SAME_LIGHT
        a, b = a[lit], b[lit]
        apart = np.linalg.norm(some.points[a] - others.points[b], axis=2)  # (P, 68)
        apart /= _eyes(some.points[a])[:, None]
        mouth, around_eyes = apart[:, 48:].mean(axis=1), apart[:, 36:48].mean(axis=1)
        alike[a, b] = (mouth <= step * SAME_MOUTH) & (around_eyes <= step * SAME_EYES)
    return alike


def _eyes(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N,) how far the eyes are apart."""
    apart = np.linalg.norm(points[:, 36:42].mean(axis=1) - points[:, 42:48].mean(axis=1), axis=1)
    return np.asarray(np.maximum(apart, 1e-6), np.float32)


def _chosen(looks: StoredLooks, alike: Alike, pinned: int = 0) -> Rows:
    """(N,) what stands for each face: the first kept one that it is like, else itself. The pinned are kept.

    At most `_COMPARED_AT_ONCE` faces are compared with as many that are kept at a time: memory grows neither with their
    square nor with more than two numbers for each.
    """
    stands = np.arange(len(looks))
    kept = np.zeros(0, np.int64)
    for begin in range(0, len(looks), _COMPARED_AT_ONCE):
        rows = np.arange(begin, min(begin + _COMPARED_AT_ONCE, len(looks)))
        left = looks.take(rows)
        for at in range(0, len(kept), _COMPARED_AT_ONCE):
            some = kept[at : at + _COMPARED_AT_ONCE]
            found = alike(left, looks.take(some))
            hit = found.any(axis=1) & (stands[rows] == rows)
            if hit.any():
                stands[rows[hit]] = some[found[hit].argmax(axis=1)]
                stay = np.flatnonzero(~hit | (rows < pinned))
                rows, left = rows[stay], left.take(stay)
        found = alike(left, left)
        for number, one in enumerate(rows):
            if stands[one] == one or one < pinned:
                later = rows[number + 1 :][found[number, number + 1 :]]
                stands[later[stands[later] == later]] = one
        kept = np.concatenate([kept, rows[(stands[rows] == rows) | (rows < pinned)]])
    return stands


def _mirrored(look: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return look.reshape(-1, LOOK_PX, LOOK_PX)[:, :, ::-1].reshape(len(look), LOOK_BYTES)
