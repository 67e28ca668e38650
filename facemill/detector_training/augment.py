"""What a detector sees of a picture in training: a square window of it, changed in light, its boxes along with it.

Li et al. 2019, "DSFD", section 3.4 (improved anchor matching): with probability 2/5 data-anchor-sampling (Tang et al.
2018, PyramidBox, section 3.3), which brings a random face to the size of a random anchor and so makes more small faces
out of large ones; with 3/5 the changes of SSD (Liu et al. 2016, section 2.2): room around the picture, a crop with a
minimum overlap with some face. Both: brightness, contrast, saturation, hue, mirroring.

Windows are square, so that faces keep their shape, and are rendered straight from the picture: nothing is enlarged that
is cut away afterwards. Boxes are left, top, right, bottom edges in pixels. A picture, its boxes and the state of the
generator decide everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.detector_training.settings import Sampling
from facemill.pictures import RGB

Boxes = npt.NDArray[np.float32]
FILL_RGB = (123, 117, 104)
"""Colour outside the picture: ImageNet's mean, which the net subtracts."""
_INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_LANCZOS4)
_TRIES = 50
"""Windows that are tried for an overlap before another overlap is drawn (SSD's authors' code)."""
_LARGEST_WINDOW = 1 << 16


PLAIN = Sampling(anchor=0, crop=0, expand=0, flip=0, light=0)
"""The whole picture, letterboxed, nothing random but its place."""


@dataclass(frozen=True)
class Sample:
    """A square training picture and the faces that are to be found in it."""

    picture: RGB  # (P, P, 3)
    boxes_xyxy: Boxes  # (G, 4) faces to find, inside the picture


@dataclass(frozen=True)
class Window:
    """A square cut-out in the picture's pixels; may reach past the picture."""

    left: int
    top: int
    side: int
    interpolation: int | None = None  # None: by area when it shrinks, linear when it grows


