"""A world with known truth: grainy squares of a pure hue on grey, and a detector that finds them by their hue."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import cv2
import numpy as np

from facemill.boxes import HOG_BOXES
from facemill.detect import Faces
from facemill.video import Frame

SIZE_HW = (240, 320)
RED, GREEN, BLUE = 0, 1, 2
Place = tuple[float, float, float]  # x, y, side


def picture(faces: dict[int, Place], ground: int = 110) -> np.ndarray:
    """RGB with one square for each hue of `faces`, at subpixel places."""
    rgb = np.full((*SIZE_HW, 3), ground, np.float32)
    for hue, (x, y, side) in faces.items():
        grain = np.random.default_rng(hue).uniform(0, 1, (12, 12)).astype(np.float32)
        texture = cv2.resize(grain, (96, 96), interpolation=cv2.INTER_CUBIC)[..., None] * 120
        texture = texture + np.where(np.arange(3) == hue, 135, 0)
        to_patch = np.array([[side / 96, 0, x + side / 192 - 0.5], [0, side / 96, y + side / 192 - 0.5]])
        size_wh = SIZE_HW[::-1]
        patch = cv2.warpAffine(texture.astype(np.float32), to_patch, size_wh, flags=cv2.INTER_LINEAR)
        inside = cv2.warpAffine(np.ones((96, 96), np.float32), to_patch, size_wh)[..., None] > 0.5
        rgb = np.where(inside, patch, rgb)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def frames(places: Sequence[dict[int, Place]], rate: int = 25, pts: Sequence[int] | None = None) -> list[Frame]:
    """One frame for each entry, `rate` a second or at the given pts (of the same clock)."""
    times = pts or range(len(places))
    return [
        Frame.from_rgb(picture(faces), at, Fraction(1, rate), pix_fmt="yuv444p")
        for faces, at in zip(places, times, strict=True)
    ]


class HueDetector:
    """Boxes of the regions in which one channel stands out. Counts what it is asked."""

    name, box_convention = "hue", HOG_BOXES

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.broken: set[int] = set()  # pictures, counted through all calls, that it cannot bear
        self.blind: set[int] = set()  # pictures in which it sees nothing

    def detect(self, pictures: Sequence[np.ndarray]) -> list[Faces]:
        asked = range(sum(self.calls), sum(self.calls) + len(pictures))
        if len(pictures) == 1 and sum(self.calls) in self.broken:
            self.calls.append(1)
            raise RuntimeError("a broken picture")
        if len(pictures) > 1 and self.broken & set(asked):
            raise RuntimeError("one of these is broken")
        self.calls.append(len(pictures))
        return [
            Faces.empty() if at in self.blind else self._one(picture)
            for at, picture in zip(asked, pictures, strict=True)
        ]

    def _one(self, picture: np.ndarray) -> Faces:
        values = picture.astype(int)
        boxes = []
        for hue in (RED, GREEN, BLUE):
            others = np.delete(values, hue, axis=2).max(axis=2)
            ys, xs = np.nonzero(values[..., hue] - others > 60)
            if len(xs) > 200:
                boxes.append([xs.min(), ys.min(), xs.max(), ys.max()])
        if not boxes:
            return Faces.empty()
        return Faces(np.array(boxes, np.float32), np.linspace(1, 0.9, len(boxes), dtype=np.float32))
