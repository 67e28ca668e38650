"""Faces at any roll, in videos: turned frames are searched now and then."""

from __future__ import annotations

from collections.abc import Sequence

from facemill.detect import Faces
from facemill.track.tracker import Search
from facemill.video import Frame


class TurnedSearch:
    """A `Search` of one video: upright faces in every frame that it is asked about, and where there are none, in every
    so manieth of these frames turned ones."""

    def __init__(self, upright: Search, turned: Search, every: int) -> None:
        """
        Args:
            upright: the search of frames as they are; `turned`: of a frame that is turned.
            every: 1 searches each frame without an upright face turned, 0 none.
        """
        self._upright, self._turned, self._every = upright, turned, every
        self._empty = 0  # frames without an upright face so far

    def __call__(self, frames: Sequence[Frame]) -> list[Faces]:
        found = list(self._upright(frames))
        for place, faces in enumerate(found):
            if len(faces) or not self._every:
                continue
            if self._empty % self._every == 0:
                [found[place]] = self._turned([frames[place]])
            self._empty += 1
        return found
