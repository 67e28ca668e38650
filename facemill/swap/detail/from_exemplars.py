"""Fine detail of a drawn face from real pictures of the same person: lashes, pores, teeth, the edge of an iris.

What a net of few pixels cannot hold is the difference between a picture and what the net makes of it. Each exemplar
travels with the net's own drawing (`exemplars.py`), so that difference is known for it: a net that draws well has
little left over, a small or young one much. It is brought to where the features lie in the frame and added to the new
face's brightness.

         exemplar − net's drawing of it         net's drawing of the frame
                  │ slow part taken off                   │
                  │ triangles (mesh.py)                   │
                  ▼                                       ▼
         detail × how alike both drawings are there ──► sum ──► as sharp as the frame, and no sharper

Light stays the frame's: what is slower than some of the net's pixels is taken off, and where the net's drawing of the
exemplar differs from what it drew for the frame (a shadow's edge, an open mouth, another gaze) little or nothing is
added. Colours stay the net's, since brightness alone is changed: a black-and-white film stays one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.align import Affine, compose, crop_affine, invert, scale_of, transform
from facemill.swap.detail.exemplars import Exemplars, Points
from facemill.swap.detail.focus import as_sharp_as
from facemill.swap.detail.mesh import GRID_PX, FaceMesh, corners_of
from facemill.swap.detail.path import REGIONS

Picture = npt.NDArray[np.float32]

SLOW = 2.0
"""Standard deviation, in the net's pixels, of the blur that is taken off the difference: light is slower."""
ALIKE, UNLIKE = 0.08, 0.25
"""Differences of brightness between two drawings at which all the detail is added, and none (0…1)."""
_CACHED = 48  # exemplars whose detail lies ready, a megabyte each
_DARK = np.float32(0.005)  # brightness that hardly differs from black
_LEAST_AMOUNT = 0.01  # of its detail in a cell; less is not seen
_LEAST_SHARE = 0.08  # of an exemplar, in a fade; less is not seen, and costs as much
_DETAIL_PX = 512  # side at which it lies ready: linear sampling of it is as sharp as cubic sampling of the crop


@dataclass(frozen=True)
class FrameChoice:
    """What one face of one frame takes: a row of `path.Choice`.

    Attributes:
        index: (3, K) exemplars for each of `path.REGIONS`.
        weight: (3, K) their shares.
        gain: (3,) how much detail.
    """

    index: npt.NDArray[np.int16]
    weight: npt.NDArray[np.float32]
    gain: npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Ready:
    detail: Picture  # (_DETAIL_PX, _DETAIL_PX): brightness that the net did not draw
    drawn: Picture  # (GRID_PX, GRID_PX, 2): brightness that it drew, in its own square; and what of that is light
    corners: Points  # of its mesh, in pixels of `detail`
    affine: Affine  # from pixels of `detail` to the net's square at GRID_PX


