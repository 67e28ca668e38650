"""What the faces of a person show: how they are turned, what they express, how they are lit; and what is missing.

A net draws what it has seen: a pose, an expression or a light that nobody showed it comes out as something near it.
Each face falls into one bin of each kind below; a bin with fewer than `LEAST` faces is a gap, which is told in words
that say what to look for. The bins follow the readiness report of argiacomi/faceswap where the numbers at hand allow
it; that they suffice is a rule of thumb of people who train, not a measurement.

    yaw         7: to −45, −30, −15, 15, 30, 45° and beyond; negative towards the picture's left
    pitch       5: to −30, −15, 15, 30° and beyond; negative downwards
    expression  5: eyes closed, mouth open, mouth a little open, smile, neutral; the first that holds
    light       6: too bright, dark, from the left, from the right, hard, even; the first that holds
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.align import MEAN_FACE

LEAST = 5
"""Faces that a bin needs, so that it is no accident."""
FEW, SHARE = 50, 0.02
"""Fewer faces are too few whatever they show; what makes up so much of one person's faces counts for the other."""
YAW_EDGES, PITCH_EDGES = (-45.0, -30.0, -15.0, 15.0, 30.0, 45.0), (-30.0, -15.0, 15.0, 30.0)

KINDS: Mapping[str, tuple[str, ...]] = {
    "yaw": (
        "turned to the left by more than 45°", "turned to the left by 30 to 45°", "turned to the left by 15 to 30°",
        "frontal", "turned to the right by 15 to 30°", "turned to the right by 30 to 45°",
        "turned to the right by more than 45°",
    ),
    "pitch": (
        "looking down by more than 30°", "looking down by 15 to 30°", "level", "looking up by 15 to 30°",
        "looking up by more than 30°",
    ),
    "expression": ("with closed eyes", "with an open mouth", "with the mouth a little open", "smiling", "neutral"),
    "light": ("too bright", "dark", "lit from the left", "lit from the right", "in hard light", "in even light"),
}  # fmt: skip
"""The bins of each kind, in the words in which they are missed."""
_SAID = 8
"""So many gaps are named in a sentence."""
_OPTIONAL = frozenset({"too bright"})
"""Bins that count for the score and are never named as gaps: nobody looks for overexposed faces to add."""
_WEIGHTS = {"yaw": 0.25, "pitch": 0.2, "expression": 0.3, "light": 0.25}

_EYES = (slice(36, 42), slice(42, 48))
_EYE_HEIGHTS = ((37, 41), (38, 40), (43, 47), (44, 46))
_EYE_WIDTHS = ((36, 39), (42, 45))
_NOSE_BASE, _CORNERS, _LIPS = 33, (48, 54), ((61, 67), (62, 66), (63, 65))
_CLOSED, _OPEN, _A_LITTLE_OPEN, _LIFT = 0.12, 0.35, 0.15, 0.05
"""Of an eye's height over its width; of the gap of the lips, and of the corners of the mouth above their middle, over
the distance of the eyes of a frontal face."""
_BRIGHT, _DARK, _SIDE, _HARD = 220.0, 60.0, 0.3, 60.0
"""Grey levels of a face's mean, how far one side's mean is over the other's, and grey levels of its deviation."""


