"""A dense map from one face to another through their landmarks: piecewise affine on triangles (S9's warp), vectorised.

The triangles are those of the mean face, the same for every pair of faces; a coarse grid says which triangle covers
each of its cells, one product gives the places of all cells, and linear interpolation between cells gives every pixel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay

from facemill.align import Affine, crop_points, invert, transform
from facemill.swap.detail.exemplars import Points

Plane = npt.NDArray[np.float32]
GRID_PX = 64
"""Cells of a grid over a face, each way."""
_BORDER = np.array([(x, y) for y in (0, 0.5, 1) for x in (0, 0.5, 1) if (x, y) != (0.5, 0.5)])
_SHIFT = 4  # fractional bits of a corner's place


class FaceMesh:
    """The triangles over one face, by which pictures of other faces are brought onto it.

    Made once for a face, used for every exemplar.
    """

    def __init__(self, landmarks: npt.NDArray[Any], affine: Affine, coverage: float) -> None:
        """
        Args:
            landmarks: (68, 2) of the face on which pictures are to lie, in cells of a grid of `GRID_PX` over it.
            affine: from that grid to the square that the net sees, brought to `GRID_PX`.
            coverage: of that square.
        """
        triangles, usual = _triangles(coverage)
        corners = corners_of(landmarks, affine)[triangles]  # (M, 3, 2)
        self._triangles = triangles
        self._inverse = _inverse(corners)
        # where triangles fold, the mean face's stay
        self._cells = cv2.warpAffine(
            usual,
            affine,
            (GRID_PX, GRID_PX),
            flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for number, corner in enumerate(np.rint(corners * 2**_SHIFT).astype(np.int32)):
            cv2.fillConvexPoly(self._cells, corner, number, shift=_SHIFT)

    def map_to(self, corners: Points) -> tuple[Plane, Plane]:
        """For each cell its place in another picture: x and y in pixels of that, (GRID_PX, GRID_PX) each.

        Args:
            corners: (76, 2) the points of that picture and its border, as `corners_of` has them.
        """
        affines = self._inverse @ corners[self._triangles]  # (M, 3, 2): a row (x, y, 1) times this is the place
        across, down, shift = np.ascontiguousarray(affines.transpose(1, 2, 0), np.float32)  # (2, M) each
        x, y = _cells()
        places = (
            across[axis].take(self._cells) * x + down[axis].take(self._cells) * y + shift[axis].take(self._cells)
            for axis in (0, 1)
        )
        # no crease along an edge of a triangle
        place_x, place_y = (
            np.asarray(cv2.GaussianBlur(one, (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE), np.float32)
            for one in places
        )
        return place_x, place_y


def corners_of(landmarks: npt.NDArray[Any], affine: Affine) -> Points:
    """(68, 2) landmarks of a picture → (76, 2) with the border of its square.

    Args:
        affine: from that picture to the square that the net sees at `GRID_PX`, which says where the border lies.
    """
    return np.vstack([landmarks, transform(_border(), invert(affine))])


@lru_cache(maxsize=1)
def _border() -> Points:
    return _BORDER * GRID_PX - 0.5


@lru_cache(maxsize=4)
def _triangles(coverage: float) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int16]]:
    """(M, 3) corners of each triangle, and which one covers each cell of the mean face."""
    points = np.vstack([crop_points(GRID_PX, coverage), _border()])
    found = Delaunay(points)
    cells = np.stack(np.meshgrid(np.arange(GRID_PX), np.arange(GRID_PX)), axis=-1)
    return found.simplices.astype(np.int32), np.maximum(found.find_simplex(cells), 0).astype(np.int16)


@lru_cache(maxsize=1)
def _cells() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """x (1, G) and y (G, 1) of the cells."""
    ticks = np.arange(GRID_PX, dtype=np.float32)
    return ticks[None, :], ticks[:, None]


def _inverse(corners: Points) -> Points:
    """(M, 3, 2) → (M, 3, 3): what undoes the rows (x, y, 1) of each triangle's corners; of one without area, which
    covers no cell, anything finite."""
    (ax, ay), (bx, by), (cx, cy) = corners[:, 0].T, corners[:, 1].T, corners[:, 2].T
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    area = np.where(np.abs(area) < 1e-6, 1.0, area)
    rows = [
        [by - cy, cy - ay, ay - by],
        [cx - bx, ax - cx, bx - ax],
        [bx * cy - cx * by, cx * ay - ax * cy, ax * by - bx * ay],
    ]
    return np.moveaxis(np.array(rows) / area, -1, 0)