class ExemplarDetail:
    """Adds the detail of one person's exemplars to faces drawn by the net that they travelled with."""

    def __init__(self, exemplars: Exemplars, coverage: float) -> None:
        """
        Args:
            exemplars: of the person who is drawn.
            coverage: of the square that the net sees, see `facemill.align`.
        """
        self._exemplars, self._coverage = exemplars, coverage
        self._ready: OrderedDict[int, _Ready] = OrderedDict()

    def add(
        self,
        new: Picture,
        ground: npt.NDArray[np.uint8],
        weight: Picture,
        affine: Affine,
        face: Picture,
        landmarks: npt.NDArray[Any],
        choice: FrameChoice,
    ) -> Picture:
        """The new face with detail.

        Args:
            new: (h, w, 3) RGB in 0…1, the net's drawing brought to a rectangle of the frame.
            ground: (h, w, 3) RGB uint8, what the frame shows there.
            weight: (h, w) in 0…1, where the new face will be seen.
            affine: from the rectangle to the net's square of P pixels.
            face: (P, P, 3) RGB in 0…1, the net's drawing.
            landmarks: (68, 2) in the net's square, where the features lie in the drawing.
            choice: which exemplars.

        Returns:
            (h, w, 3) in 0…1, a new array, or `new` where there is nothing to add.
        """
        left, top, width, height = cv2.boundingRect((weight > 0).view(np.uint8))
        if not width or not (choice.gain > 0).any():
            return new
        box = (slice(top, top + height), slice(left, left + width))
        # the grid lies over the box, so that what is known of its cells is brought to pixels by plain enlarging
        across, down = width / GRID_PX, height / GRID_PX
        to_rectangle = np.array([[across, 0, (across - 1) / 2 + left], [0, down, (down - 1) / 2 + top]])
        zoom = GRID_PX / len(face)
        to_square = compose(np.array([[zoom, 0, (zoom - 1) / 2], [0, zoom, (zoom - 1) / 2]]), affine)
        to_square = compose(to_square, to_rectangle)
        points = transform((np.asarray(landmarks, np.float64) + 0.5) * zoom - 0.5, invert(to_square))
        brightness = _grey(new[box])
        detail = self._detail(brightness, points, to_square, choice)
        inside = np.ascontiguousarray(weight[box])
        seen = (inside > 0).astype(np.float32)
        detail *= seen  # what lies beside the face says nothing of its sharpness
        detail = as_sharp_as(detail, brightness, _grey(ground[box]), inside)
        detail *= seen
        out = new.copy()
        part = cv2.add(out[box], cv2.merge([detail, detail, detail]))
        out[box] = np.clip(part, 0.0, 1.0, out=part)
        return out

    def _detail(self, new: Picture, points: Points, to_square: Affine, choice: FrameChoice) -> Picture:
        """(h, w): brightness to be added to a new face of brightness (h, w).

        Args:
            points: (68, 2) where its features lie, in cells of the grid over it.
            to_square: from that grid to the square that the net sees, at `GRID_PX`.
        """
        mesh = FaceMesh(points, to_square, self._coverage)
        drawn = np.asarray(cv2.resize(new, (GRID_PX, GRID_PX), interpolation=cv2.INTER_AREA), np.float32)
        slow = _slow(drawn, 1 / scale_of(to_square))
        height, width = new.shape
        total = np.zeros_like(new)
        for number, share in self._shares(points, choice).items():
            ready = self._get(number)
            x, y = mesh.map_to(ready.corners)
            (ax, ay, shift_x), (bx, by, shift_y) = ready.affine.astype(np.float32)
            own = _sampled(ready.drawn, ax * x + ay * y + shift_x, bx * x + by * y + shift_y)
            amount = np.asarray(share * _alike(drawn, slow, own[..., 0], own[..., 1]), np.float32)
            left, top, across, down = cv2.boundingRect((amount > _LEAST_AMOUNT).view(np.uint8))
            if not across:
                continue
            # the pixels of these cells and of half a cell around them
            rows = slice(max(0, (top - 1) * height // GRID_PX), -(-(top + down + 1) * height // GRID_PX))
            columns = slice(max(0, (left - 1) * width // GRID_PX), -(-(left + across + 1) * width // GRID_PX))
            x, y, amount = (_enlarged(cells, (width, height))[rows, columns] for cells in (x, y, amount))
            cv2.accumulateProduct(_sampled(ready.detail, x, y), amount, total[rows, columns])
        return total

    def _shares(self, points: Points, choice: FrameChoice) -> dict[int, Picture]:
        """Exemplar → (GRID_PX, GRID_PX), how much of its detail there is to be."""
        shares: dict[int, Picture] = {}
        for region, index, weight, gain in zip(
            region_weights(points), choice.index, choice.weight, choice.gain, strict=True
        ):
            weight = np.where(weight < _LEAST_SHARE, 0, weight)
            for number, share in zip(index.tolist(), (gain * weight / weight.sum()).tolist(), strict=True):
                if share > 0:
                    shares[number] = shares.get(number, np.float32(0)) + np.float32(share) * region
        return shares

    def _get(self, number: int) -> _Ready:
        if number not in self._ready:
            self._ready[number] = self._prepared(number)
            if len(self._ready) > _CACHED:
                self._ready.popitem(last=False)
        self._ready.move_to_end(number)
        return self._ready[number]

    def _prepared(self, number: int) -> _Ready:
        crop, own, drawn = (
            self._exemplars.crop(number),
            self._exemplars.landmarks[number],
            self._exemplars.drawn[number],
        )
        size_wh = (_DETAIL_PX, _DETAIL_PX)
        zoom = _DETAIL_PX / len(crop)
        landmarks = (own + 0.5) * zoom - 0.5
        grey = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), size_wh, interpolation=cv2.INTER_CUBIC)
        small = _grey(drawn)
        affine = crop_affine(landmarks, len(small), self._coverage)
        large = cv2.warpAffine(
            small, affine, size_wh, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        left_over = grey.astype(np.float32) / 255 - large
        slow = cv2.GaussianBlur(left_over, (0, 0), SLOW / scale_of(affine))
        grid = np.asarray(cv2.resize(small, (GRID_PX, GRID_PX), interpolation=cv2.INTER_AREA), np.float32)
        to_grid = crop_affine(landmarks, GRID_PX, self._coverage)
        return _Ready(
            detail=np.asarray(left_over - slow, np.float32),
            drawn=np.dstack([grid, _slow(grid)]),
            corners=corners_of(landmarks, to_grid),
            affine=to_grid,
        )


def region_weights(points: Points) -> Picture:
    """(3, GRID_PX, GRID_PX): which part of the face is whose, in the order of `path.REGIONS`, summing to 1.

    Brows and eyes, and the mouth, reach a little beyond their points, with soft edges.
    """
    span = float(np.linalg.norm(points[45] - points[36]))
    parts = []
    for groups, reach in (
        (([*range(17, 22), *range(36, 42)], [*range(22, 27), *range(42, 48)]), 0.1),
        (([*range(48, 68)],), 0.12),
    ):
        part = np.zeros((GRID_PX, GRID_PX), np.float32)
        for group in groups:
            hull = cv2.convexHull(points[group].astype(np.float32))
            cv2.fillConvexPoly(part, np.rint(hull * 16).astype(np.int32), 1.0, shift=4)
        grow = 2 * round(reach * span) + 1
        wide = cv2.dilate(part, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow, grow)))
        parts.append(np.asarray(cv2.GaussianBlur(wide, (0, 0), max(0.05 * span, 0.5)), np.float32))
    eyes, mouth = parts
    mouth = mouth * (1 - eyes)
    assert REGIONS == ("rest", "eyes", "mouth")
    return np.stack([1 - eyes - mouth, eyes, mouth])


def _grey(picture: npt.NDArray[Any]) -> Picture:
    """Brightness in 0…1 of RGB, uint8 or float32."""
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32)
    return grey / np.float32(255) if picture.dtype == np.uint8 else grey