@dataclass(frozen=True)
class Coverage:
    """How many faces lie in each bin.

    Attributes:
        counts: by kind, the number of faces in each of its bins, in the order of `KINDS`.
        pose: (5, 7) faces by pitch and yaw.
    """

    counts: Mapping[str, tuple[int, ...]]
    pose: npt.NDArray[np.int64]

    @classmethod
    def none(cls) -> Coverage:
        """The coverage of an identity without a face: 0 in every bin."""
        return cls({kind: (0,) * len(bins) for kind, bins in KINDS.items()}, np.zeros((5, 7), np.int64))

    @classmethod
    def of(
        cls,
        points: npt.NDArray[Any],
        yaw_deg: npt.NDArray[Any],
        pitch_deg: npt.NDArray[Any],
        looks: npt.NDArray[np.uint8],
    ) -> Coverage:
        """Of N faces.

        Args:
            points: (N, 68, 2) landmarks of upright faces, as an aligned crop has them, in any unit.
            yaw_deg, pitch_deg: (N,), as `facemill.align.head_pose` has them.
            looks: (N, P·P) grey levels of the face, as `facemill.face_looks.face_look` has them.
        """
        found = bins_of(points, yaw_deg, pitch_deg, looks)
        counts = {kind: tuple(np.bincount(found[kind], minlength=len(bins)).tolist()) for kind, bins in KINDS.items()}
        pose = np.zeros((5, 7), np.int64)
        np.add.at(pose, (found["pitch"], found["yaw"]), 1)
        return cls(counts, pose)

    def __add__(self, other: Coverage) -> Coverage:
        """The coverage of two sets of faces taken together, bin by bin."""
        counts = {
            kind: tuple(own + more for own, more in zip(self.counts[kind], other.counts[kind], strict=True))
            for kind in KINDS
        }
        return Coverage(counts, self.pose + other.pose)

    @property
    def faces(self) -> int:
        """The number of faces that were counted."""
        return int(self.pose.sum())

    @property
    def parts(self) -> dict[str, float]:
        """0…100 for each kind: how evenly its bins are filled (0.4), how many have a face (0.4) and `LEAST` (0.2)."""
        return {kind: _evenness(self.counts[kind]) for kind in KINDS}

    @property
    def readiness(self) -> float:
        """0…100, the parts weighed: how much of what a face can show there is. It says nothing about its quality."""
        return sum(_WEIGHTS[kind] * part for kind, part in self.parts.items())

    @property
    def gaps(self) -> list[tuple[str, int]]:
        """The bins with fewer than `LEAST` faces, in words, with how many there are."""
        return [
            (words, count)
            for kind, bins in KINDS.items()
            for words, count in zip(bins, self.counts[kind], strict=True)
            if count < LEAST and words not in _OPTIONAL
        ]

    def lacks_of(self, other: Coverage) -> list[tuple[str, float]]:
        """What another person's faces show and these do not, in words, with the share of that person's faces."""
        return [
            (words, theirs / other.faces)
            for kind, bins in KINDS.items()
            for words, own, theirs in zip(bins, self.counts[kind], other.counts[kind], strict=True)
            if own < LEAST and other.faces and theirs / other.faces > SHARE
        ]

    def sentence(self, name: str) -> str:
        """Whether a person's faces suffice to train with, and what is missing, in a sentence."""
        few = f" Fewer than {FEW} faces are too few to train with." if self.faces < FEW else ""
        gaps = self.gaps
        missing = ", ".join(words if not count else f"{words} ({count})" for words, count in gaps[:_SAID])
        more = f" and {len(gaps) - _SAID} more" if len(gaps) > _SAID else ""
        said = f"missing, or fewer than {LEAST}, are faces {missing}{more}" if gaps else "nothing is missing"
        faces = "1 face" if self.faces == 1 else f"{self.faces:,} faces"
        return f"{name}: {faces}, readiness {self.readiness:.0f} of 100; {said}.{few}"

    def plain(self) -> dict[str, Any]:
        """As JSON has it: the number of faces, the score with its parts, and the counts by kind and bin."""
        return {
            "faces": self.faces,
            "readiness": round(self.readiness, 1),
            "parts": {kind: round(part, 1) for kind, part in self.parts.items()},
            "counts": {kind: dict(zip(bins, self.counts[kind], strict=True)) for kind, bins in KINDS.items()},
        }


def bins_of(
    points: npt.NDArray[Any], yaw_deg: npt.NDArray[Any], pitch_deg: npt.NDArray[Any], looks: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.int64]]:
    """(N,) by kind the number of each face's bin among those of `KINDS`; the arguments are those of `Coverage.of`."""
    return {
        "yaw": np.digitize(yaw_deg, YAW_EDGES),
        "pitch": np.digitize(pitch_deg, PITCH_EDGES),
        "expression": _expressions(np.asarray(points, np.float64)),
        "light": _lights(looks),
    }


def spread_choice(bins: Mapping[str, npt.NDArray[np.int64]], budget: int) -> npt.NDArray[np.bool_]:
    """(N,) which of a person's faces to take where only so many are wanted: of every look before more of one.

    A look is a bin of each kind. The best face of each look is taken first, then the second best of each, and so on;
    where not all of a turn fit, the better ones.

    Args:
        bins: as `bins_of` gives them, the best face first.
        budget: how many are wanted, at most.
    """
    count = len(bins["yaw"])
    chosen = np.zeros(count, np.bool_)
    _, look = np.unique(np.stack([bins[kind] for kind in KINDS], axis=1), axis=0, return_inverse=True)
    by_look = np.argsort(look.ravel(), kind="stable")
    first = np.searchsorted(look.ravel()[by_look], look.ravel())  # where each face's look begins
    turn = np.empty(count, np.int64)
    turn[by_look] = np.arange(count) - first[by_look]
    chosen[np.argsort(turn, kind="stable")[:budget]] = True
    return chosen


