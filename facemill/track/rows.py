"""The rows of the faces of neighbouring segments, and what lies between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.track.segment import SegmentTracks

Array = npt.NDArray[Any]

OF_ROWS = ("box", "points", "yaw", "doubt", "presence", "score", "detected")
"""Columns of `SegmentTracks` that have a value for each row."""


@dataclass(frozen=True)
class SeenRows:
    """The rows of neighbouring pieces under numbers that hold for the video."""

    frame: Array
    number: Array
    box: Array
    points: Array
    yaw: Array
    doubt: Array
    presence: Array
    score: Array
    detected: Array

    @classmethod
    def of(cls, pieces: Mapping[int, SegmentTracks], offsets: Array, ids: Mapping[tuple[int, int], int]) -> SeenRows:
        return cls(
            np.concatenate([one.frame.astype(np.int64) + int(offsets[index]) for index, one in pieces.items()]),
            np.array([ids[index, int(local)] for index, one in pieces.items() for local in one.track], np.int64),
            **{name: np.concatenate([getattr(one, name) for one in pieces.values()]) for name in OF_ROWS},
        )

    @property
    def numbers(self) -> list[int]:
        return [int(number) for number in np.unique(self.number)]

    def of_track(self, number: int) -> SeenRows:
        return self.taken(np.flatnonzero(self.number == number))

    def between(self, first: int, last: int) -> SeenRows:
        return self.taken(np.flatnonzero((self.frame >= first) & (self.frame <= last)))

    def taken(self, rows: Array) -> SeenRows:
        return SeenRows(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Between:
    """For each frame the rows before and after it, the same one where it has one; `share` of the way between."""

    before: Array
    after: Array
    share: Array

    @classmethod
    def of(cls, rows: Array, frames: Array, seconds: Array) -> Between:
        """`rows`: frames of the rows, rising, the first no later than the first of `frames`, the last no earlier."""
        after = np.searchsorted(rows, frames)
        before = np.where(rows[after] == frames, after, after - 1)
        start, span = seconds[rows[before]], seconds[rows[after]] - seconds[rows[before]]
        return cls(before, after, np.where(span > 0, (seconds[frames] - start) / np.where(span > 0, span, 1), 0.0))

    def values(self, values: Array) -> Array:
        """Those of the rows, in each frame."""
        part = self.share.reshape(-1, *[1] * (values.ndim - 1))
        return np.asarray((1 - part) * values[self.before] + part * values[self.after], np.float32)


def untrusted(seconds: Array, trusted: Array, brief_s: float) -> tuple[Array, Array]:
    """(N,) bool of a run's rows twice: those in stretches of untrusted rows between two trusted ones that are no longer
    than `brief_s`, and those in stretches that are. A brief one at an end of the run is in neither."""
    brief, lasting = np.zeros(len(trusted), np.bool_), np.zeros(len(trusted), np.bool_)
    edges = np.flatnonzero(np.diff(np.concatenate([[1], trusted.astype(int), [1]])))
    for first, after in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        within = first > 0 and after < len(trusted)
        if seconds[min(after, len(trusted) - 1)] - seconds[first] > brief_s + 1e-6:
            lasting[first:after] = True
        elif within:
            brief[first:after] = True
    return brief, lasting
