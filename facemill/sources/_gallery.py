"""Pictures chosen by the looks of their faces, while they come: no near copies, and at most so many of all.

A look is grey levels of an aligned face, and how far two are apart is told for the whole face, the eyes and the mouth:
an open mouth is little of a face, and another expression. No model with narrower terms looks at pictures here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import crop_points
from facemill.face_looks import LOOK_BYTES, face_look
from facemill.sources._sampling import Sampled

Look = npt.NDArray[np.uint8]

CROP_PX, COVERAGE = 256, 1.6
"""Of the aligned crops that looks are taken from."""
SAME_LOOK = 4.0
"""Difference in grey levels up to which two looks show the same. Of pairs of frames of eight clips of one person each
that differ less, 90 % have the same pose, expression and light by `facemill.face_looks`, which knows 68 points, and
98 % within one and a half times its limits; 44 % of those that it calls the same are found."""
ANOTHER_LOOK = 8.0
"""Difference from which on a frame is no better for being less like those that were taken: the clearer one is."""
NOTHING_ALIKE = 30.0
"""Difference from which on looks are as different as those of two people, or of two lights, and no difference more."""
SELDOM = 0.25
"""Somebody who is seen less than so many times as often as somebody else is not who is meant."""
CLEARER = 1.2
"""More than so many times as clear is a face that takes the place of its near copy; else the first one stays."""

_EYE_PX, _MOUTH_PX = (12, 8), (16, 12)
"""Thumbnails of each eye and of the mouth."""
_EYE_REACH, _MOUTH_REACH = (24, 16), (43, 32)
"""Pixels of the crop from their middles to their edges."""
_SIZES = np.array([LOOK_BYTES, *([_EYE_PX[0] * _EYE_PX[1]] * 2), _MOUTH_PX[0] * _MOUTH_PX[1]])
_BEGINS = np.concatenate([[0], np.cumsum(_SIZES)[:-1]])
_SCALES = np.array([1.0, 1.6, 1.6, 1.3])
"""By how much more the levels of eyes and mouth may differ than those of the whole face: points tremble."""

_POINTS = crop_points(CROP_PX, COVERAGE)
EYES = tuple(_POINTS[part].mean(axis=0) for part in (slice(36, 42), slice(42, 48)))
"""(2,) each: where the middles of the eyes lie in a crop."""
_MOUTH = _POINTS[48:].mean(axis=0)


def look_of(crop: npt.NDArray[np.uint8], grey: npt.NDArray[np.uint8]) -> Look:
    """(P,) uint8, thumbnails of an aligned face, its eyes and its mouth, of its crop in RGB and in grey."""
    parts = [cv2.resize(part_of(grey, eye, _EYE_REACH), _EYE_PX, interpolation=cv2.INTER_AREA) for eye in EYES]
    parts.append(cv2.resize(part_of(grey, _MOUTH, _MOUTH_REACH), _MOUTH_PX, interpolation=cv2.INTER_AREA))
    whole = np.frombuffer(face_look(crop, COVERAGE), np.uint8)
    return np.concatenate([whole, *(np.asarray(part, np.uint8).ravel() for part in parts)])


def part_of(
    grey: npt.NDArray[np.uint8], middle: npt.NDArray[np.float64], reach: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """The rectangle of a crop around a point, `reach` pixels to each side in x and y."""
    x, y = np.rint(middle).astype(int)
    return grey[y - reach[1] : y + reach[1], x - reach[0] : x + reach[0]]


def differences(looks: Sequence[Look], look: Look) -> npt.NDArray[np.float64]:
    """(N,) in grey levels: how far each of N looks is from one, where they differ most."""
    if not looks:
        return np.zeros(0)
    apart = np.abs(np.stack(looks).astype(np.int16) - look)
    means = np.add.reduceat(apart, _BEGINS, axis=1, dtype=np.int64) / _SIZES
    return np.asarray((means / _SCALES).max(axis=1))


class Face(NamedTuple):
    """A face that a picture shows: how clear it is, 0…1, and its look."""

    clearness: float
    look: Look


@dataclass(eq=False)
class _Hung:
    """A face for which a picture is kept.

    Attributes:
        picture: its number.
        apart: how far the nearest other look is from its own, and `nearest` whose that is.
        seen: how many faces that could be the same person's were offered, with those that were taken down before.
    """

    face: Face
    picture: int
    apart: float = float("inf")
    nearest: _Hung | None = field(default=None, repr=False)
    seen: int = 1


class Gallery:
    """At most `most` pictures, kept for their faces.

    A near copy of a face takes no place, unless it is a good deal clearer and takes that of the other. Where there are
    too many pictures, the face leaves that is worth the least: unclear, or with others much like it. A face that is
    seldom seen is therefore not crowded out by one that is there all the time; with `of_one` it is.
    """

    def __init__(self, most: int, *, of_one: bool = False) -> None:
        """
        Args:
            most: pictures that are kept.
            of_one: they are to be of one person. The clearest faces are worth the most, the more others are so near
                that they can be of the same person; and who is seldom seen has none.
        """
        self._most, self._of_one = most, of_one
        self._faces: list[_Hung] = []
        self._pictures: dict[int, Sampled] = {}
        self._offered = 0

    def offer(self, faces: Sequence[Face], picture: Callable[[], Sampled]) -> None:
        """A picture for the sake of some of its faces; it is asked for where one of them finds a place."""
        seen = [self._count(face) for face in faces]
        welcome = [(face, count) for face, count in zip(faces, seen, strict=True) if self._make_place(face)]
        if not welcome:
            return
        self._offered += 1
        self._pictures[self._offered] = picture()
        for face, count in welcome:
            self._hang(_Hung(face, self._offered, seen=count))
        while len(self._pictures) > self._most:
            self._take_down(min(self._faces, key=self._worth_here))

    def worth(self, face: Face) -> float:
        """What a face would add: more the clearer it is, and the less it is like those that are here."""
        if self._of_one:
            return face.clearness
        apart = differences([hung.face.look for hung in self._faces], face.look).min(initial=ANOTHER_LOOK)
        return face.clearness * float(apart)

    def pictures(self) -> list[Sampled]:
        """Those that are kept, by their times."""
        kept = self._pictures
        if self._of_one and kept:
            often = SELDOM * max(hung.seen for hung in self._faces)
            kept = {hung.picture: kept[hung.picture] for hung in self._faces if hung.seen >= often}
        return sorted(kept.values(), key=lambda each: each.pts)

    def _worth_here(self, hung: _Hung) -> float:
        return hung.face.clearness * (hung.seen if self._of_one else min(hung.apart, NOTHING_ALIKE))

    def _count(self, face: Face) -> int:
        """How many that could be the same person's were offered with this one; those that hang count it, too."""
        if not self._of_one:
            return 1
        apart = differences([hung.face.look for hung in self._faces], face.look)
        alike = [hung for hung, far in zip(self._faces, apart, strict=True) if far < NOTHING_ALIKE]
        for hung in alike:
            hung.seen += 1
        return max((hung.seen for hung in alike), default=1)

    def _make_place(self, face: Face) -> bool:
        apart = differences([hung.face.look for hung in self._faces], face.look)
        near = [hung for hung, far in zip(self._faces, apart, strict=True) if far <= SAME_LOOK]
        if any(face.clearness <= CLEARER * hung.face.clearness for hung in near):
            return False
        for hung in near:
            self._take_down(hung)
        return True

    def _hang(self, new: _Hung) -> None:
        apart = differences([hung.face.look for hung in self._faces], new.face.look)
        for hung, far in zip(self._faces, apart.tolist(), strict=True):
            if far < hung.apart:
                hung.apart, hung.nearest = far, new
            if far < new.apart:
                new.apart, new.nearest = far, hung
        self._faces.append(new)

    def _take_down(self, old: _Hung) -> None:
        self._faces.remove(old)
        if all(hung.picture != old.picture for hung in self._faces):
            del self._pictures[old.picture]
        for hung in self._faces:
            if hung.nearest is old:
                hung.apart, hung.nearest = float("inf"), None
                others = [other for other in self._faces if other is not hung]
                apart = differences([other.face.look for other in others], hung.face.look)
                if others:
                    nearest = int(apart.argmin())
                    hung.apart, hung.nearest = float(apart[nearest]), others[nearest]