def _slow(drawn: Picture, cells: float = 1.0) -> Picture:
    """Light: what is smaller than a feature is taken off. `cells`: of the grid for one of the net's square's."""
    return np.asarray(cv2.GaussianBlur(drawn, (0, 0), cells * GRID_PX / 10), np.float32)


def _alike(drawn: Picture, slow: Picture, other: Picture, slow_other: Picture) -> Picture:
    """(G, G) how far an exemplar's detail belongs where its drawing and the frame's are `other` and `drawn`, at most 1;
    less where the frame's face is darker, as detail is a share of the light."""
    light = np.clip((slow + _DARK) / (slow_other + _DARK), 0.0, 1.5)
    apart = (drawn - slow) - (other - slow_other) * light
    away = np.sqrt(cv2.GaussianBlur(apart * apart, (0, 0), GRID_PX / 28))
    return np.asarray(light * np.clip((UNLIKE - away) * np.float32(1 / (UNLIKE - ALIKE)), 0, 1), np.float32)


def _sampled(picture: Picture, x: Picture, y: Picture) -> Picture:
    return np.asarray(cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def _enlarged(cells: Picture, size_wh: tuple[int, int]) -> Picture:
    return np.asarray(cv2.resize(cells, size_wh, interpolation=cv2.INTER_LINEAR), np.float32)
