"""A still picture as the frame of a video: RGB as people see it, and a list of what was painted into it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.pictures import RGB
from facemill.video import Frame


@dataclass(frozen=True)
class Change:
    """A rectangle that was painted.

    Attributes:
        origin: x, y of its first pixel.
        old, new: RGB uint8 h×w×3, as it was and as it is.
        changed: h×w, true where a pixel is another one.
    """

    origin: tuple[int, int]
    old: RGB
    new: RGB
    changed: npt.NDArray[np.bool_]


class StillFrame(Frame):
    """The one frame of a still picture: upright, in sRGB, on white where it is transparent, at 0 s.

    Attributes:
        changes: what was painted, in this order; the rest of the picture is as it was.
    """

    def __init__(self, rgb: RGB) -> None:
        """`rgb`: uint8 H×W×3, which is painted into."""
        self._rgb = rgb
        self.changes: list[Change] = []
        self.pts, self.duration, self.time_base, self.pixel_ratio = 0, 0, Fraction(1), 1.0

    @property
    def width(self) -> int:
        return int(self._rgb.shape[1])

    @property
    def height(self) -> int:
        return int(self._rgb.shape[0])

    @property
    def size_bytes(self) -> int:
        return self._rgb.nbytes

    @cached_property
    def rgb(self) -> RGB:
        return self._rgb

    @property
    def luma(self) -> npt.NDArray[np.uint8]:
        """The brightness, uint8 H×W, read-only."""
        grey = np.asarray(cv2.cvtColor(self._rgb, cv2.COLOR_RGB2GRAY), np.uint8)
        grey.flags.writeable = False
        return grey

    def region(
        self, box: tuple[float, float, float, float], scale: float | tuple[float, float] = 1.0
    ) -> tuple[RGB, tuple[int, int, int, int]]:
        return region_of(self._rgb, box, scale)

    def paste(self, rgb: RGB, origin: tuple[int, int], changed: npt.NDArray[np.bool_]) -> None:
        if not changed.any():
            return
        x, y = origin
        place = self._rgb[y : y + rgb.shape[0], x : x + rgb.shape[1]]
        old = place.copy()
        np.copyto(place, rgb, where=changed[:, :, None])
        self.changes.append(Change(origin, old, place.copy(), changed))


def region_of(
    rgb: RGB, box: tuple[float, float, float, float], scale: float | tuple[float, float] = 1.0
) -> tuple[RGB, tuple[int, int, int, int]]:
    """The pixels of a picture that a box touches at a scale, and their rectangle, as `Frame.region` gives them."""
    limits = np.array([rgb.shape[1], rgb.shape[0]] * 2)
    x0, y0, x1, y1 = np.clip([*np.floor(box[:2]), *np.ceil(box[2:])], 0, limits).astype(int).tolist()
    part: Any = rgb[y0 : max(y0, y1), x0 : max(x0, x1)]
    zoom = scale if isinstance(scale, tuple) else (scale, scale)
    if zoom != (1.0, 1.0) and part.size:
        size_wh = (max(1, round((x1 - x0) * zoom[0])), max(1, round((y1 - y0) * zoom[1])))
        part = cv2.resize(part, size_wh, interpolation=cv2.INTER_AREA if max(zoom) < 1 else cv2.INTER_CUBIC)
    return part.copy(), (x0, y0, x1, y1)
