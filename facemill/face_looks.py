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
_COMPARED_AT_ONCE, _COMPARED_SLOWLY = 1024, 128

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


def copies(looks: FaceLooks) -> Rows:
    """(N,) for each face the better one that it is a copy of; itself where it is none.

    The best is taken first and its copies fall, then the best of what is left, so that no two that stay are copies.
    Frames of one video are not compared with each other.
    """
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
        own_video = (looks.video[some][:, None] == looks.video[others]) & (looks.video[some] >= 0)[:, None]
        alike = (np.square(covariance) >= weak**2 * scale) & (scale > 0) & ~own_video
        first, second = np.nonzero(alike)
        strict = np.square(covariance[first, second]) >= strong**2 * scale[first, second]
        stills = (looks.video[some[first]] < 0) & (looks.video[others[second]] < 0)
        apart = distance(looks.embedding[some[first]], looks.embedding[others[second]])
        alike[first, second] = (strict & (apart <= far)) | (stills & (apart <= near))
        return np.asarray(alike, np.bool_)

    return _chosen(np.arange(len(looks)), are_copies, _COMPARED_AT_ONCE)


def same_looks(looks: FaceLooks, step: float) -> Rows:
    """(N,) for each face the better one of its video with the same pose, expression and light; itself where none has.

    Args:
        step: how many times as far as the limits above two faces may be apart; 0 keeps all.
    """
    stands = np.arange(len(looks))
    if step <= 0:
        return stands
    eyes = np.linalg.norm(looks.points[:, 36:42].mean(axis=1) - looks.points[:, 42:48].mean(axis=1), axis=1)
    grey = looks.look.astype(np.float32)

    def look_the_same(some: Rows, others: Rows) -> Flags:
        apart = np.linalg.norm(looks.points[some][:, None] - looks.points[others][None], axis=3)  # (S, O, 68)
        apart /= np.maximum(eyes[some], 1e-6)[:, None, None]
        turned = np.abs(looks.angles_deg[some][:, None] - looks.angles_deg[others][None]).max(axis=2)
        lit = np.abs(grey[some][:, None] - grey[others][None]).mean(axis=2)
        return np.asarray(
            (apart[:, :, 48:].mean(axis=2) <= step * SAME_MOUTH)
            & (apart[:, :, 36:48].mean(axis=2) <= step * SAME_EYES)
            & (turned <= step * SAME_ANGLE_DEG)
            & (lit <= step * SAME_LIGHT),
            np.bool_,
        )

    for video in np.unique(looks.video[looks.video >= 0]):
        rows = np.flatnonzero(looks.video == video)
        stands[rows] = _chosen(rows, look_the_same, _COMPARED_SLOWLY)[rows]
    return stands


def _chosen(rows: Rows, alike: Callable[[Rows, Rows], Flags], at_once: int) -> Rows:
    """What stands for each of some faces, by their numbers: the first kept one that it is like, else itself.

    At most `at_once` faces are compared with as many that are kept at a time: memory does not grow with their square.
    """
    stands = np.arange(int(rows.max(initial=-1)) + 1)
    kept = np.zeros(0, np.int64)
    for begin in range(0, len(rows), at_once):
        left = rows[begin : begin + at_once]
        for at in range(0, len(kept), at_once):
            some = kept[at : at + at_once]
            found = alike(left, some)
            hit = found.any(axis=1)
            stands[left[hit]] = some[found[hit].argmax(axis=1)]
            left = left[~hit]
        found = alike(left, left)
        for number, one in enumerate(left):
            if stands[one] == one:
                later = left[number + 1 :][found[number, number + 1 :]]
                stands[later[stands[later] == later]] = one
        kept = np.concatenate([kept, left[stands[left] == left]])
    return stands


def _mirrored(look: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    return look.reshape(-1, LOOK_PX, LOOK_PX)[:, :, ::-1].reshape(len(look), LOOK_BYTES)
