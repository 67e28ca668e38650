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
from facemill.swap.detail.mesh import GRID_PX, FaceMesh
from facemill.swap.detail.path import REGIONS

Picture = npt.NDArray[np.float32]

SLOW = 2.0
"""Standard deviation, in the net's pixels, of the blur that is taken off the difference: light is slower."""
ALIKE, UNLIKE = 0.08, 0.25
"""Differences of brightness between two drawings at which all the detail is added, and none (0…1)."""
SHARPER = 1.1
"""How much sharper than the old face the new one may be."""
_CACHED = 48  # exemplars whose detail lies ready, a megabyte each
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
    drawn: Picture  # (GRID_PX, GRID_PX): brightness that it drew, in its own square
    slow: Picture  # the same without what is smaller than a feature: light
    landmarks: Points  # in pixels of `detail`
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
        rows, columns = np.flatnonzero(weight.any(axis=1)), np.flatnonzero(weight.any(axis=0))
        if not len(rows) or not (choice.gain > 0).any():
            return new
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        zoom = GRID_PX / len(face)
        to_grid = compose(np.array([[zoom, 0, (zoom - 1) / 2], [0, zoom, (zoom - 1) / 2]]), affine)
        to_grid = compose(to_grid, np.array([[1.0, 0.0, columns[0]], [0.0, 1.0, rows[0]]]))
        points = (np.asarray(landmarks, np.float64) + 0.5) * zoom - 0.5
        detail = self._detail(face, points, to_grid, new[box].shape[:2], choice)
        detail = _as_sharp_as(detail * (weight[box] > 0), new[box], ground[box], weight[box]) * (weight[box] > 0)
        out = new.copy()
        np.clip(out[box] + detail[..., None], 0.0, 1.0, out=out[box])
        return out

    def _detail(
        self, face: Picture, points: Points, to_grid: Affine, shape: tuple[int, ...], choice: FrameChoice
    ) -> Picture:
        """(h, w): brightness to be added."""
        mesh = FaceMesh(points, self._coverage)
        drawn = np.asarray(cv2.resize(_grey(face), (GRID_PX, GRID_PX), interpolation=cv2.INTER_AREA), np.float32)
        slow = _slow(drawn)
        total = np.zeros(shape, np.float32)
        for number, share in self._shares(points, choice).items():
            if (box := _box(share, to_grid, shape)) is None:
                continue
            ready = self._get(number)
            place = mesh.map_to(ready.landmarks, ready.affine)
            own = np.asarray(cv2.transform(place, ready.affine.astype(np.float32)), np.float32)
            amount = share * _alike(drawn, slow, _sampled(ready.drawn, own), _sampled(ready.slow, own))
            # one warp brings the map and the amount from the grid to the frame's pixels
            fine = cv2.warpAffine(
                np.dstack([place, amount]),
                compose(to_grid, np.array([[1.0, 0.0, box[1].start], [0.0, 1.0, box[0].start]])),
                (box[1].stop - box[1].start, box[0].stop - box[0].start),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            total[box] += _sampled(ready.detail, fine[..., :2]) * fine[..., 2]
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
        return _Ready(
            detail=np.asarray(left_over - slow, np.float32),
            drawn=grid,
            slow=_slow(grid),
            landmarks=landmarks,
            affine=crop_affine(landmarks, GRID_PX, self._coverage),
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
    grey = np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), np.float32)
    return grey / np.float32(255) if picture.dtype == np.uint8 else grey


def _slow(drawn: Picture) -> Picture:
    return np.asarray(cv2.GaussianBlur(drawn, (0, 0), GRID_PX / 10), np.float32)


def _alike(drawn: Picture, slow: Picture, other: Picture, slow_other: Picture) -> Picture:
    """(G, G) how far an exemplar's detail belongs where its drawing and the frame's are `other` and `drawn`, at most 1;
    less where the frame's face is darker, as detail is a share of the light."""
    light = np.clip((slow + 0.03) / (slow_other + 0.03), 0.3, 1.5)
    apart = (drawn - slow) - (other - slow_other) * light
    away = np.sqrt(cv2.GaussianBlur(apart * apart, (0, 0), GRID_PX / 28))
    return np.asarray(light * np.clip((UNLIKE - away) / (UNLIKE - ALIKE), 0, 1), np.float32)


def _box(share: Picture, to_grid: Affine, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Rows and columns of a rectangle of that shape that hold all cells with a share; None where there are none."""
    rows, columns = np.flatnonzero(share.max(axis=1) > 0.01), np.flatnonzero(share.max(axis=0) > 0.01)
    if not len(rows):
        return None
    (x0, x1), (y0, y1) = columns[[0, -1]] + [-1, 1], rows[[0, -1]] + [-1, 1]
    # what lies at the grid's edge goes on beyond it
    x0, x1 = (x0 if x0 >= 0 else -GRID_PX), (x1 if x1 < GRID_PX else 2 * GRID_PX)
    y0, y1 = (y0 if y0 >= 0 else -GRID_PX), (y1 if y1 < GRID_PX else 2 * GRID_PX)
    corners = transform(np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]), invert(to_grid))
    low, high = np.floor(corners.min(axis=0)).astype(int), np.ceil(corners.max(axis=0)).astype(int) + 1
    top, bottom = np.clip([low[1], high[1]], 0, shape[0]).tolist()
    left, right = np.clip([low[0], high[0]], 0, shape[1]).tolist()
    return (slice(top, bottom), slice(left, right)) if bottom > top and right > left else None


def _as_sharp_as(detail: Picture, new: Picture, ground: npt.NDArray[np.uint8], weight: Picture) -> Picture:
    """The detail, softened where with it the new face would be sharper than the old one is in this frame."""
    total = max(float(np.vdot(weight, weight)), 1e-6)

    def spread(brightness: Picture) -> float:
        edges = cv2.Laplacian(brightness, cv2.CV_32F) * weight
        return float(np.sqrt(np.vdot(edges, edges) / total))

    wanted = SHARPER * spread(_grey(ground))
    smooth = _grey(new)
    if (found := spread(smooth + detail)) <= wanted or found < 1e-5:
        return detail
    soft = np.asarray(cv2.GaussianBlur(detail, (0, 0), 1.5), np.float32)
    if (softer := spread(smooth + soft)) < wanted:
        return np.asarray(soft + (wanted - softer) / (found - softer) * (detail - soft), np.float32)
    if (drawn := spread(smooth)) < wanted:
        return np.asarray((wanted - drawn) / max(softer - drawn, 1e-6) * soft, np.float32)
    # out of focus: even what the net drew is too sharp
    return np.asarray((1 - wanted / drawn) * (cv2.GaussianBlur(smooth, (0, 0), 2.5) - smooth), np.float32)


def _sampled(picture: Picture, place: npt.NDArray[Any]) -> Picture:
    x, y = (np.ascontiguousarray(place[..., axis], np.float32) for axis in (0, 1))
    return np.asarray(cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
