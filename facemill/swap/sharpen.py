"""Gives back some of the edge that a net with few pixels loses."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

SIGMA_PX = 1.0  # of the crop: the scale just above the net's own pixels


def sharpen(face: npt.NDArray[np.float32], amount: float) -> npt.NDArray[np.float32]:
    """Unsharp masking: adds `amount` times what a Gaussian blur takes away.

    Args:
        face: RGB float32 H×W×3 in 0…1, in crop coordinates.
        amount: 0 leaves the face as it is.
    """
    if amount <= 0:
        return face
    soft = cv2.GaussianBlur(face, (0, 0), SIGMA_PX)
    return np.asarray(np.clip(face + amount * (face - soft), 0.0, 1.0), np.float32)
