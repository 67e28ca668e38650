"""What an aligned face looks like in a few numbers, and which faces show what another one shows already.

Two questions with one answer each. Of whatever sources: is this face a copy, of another size, quality or brightness,
cropped, with a caption or a border, or mirrored? Within one video: are pose, expression and light the same? Both are
asked of the aligned face and not of the picture, where a talking head is the same from the first frame to the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
_COMPARED_AT_ONCE, _PAIRS_AT_ONCE = 1024, 2**14

Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Alike = Callable[[Rows, Rows], Flags]
"""(S,) and (O,) numbers of faces -> (S, O) which of the former repeat which of the latter."""


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


def repeats(looks: FaceLooks, step: float, pinned: int = 0) -> Rows:
    """(N,) for each face the better one that it is a copy of, or has the look of within its video; itself where none.

    The best is taken first and all that repeats it falls, then the best of what is left: what a face falls to stays,
    and no two that stay repeat each other. Frames of one video are asked for their look, all others for copies.

    Args:
        step: how many times as far as the limits above two looks may be apart; 0 keeps all.
        pinned: so many of the best stay whatever they repeat; what they are given is the pinned one that they repeat.
    """
    are_copies, look_the_same = _copies(looks), _same_looks(looks, step)

    def repeat(some: Rows, others: Rows) -> Flags:
        return np.asarray(are_copies(some, others) | look_the_same(some, others), np.bool_)

    return _chosen(len(looks), repeat, pinned)


def copies(looks: FaceLooks) -> Rows:
    """(N,) for each face the better one that it is a copy of, as in `repeats`; itself where it is none."""
    return _chosen(len(looks), _copies(looks))


def same_looks(looks: FaceLooks, step: float) -> Rows:
    """(N,) for each face the better one of its video with the same pose, expression and light, as in `repeats`."""
    return _chosen(len(looks), _same_looks(looks, step))


def _copies(looks: FaceLooks) -> Alike:
    both = np.stack([looks.look, _mirrored(looks.look)]).astype(np.float32)
    total = both[0].sum(axis=1, dtype=np.float64)
    power = LOOK_BYTES * np.square(both[0], dtype=np.float64).sum(axis=1) - total**2

    def are_copies(some: Rows, others: Rows) -> Flags:
        # All sums are whole numbers below 2**24, which float32 holds exactly, in whatever order they are added.
        products = np.maximum(*(both[0][some] @ side[others].T for side in both)).astype(np.float64)  # (S, O)
        covariance = np.maximum(LOOK_BYTES * products - np.outer(total[some], total[others]), 0)
        scale = np.outer(power[some], power[others])
        (strong, far), (weak, near) = COPIES
        # Within a video it is for `same_looks` to say: a mouth that opens changes the look little.
        alike = (np.square(covariance) >= weak**2 * scale) & (scale > 0) & ~_of_one_video(looks, some, others)
        first, second = np.nonzero(alike)
        strict = np.square(covariance[first, second]) >= strong**2 * scale[first, second]
        stills = (looks.video[some[first]] < 0) & (looks.video[others[second]] < 0)
        apart = distance(looks.embedding[some[first]], looks.embedding[others[second]])
        alike[first, second] = (strict & (apart <= far)) | (stills & (apart <= near))
        return np.asarray(alike, np.bool_)

    return are_copies


def _same_looks(looks: FaceLooks, step: float) -> Alike:
    eyes = np.linalg.norm(looks.points[:, 36:42].mean(axis=1) - looks.points[:, 42:48].mean(axis=1), axis=1)
    eyes = np.maximum(eyes, 1e-6)

    def of_pairs(first: Rows, second: Rows) -> Flags:
        # What is cheap to tell first: the landmarks are compared of those alone that are turned and lit alike.
        turned = np.abs(looks.angles_deg[first] - looks.angles_deg[second]).max(axis=1)
        alike = np.asarray(turned <= step * SAME_ANGLE_DEG, np.bool_)
        left = np.flatnonzero(alike)
        lit = np.abs(looks.look[first[left]].astype(np.int16) - looks.look[second[left]]).mean(axis=1)
        alike[left] = lit <= step * SAME_LIGHT
        left = np.flatnonzero(alike)
        apart = np.linalg.norm(looks.points[first[left]] - looks.points[second[left]], axis=2)  # (P, 68)
        apart /= eyes[first[left], None]
        mouth, around_eyes = apart[:, 48:].mean(axis=1), apart[:, 36:48].mean(axis=1)
        alike[left] = (mouth <= step * SAME_MOUTH) & (around_eyes <= step * SAME_EYES)
        return alike

    def look_the_same(some: Rows, others: Rows) -> Flags:
        alike = np.zeros((len(some), len(others)), np.bool_)
        if step <= 0:
            return alike
        first, second = np.nonzero(_of_one_video(looks, some, others))
        for at in range(0, len(first), _PAIRS_AT_ONCE):
            pairs = first[at : at + _PAIRS_AT_ONCE], second[at : at + _PAIRS_AT_ONCE]
            alike[pairs] = of_pairs(some[pairs[0]], others[pairs[1]])
        return alike

    return look_the_same


def _of_one_video(looks: FaceLooks, some: Rows, others: Rows) -> Flags:
    own, other = looks.video[some][:, None], looks.video[others]
    return np.asarray((own == other) & (own >= 0), np.bool_)


def _chosen(count: int, alike: Alike, pinned: int = 0) -> Rows:
    """(count,) what stands for each face: the first kept one that it is like, else itself. The pinned are kept.

    At most `_COMPARED_AT_ONCE` faces are compared with as many that are kept at a time: memory does not grow with their
    square.
    """
    stands = np.arange(count)
    kept = np.zeros(0, np.int64)
    for begin in range(0, count, _COMPARED_AT_ONCE):
        left = np.arange(begin, min(begin + _COMPARED_AT_ONCE, count))
        for at in range(0, len(kept), _COMPARED_AT_ONCE):
            some = kept[at : at + _COMPARED_AT_ONCE]
            found = alike(left, some)
            hit = found.any(axis=1)
            stands[left[hit]] = some[found[hit].argmax(axis=1)]
            left = left[~hit | (left < pinned)]
        found = alike(left, left)
        for number, one in enumerate(left):
            if stands[one] == one or one < pinned:
                later = left[number + 1 :][found[number, number + 1 :]]
                stands[later[stands[later] == later]] = one
        kept = np.concatenate([kept, left[(stands[left] == left) | (left < pinned)]])
    return stands


def _mirrored(look: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    return look.reshape(-1, LOOK_PX, LOOK_PX)[:, :, ::-1].reshape(len(look), LOOK_BYTES)
