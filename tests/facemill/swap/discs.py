"""A small world for finders: faces are squares of one colour on grey, and the colour is the identity."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from facemill.align import MEAN_FACE
from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.video import Frame

WANTED, OTHER = (200, 60, 60), (60, 60, 200)
SIZE = (240, 320)


class DiscWorld:
    """Faces are squares of one colour on grey; the colour is the identity, and the tools read it off the pixels."""

    def __init__(self) -> None:
        self.searches = self.embeddings = 0
        self.broken_at_search: int | None = None

    def search(self, picture: np.ndarray, min_face_px: float) -> np.ndarray:
        self.searches += 1
        if self.searches == self.broken_at_search:
            raise InputError(Reason.PROCESSING_ERROR)
        return self._boxes(picture)

    def near(self, picture: np.ndarray) -> np.ndarray:
        return self._boxes(picture)

    def landmarks(self, picture: np.ndarray, boxes: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        corner, side = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
        return np.asarray(corner + MEAN_FACE[None] * side)

    def embed(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        self.embeddings += 1
        x, y = np.clip(landmarks[0].mean(axis=0).round().astype(int), 0, np.array(picture.shape[1::-1]) - 1)
        return embedding(picture[y, x])

    def _boxes(self, picture: np.ndarray) -> np.ndarray:
        found = []
        for channel in (0, 2):
            ys, xs = np.nonzero(picture[..., channel].astype(int) - picture[..., 1] > 60)
            if len(xs):
                found.append([xs.min(), ys.min(), xs.max() + 1.0, ys.max() + 1.0])
        return np.asarray(found, float).reshape(-1, 4)


def embedding(colour: Any) -> np.ndarray:
    vector = np.zeros((1, 128), np.float32)
    vector[0, :3] = np.asarray(colour, float) / 128
    return vector


def frame(index: int, wanted: tuple[int, int, int] | None = None, other: tuple[int, int, int] | None = None) -> Frame:
    """`wanted` and `other`: x, y and side of the two faces."""
    rgb = np.full((*SIZE, 3), 110, np.uint8)
    for place, colour in ((wanted, WANTED), (other, OTHER)):
        if place:
            x, y, side = place
            rgb[y : y + side, x : x + side] = colour
    return Frame.from_rgb(rgb, index, Fraction(1, 25), pix_fmt="yuv444p")
