"""A mean face from sets of 68 landmarks: what crops are aligned to.

`align.MEAN_FACE` is one, of 230 faces of all kinds. For a dataset of other faces (children, one person, drawings) take
its own and hand it to `align.crop_affine`; crops, training and conversion of one model need the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.align import ALIGNED, procrustes, transform
from facemill.point_sets import mean_shape

Face = npt.NDArray[np.float64]


def mean_face(faces: npt.NDArray[Any]) -> Face:
    """(N, 68, 2) landmarks in any picture coordinates -> (68, 2), symmetric, upright, centred in the unit square.

    Generalised Procrustes analysis on the points that alignment uses (brows, nose, eyes, mouth); the mean is averaged
    with its mirror image in each round.

    Raises:
        ValueError: other shapes, NaN, or no face.
    """
    if np.ndim(faces) != 3 or np.shape(faces)[1:] != (68, 2):
        raise ValueError(f"faces: expected (N, 68, 2), got {np.shape(faces)}")
    return mean_shape(faces, by=ALIGNED, settle=lambda mean: in_unit_square(symmetric(mean)))


def symmetric(face: Face) -> Face:
    """(68, 2) averaged with its mirror image, turned so that the axis between them is vertical."""
    mirrored = (face * [-1, 1])[MIRRORED]
    half = (face + transform(mirrored, procrustes(mirrored, face))) / 2
    upright = procrustes(half[[27, 8]], np.array([[0.0, 0.0], [0.0, 1.0]]))  # bridge of the nose and chin
    turned = transform(half, upright)
    mean: Face = (turned + (turned * [-1, 1])[MIRRORED]) / 2
    return mean


def in_unit_square(face: Face) -> Face:
    """The face with its box centred on (0.5, 0.5) and the longer side 1."""
    low, high = face.min(axis=0), face.max(axis=0)
    placed: Face = (face - (low + high) / 2) / (high - low).max() + 0.5
    return placed


# fmt: off
MIRRORED = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]
# fmt: on
"""Which of the 68 points a point becomes in a mirrored picture."""