def sample(
    picture: RGB,
    boxes_xyxy: Boxes,
    ignore: npt.NDArray[np.bool_],
    out_px: int,
    settings: Sampling,
    rng: np.random.Generator,
) -> Sample:
    """One training picture of `out_px` square.

    Args:
        picture: uint8 H×W×3, any size.
        boxes_xyxy: (G, 4) float32.
        ignore: (G,) faces that are neither to be found nor background: they are painted over.
        out_px: side of the net's input.
        settings: probabilities and ranges.
        rng: the only source of chance.
    """
    size_wh = picture.shape[1], picture.shape[0]
    shown = boxes_xyxy[~ignore]
    if len(shown) and rng.random() < settings.anchor:
        window = anchor_window(size_wh, shown[rng.integers(len(shown))], out_px, settings, rng)
    else:
        window = ssd_window(size_wh, shown, settings, rng)
    small, scale_xy, shift_xy = render(picture, window, out_px)
    boxes = (boxes_xyxy * np.tile(scale_xy, 2) + np.tile(shift_xy, 2)).astype(np.float32)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres >= 0) & (centres < out_px)).all(axis=1)
    boxes = boxes.clip(0, out_px)
    wanted = inside & ~ignore & ((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= settings.least_side_px)
    _paint_over(small, boxes[~wanted & (inside | ignore)], boxes[wanted])
    small = relight(small, settings, rng)
    boxes = boxes[wanted]
    if rng.random() < settings.flip:
        small, boxes = np.ascontiguousarray(small[:, ::-1]), mirrored(boxes, out_px)
    return Sample(small, boxes)


def anchor_window(
    size_wh: tuple[int, int],
    face_xyxy: npt.NDArray[np.float32],
    out_px: int,
    settings: Sampling,
    rng: np.random.Generator,
) -> Window:
    """Data-anchor-sampling: the window in which this face has about the size of a random anchor.

    The anchor is at most one step larger than the one nearest to the face's √area; the face lies in the window whole,
    where it fits, and the window in the picture, or the picture in the window, whichever is larger.
    """
    sizes = np.array(settings.anchor_sizes_px)
    side = float(np.sqrt(max(np.prod(face_xyxy[2:] - face_xyxy[:2]), 1.0)))
    nearest = int(np.abs(sizes - side).argmin())
    anchor = sizes[rng.integers(min(nearest + 1, len(sizes) - 1) + 1)]
    target = anchor * 2 ** rng.uniform(-settings.anchor_jitter, settings.anchor_jitter)
    window = int(np.clip(round(out_px * side / target), 1, _LARGEST_WINDOW))
    places = []
    for first, last, length in zip(face_xyxy[:2], face_xyxy[2:], size_wh, strict=True):
        low, high = sorted((float(last) - window, float(first)))
        low, high = _narrowed(low, high, *sorted((0.0, float(length - window))))
        places.append(round(rng.uniform(low, high)))
    return Window(places[0], places[1], window, int(rng.choice(_INTERPOLATIONS)))


def ssd_window(size_wh: tuple[int, int], boxes_xyxy: Boxes, settings: Sampling, rng: np.random.Generator) -> Window:
    """SSD's window: perhaps with room around the picture, perhaps a crop that overlaps some face enough."""
    size = np.array(size_wh, np.float64)
    corner = np.zeros(2)
    if rng.random() < settings.expand:
        whole = size * rng.uniform(1, settings.expand_most)
        corner, size = -rng.uniform(0, whole - size), whole
    if rng.random() < settings.crop:
        for least in rng.permutation(settings.crop_overlaps):
            sides = rng.uniform(*settings.crop_scale, _TRIES) * size.min()
            corners = corner + rng.random((_TRIES, 2)) * (size - sides[:, None])
            overlaps = _window_overlaps(corners, sides, boxes_xyxy)
            fitting = np.flatnonzero((overlaps >= least) & _holds_a_centre(corners, sides, boxes_xyxy))
            if len(fitting) or not len(boxes_xyxy):
                at = fitting[0] if len(fitting) else 0
                left, top = np.floor(corners[at])
                return Window(int(left), int(top), max(1, round(sides[at])))
    side = float(size.max())
    left, top = corner - rng.random(2) * (side - size)
    return Window(round(left), round(top), int(np.clip(np.ceil(side), 1, _LARGEST_WINDOW)))


def render(picture: RGB, window: Window, out_px: int) -> tuple[RGB, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The window's pixels at `out_px` square, `FILL_RGB` outside the picture, and the map of its coordinates.

    Returns:
        (P, P, 3) uint8; scale (2,) and shift (2,): a point of the picture lies at point · scale + shift.
    """
    height, width = picture.shape[:2]
    out = np.full((out_px, out_px, 3), FILL_RGB, np.uint8)
    zoom = out_px / window.side
    left, top = max(window.left, 0), max(window.top, 0)
    right, bottom = min(window.left + window.side, width), min(window.top + window.side, height)
    if right <= left or bottom <= top:
        return out, np.full(2, zoom), -np.array([window.left, window.top]) * zoom
    x0, y0 = round((left - window.left) * zoom), round((top - window.top) * zoom)
    x1, y1 = (max(round((right - window.left) * zoom), x0 + 1), max(round((bottom - window.top) * zoom), y0 + 1))
    x0, y0, x1, y1 = min(x0, out_px - 1), min(y0, out_px - 1), min(x1, out_px), min(y1, out_px)
    how = window.interpolation
    if how is None:
        how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    out[y0:y1, x0:x1] = cv2.resize(picture[top:bottom, left:right], (x1 - x0, y1 - y0), interpolation=how)
    # whole target pixels: the scale is that of the part which was really drawn, so boxes stay on their faces
    scale = np.array([(x1 - x0) / (right - left), (y1 - y0) / (bottom - top)])
    return out, scale, np.array([x0, y0]) - np.array([left, top]) * scale


def relight(picture: RGB, settings: Sampling, rng: np.random.Generator) -> RGB:
    """SSD's changes of light, each with probability `settings.light`; contrast before or after the colours."""
    contrast = 1 + rng.uniform(-settings.contrast, settings.contrast) if rng.random() < settings.light else 1.0
    brightness = rng.uniform(-settings.brightness, settings.brightness) if rng.random() < settings.light else 0.0
    saturation = 1 + rng.uniform(-settings.saturation, settings.saturation) if rng.random() < settings.light else 1.0
    hue = rng.uniform(-settings.hue_deg, settings.hue_deg) / 2 if rng.random() < settings.light else 0.0
    first, levels = rng.random() < 0.5, np.arange(256, dtype=np.float64)
    tables = [_table(levels + brightness), _table(levels * contrast)]
    out = cv2.LUT(picture, tables[0])
    if first:
        out = cv2.LUT(out, tables[1])
    if saturation != 1 or hue != 0:
        turned = np.round((levels[:180] + hue) % 180) % 180
        table = np.stack([np.append(turned, np.zeros(76)), (levels * saturation).clip(0, 255), levels], axis=1)
        hsv = cv2.LUT(cv2.cvtColor(out, cv2.COLOR_RGB2HSV), table.astype(np.uint8)[:, None])
        out = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return np.asarray(out if first else cv2.LUT(out, tables[1]), np.uint8)


def mirrored(boxes_xyxy: Boxes, width_px: int) -> Boxes:
    """The boxes after left and right were exchanged: W − right, W − left."""
    return np.stack(
        [width_px - boxes_xyxy[:, 2], boxes_xyxy[:, 1], width_px - boxes_xyxy[:, 0], boxes_xyxy[:, 3]], axis=1
    ).astype(np.float32)


def _paint_over(picture: RGB, boxes: Boxes, kept: Boxes) -> None:
    """Fills boxes in place, but no pixel of those that are kept."""
    if not len(boxes):
        return
    mask = np.zeros(picture.shape[:2], bool)
    for value, group in ((True, boxes), (False, kept)):
        for left, top, right, bottom in group:
            mask[int(top) : int(np.ceil(bottom)), int(left) : int(np.ceil(right))] = value
    picture[mask] = FILL_RGB


def _window_overlaps(corners: npt.NDArray[Any], sides: npt.NDArray[Any], boxes: Boxes) -> npt.NDArray[np.float64]:
    """(T, 2) corners and (T,) sides of windows -> (T,) largest IoU with a box; 0 without boxes."""
    low, high = corners[:, None], (corners + sides[:, None])[:, None]
    shared = (np.minimum(high, boxes[:, 2:]) - np.maximum(low, boxes[:, :2])).clip(0).prod(axis=2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    overlap: npt.NDArray[np.float64] = shared / (sides[:, None] ** 2 + areas - shared)
    best: npt.NDArray[np.float64] = overlap.max(axis=1, initial=0.0)
    return best


def _holds_a_centre(corners: npt.NDArray[Any], sides: npt.NDArray[Any], boxes: Boxes) -> npt.NDArray[np.bool_]:
    """(T,) whether the centre of some box lies in the window."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centres >= corners[:, None]) & (centres < (corners + sides[:, None])[:, None])
    held: npt.NDArray[np.bool_] = inside.all(axis=2).any(axis=1)
    return held


def _narrowed(low: float, high: float, least: float, most: float) -> tuple[float, float]:
    """The part of low…high within least…most; the nearest end where they do not meet."""
    low, high = max(low, min(least, high)), min(high, max(most, low))
    return (low, high) if low <= high else (low, low)


def _table(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    return np.round(levels).clip(0, 255).astype(np.uint8)
