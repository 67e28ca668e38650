"""Faces that lie on their side: how far a face is rolled, and the square around it turned upright.

A roll is in radians, clockwise as one sees it, in −π…π; 0 is upright. Coordinates of pictures and crops have pixel
centres at integers and y downwards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.align import MEAN_FACE, Affine, five_points, invert, transform, warp
from facemill.boxes import LANDMARK_BOXES, BoxConvention

Point = npt.NDArray[np.float64]


TURN_FROM = np.radians(10)
"""Below this roll a predictor that bears some of it (dlib's) looks at the picture as it is."""


@dataclass(frozen=True)
class Square:
    """A square of a picture, seen with its own roll undone.

    centre: (2,) x, y in picture pixels. side: in picture pixels. roll: in radians.
    """

    centre: Point
    side: float
    roll: float = 0.0

    def grown(self, factor: float) -> Square:
        """The square with the same middle and another side."""
        return replace(self, side=self.side * factor)

    def turned(self, roll: float) -> Square:
        """The square with the same middle and another roll."""
        return replace(self, roll=roll)

    def affine(self, out_px: int) -> Affine:
        """(2, 3), from picture coordinates to those of an upright crop with a side of out_px."""
        linear = _rotation(-self.roll) * (out_px / max(self.side, 1e-3))
        return np.hstack([linear, ((out_px - 1) / 2 - linear @ self.centre)[:, None]])

    def crop(self, picture: npt.NDArray[np.uint8], out_px: int) -> tuple[npt.NDArray[np.uint8], Affine]:
        """The upright crop, uint8 out_px×out_px×3, and the affine that brings its coordinates back to the picture."""
        affine = self.affine(out_px)
        return warp(picture, affine, out_px), invert(affine)


_LOW, _HIGH = MEAN_FACE.min(axis=0), MEAN_FACE.max(axis=0)
_MEAN_HOG = LANDMARK_BOXES.to_hog(np.concatenate([_LOW, _HIGH])[None])[0]
_MEAN_MIDDLE, _MEAN_SIDE = (_MEAN_HOG[:2] + _MEAN_HOG[2:]) / 2, float(_MEAN_HOG[2] - _MEAN_HOG[0])


def roll_of(points5: npt.NDArray[Any]) -> float:
    """Roll of a face by its five points, (5, 2) as `Faces.points5` has them: the eyes and the line to the mouth agree.

    Each alone is wrong where a head is turned: a profile has its eyes almost above one another.
    """
    across, down = _axes(points5)
    return float(np.arctan2(across[1] - down[0], across[0] + down[1]))


def points_square(points5: npt.NDArray[Any]) -> Square:
    """The square from brows to chin by five points, with their roll; its side is 1 where eyes and mouth are that far
    apart, whichever of the two is the longer (a profile's eyes are near each other, an open mouth is far)."""
    points = np.asarray(points5, np.float64)
    across, down = _axes(points)
    middle = (points[:2].mean(axis=0) + points[3:].mean(axis=0)) / 2
    return Square(middle, float(max(np.hypot(*across), np.hypot(*down))), roll_of(points))


def five_in(square: Square) -> npt.NDArray[np.float32]:
    """(5, 2): where the mean face has its five points in HOG's square of a face: what is known of a face of which only
    a box and a roll are."""
    placed = (five_points(MEAN_FACE) - _MEAN_MIDDLE) / _MEAN_SIDE
    return np.asarray(placed @ _rotation(square.roll).T * square.side + square.centre, np.float32)


def hog_square(box_xyxy: npt.NDArray[Any], convention: BoxConvention, roll: float = 0.0) -> Square:
    """The square that HOG would draw around a face in a box (4,) of a convention, were the face upright.

    What the convention says of up and down is turned with the face; its box is taken to be as large as an upright
    face's, which holds for detectors that draw about a square whatever the roll.
    """
    box = np.asarray(box_xyxy, np.float64)
    unit = float((box[2:] - box[:2]).mean())
    shift = _rotation(roll) @ np.array([convention.shift_x, convention.shift_y]) * unit
    return Square((box[:2] + box[2:]) / 2 + shift, unit * convention.side, roll)


def upright_boxes(landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(N, 68, 2) -> (N, 4): the tight boxes around faces as they are when turned upright, put around the same middles.

    So a box has the size of an upright face's, which box conventions count on, whatever the roll.
    """
    boxes = np.zeros((len(landmarks), 4))
    for row, points in enumerate(np.asarray(landmarks, np.float64)):
        roll = turn_of(five_points(points))
        low, high = _extent(points, roll)
        # from where the upright box's middle is to where the face's is: exactly nothing for an upright face
        moved = _rotation(roll) @ ((low + high) / 2) - (low + high) / 2
        boxes[row] = np.concatenate([low + moved, high + moved])
    return boxes


def turn_of(points5: npt.NDArray[Any]) -> float:
    """The roll that is to be undone before dlib looks: `roll_of`, or 0 where it is less than `TURN_FROM`."""
    roll = roll_of(points5)
    return roll if abs(roll) >= TURN_FROM else 0.0


def around(points: npt.NDArray[Any], roll: float) -> Square:
    """The smallest square with this roll around (K, 2) points that keeps them in its middle."""
    low, high = _extent(points, roll)
    return Square(_rotation(roll) @ ((low + high) / 2), float((high - low).max()), roll)


def _extent(points: npt.NDArray[Any], roll: float) -> tuple[Point, Point]:
    """Lowest and highest coordinates of the points with the roll undone about the origin."""
    upright = transform(points, np.hstack([_rotation(-roll), np.zeros((2, 1))]))
    return upright.min(axis=0), upright.max(axis=0)


def _axes(points5: npt.NDArray[Any]) -> tuple[Point, Point]:
    """From eye to eye, and from the middle of the eyes to that of the mouth."""
    points = np.asarray(points5, np.float64)
    return points[1] - points[0], points[3:].mean(axis=0) - points[:2].mean(axis=0)


def _rotation(roll: float) -> npt.NDArray[np.float64]:
    """(2, 2), turns clockwise as one sees it, since y points down."""
    cos, sin = np.cos(roll), np.sin(roll)
    return np.array([[cos, -sin], [sin, cos]])
