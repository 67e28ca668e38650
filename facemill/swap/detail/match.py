"""Gives the new face as much fine detail as the old one had: a net with few pixels loses some, a GAN's has grain."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]

SIGMA_PX = 1.0  # of the net: the scale just above its own pixels
LEAST_DETAIL = 1e-4  # of 0…1; below it there is nothing to scale


def match_detail(new: Picture, old: Picture, mask: Picture, most: float, net_pixel: float = 1.0) -> Picture:
    """Scales what a Gaussian blur takes away so that its spread inside the mask is that of the old face.

    Args:
        new: RGB float32 H×W×3 in 0…1, in crop coordinates.
        old: as `new`, the face that is replaced.
        mask: float32 H×W in 0…1, the face.
        most: detail is multiplied by at most 1 + `most`; 0 leaves the face as it is, grain included.
        net_pixel: how many pixels of the pictures one of the net's is wide.
    """
    if most <= 0:
        return new
    sigma = SIGMA_PX * net_pixel
    soft = cv2.GaussianBlur(new, (0, 0), sigma)
    fine = new - soft
    wanted, found = (_spread(detail, mask) for detail in (old - cv2.GaussianBlur(old, (0, 0), sigma), fine))
    if found < LEAST_DETAIL:
        return new
    return np.asarray(np.clip(soft + min(wanted / found, 1 + most) * fine, 0.0, 1.0), np.float32)


def _spread(detail: Picture, mask: Picture) -> float:
    """Root of the mean square over the mask."""
    return float(np.sqrt((detail**2 * mask[..., None]).sum() / max(3 * mask.sum(), 1.0)))
