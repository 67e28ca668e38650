"""A part of a frame at another scale: what costs time is done on the pixels that matter, at the size that serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from facemill.boxes import shorter_sides
from facemill.media.still_frame import region_of

Array = npt.NDArray[Any]

LANDMARK_FACE_PX, LANDMARK_REACH = 300, 2.2
LARGEST_ZOOM = 4.0


class Viewable(Protocol):
    """What can be looked at in parts: `facemill.video.Frame`, or a still picture as `Still`."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def pixel_ratio(self) -> float:
        """Width of a pixel over its height; 1 where they are square."""

    def region(
        self, box: tuple[float, float, float, float], scale: float | tuple[float, float] = 1.0
    ) -> tuple[npt.NDArray[np.uint8], tuple[int, int, int, int]]:
        """The RGB pixels that a box touches at a scale, and their rectangle; see `facemill.video.Frame.region`."""


def landmark_view(picture: Viewable, box: Array) -> View:
    """The part around a face's box (4,) as the landmark predictor should see it.

    dlib rounds its points to whole pixels: small faces are enlarged first, by four at most.
    """
    scale = min(LARGEST_ZOOM, max(1.0, LANDMARK_FACE_PX / float(shorter_sides(box[None])[0])))
    return View.of(picture, box, LANDMARK_REACH, scale)


@dataclass(frozen=True)
class View:
    """RGB uint8 h×w×3 (h or w is 0 where it lies outside the frame), and the way of coordinates there and back."""

    rgb: npt.NDArray[np.uint8]
    origin: Array  # x, y in the frame of its first pixel
    scale: Array  # its pixels for one of the frame's, in x and y

    @classmethod
    def of(cls, frame: Viewable, box: Array, reach: float, scale: float) -> View:
        """The square around a box (4,) xyxy, `reach` times its shorter side (the box itself where `reach` is 1).

        The view has square pixels: where the frame's are wider or higher, that side has more of them.
        """
        square = _square_pixels(frame)
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        if reach != 1.0:
            half = (half * square).min() * reach / square
        first, last = centre - half + 0.5, centre + half + 0.5
        zoom = (scale * square[0], scale * square[1])
        rgb, (x0, y0, x1, y1) = frame.region((first[0], first[1], last[0], last[1]), zoom)
        exact = np.array(rgb.shape[1::-1]) / np.maximum(1, [x1 - x0, y1 - y0])  # rounded to whole pixels
        return cls(rgb, np.array([x0, y0], float), exact)

    @classmethod
    def whole(cls, frame: Viewable, max_side_px: int) -> View:
        """The whole frame, made smaller where its longer side exceeds `max_side_px`."""
        box = np.array([0, 0, frame.width, frame.height]) - 0.5
        square = _square_pixels(frame)
        return cls.of(frame, box, 1.0, min(1.0, max_side_px / max(frame.width * square[0], frame.height * square[1])))

    def to_view(self, points: Array) -> Array:
        """Points or boxes of the frame as coordinates of the view; x and y in turn along the last axis."""
        pairs = np.asarray(points, float).reshape(-1, 2)
        return np.asarray(((pairs - self.origin + 0.5) * self.scale - 0.5).reshape(points.shape))

    def to_frame(self, points: Array) -> Array:
        """Points or boxes of the view as coordinates of the frame; x and y in turn along the last axis."""
        pairs = np.asarray(points, float).reshape(-1, 2)
        return np.asarray(((pairs + 0.5) / self.scale - 0.5 + self.origin).reshape(points.shape))


def _square_pixels(frame: Viewable) -> Array:
    """By how much x and y are to be stretched for the frame's pixels to be square; nothing is shrunk."""
    ratio = frame.pixel_ratio
    return np.array([max(1.0, ratio), max(1.0, 1 / ratio)])


@dataclass(frozen=True)
class Still:
    """A picture, RGB uint8 H×W×3, to be looked at like a frame."""

    rgb: npt.NDArray[np.uint8]
    pixel_ratio: float = 1.0

    @property
    def width(self) -> int:
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        return int(self.rgb.shape[0])

    def region(
        self, box: tuple[float, float, float, float], scale: float | tuple[float, float] = 1.0
    ) -> tuple[npt.NDArray[np.uint8], tuple[int, int, int, int]]:
        """RGB of the pixels that a box touches, and their rectangle, as `Frame.region` gives them."""
        return region_of(self.rgb, box, scale)