def lacks_sentence(name: str, own: Coverage, other_name: str, other: Coverage) -> str:
    """What one person's faces have to show since another's do, whom they are to replace; empty where they show all."""
    lacks = own.lacks_of(other)
    if not lacks:
        return ""
    said = ", ".join(f"{words} ({share:.0%} of {other_name}'s)" for words, share in lacks)
    return f"{other_name} becomes {name}, who is hardly ever {said}"


def _expressions(points: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(N,) the number of each face's bin among those of `KINDS["expression"]`, of (N, 68, 2) points."""

    def apart(pairs: tuple[tuple[int, int], ...]) -> npt.NDArray[np.float64]:
        first, second = np.array(pairs).T
        return np.asarray(np.linalg.norm(points[:, first] - points[:, second], axis=2).mean(axis=1))

    scale = np.maximum(_eye_distance(points), 1e-9)
    openness = apart(_EYE_HEIGHTS) / np.maximum(apart(_EYE_WIDTHS), 1e-9)
    gap = apart(_LIPS) / scale
    middle = points[:, [51, 57], 1].mean(axis=1)
    # The corners of a mouth at rest lie near its middle; y goes down.
    lift = (middle - points[:, _CORNERS, 1].mean(axis=1)) / scale - _REST_LIFT
    conditions = [openness <= _CLOSED, gap >= _OPEN, gap >= _A_LITTLE_OPEN, lift >= _LIFT]
    return np.asarray(np.select(conditions, [0, 1, 2, 3], 4), np.int64)


def _eye_distance(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N,) the distance that the eyes would have from the front: turning shortens it, and nodding that to the nose."""
    left, right = (points[:, eye].mean(axis=1) for eye in _EYES)
    across = np.linalg.norm(left - right, axis=1)
    down = np.linalg.norm((left + right) / 2 - points[:, _NOSE_BASE], axis=1)
    return np.asarray(np.maximum(across, down * _ACROSS_OVER_DOWN))


def _lights(looks: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """(N,) the number of each face's bin among those of `KINDS["light"]`, of (N, P·P) grey levels."""
    side = math.isqrt(looks.shape[1])
    grey = looks.reshape(-1, side, side).astype(np.float64)
    mean, deviation = grey.mean(axis=(1, 2)), grey.std(axis=(1, 2))
    left, right = (
        np.maximum(half.mean(axis=(1, 2)), 1.0) for half in (grey[:, :, : side // 2], grey[:, :, side // 2 :])
    )
    conditions = [
        mean >= _BRIGHT,
        mean <= _DARK,
        left / right - 1 >= _SIDE,
        right / left - 1 >= _SIDE,
        deviation >= _HARD,
    ]
    return np.asarray(np.select(conditions, [0, 1, 2, 3, 4], 5), np.int64)


def _evenness(counts: tuple[int, ...]) -> float:
    total, bins = sum(counts), len(counts)
    if not total:
        return 0.0
    entropy = -sum(count / total * math.log(count / total) for count in counts if count) / math.log(bins)
    filled, enough = (sum(count >= least for count in counts) / bins for least in (1, LEAST))
    return 100 * (0.4 * entropy + 0.4 * filled + 0.2 * enough)


def _of_mean_face() -> tuple[float, float]:
    """How far the eyes of the mean face are apart over their distance to the nose, and how high its mouth's corners."""
    points = np.asarray(MEAN_FACE, np.float64)
    left, right = (points[eye].mean(axis=0) for eye in _EYES)
    across = float(np.linalg.norm(left - right))
    lift = (points[[51, 57], 1].mean() - points[list(_CORNERS), 1].mean()) / across
    return across / float(np.linalg.norm((left + right) / 2 - points[_NOSE_BASE])), float(lift)


_ACROSS_OVER_DOWN, _REST_LIFT = _of_mean_face()
