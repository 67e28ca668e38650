"""Frames that are taken from a video, and the plain way of choosing them: one every so many seconds."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from facemill.pictures import encode_jpeg
from facemill.video import Frame

JPEG_QUALITY = 95


class Sampled(NamedTuple):
    """A frame that was taken: its time, that time with its time base as an address has it, its shot, and its JPEG."""

    pts: int
    name: str
    shot: int
    data: bytes

    @classmethod
    def of(cls, frame: Frame, shot: int) -> Sampled:
        """The frame as people see it: upright, with square pixels."""
        return cls(frame.pts, f"{frame.pts}@{frame.time_base}", shot, encode_jpeg(frame.square_rgb, JPEG_QUALITY))


class Choice(Protocol):
    """Chooses among the frames of one video while it is read."""

    looked_at: int
    """How many frames were looked at more closely than by their time."""

    def offer(self, frame: Frame, shot: int) -> None:
        """The next frame, and the number of its shot."""

    def chosen(self) -> list[Sampled]:
        """The frames that were chosen among those offered, in the order of their times."""


class EveryFrame:
    """The first frame at or after each multiple of `every_s` seconds. Where that gives more than `most` frames, every
    second one leaves, as often as it must: what stays is of the whole video."""

    looked_at = 0

    def __init__(self, every_s: float, most: int) -> None:
        self._every_s, self._most = every_s, most
        self._start_s: float | None = None
        self._next, self._step = 0, 1
        self._taken: dict[int, Sampled] = {}  # by the multiple

    def offer(self, frame: Frame, shot: int) -> None:
        """The next frame, and the number of its shot."""
        self._start_s = frame.time_s if self._start_s is None else self._start_s
        multiple = int((frame.time_s - self._start_s) / self._every_s + 1e-9)
        if multiple < self._next:
            return
        at = multiple // self._step * self._step
        self._taken[at] = Sampled.of(frame, shot)
        while len(self._taken) > self._most:
            self._step *= 2
            self._taken = {at: sampled for at, sampled in self._taken.items() if at % self._step == 0}
        self._next = (multiple // self._step + 1) * self._step

    def chosen(self) -> list[Sampled]:
        """The frames that were chosen among those offered, in the order of their times."""
        return [*self._taken.values()]
