"""Brings a coarse mask to the edges of a picture: the guided filter (He, Sun & Tang 2010, "Guided Image Filtering").

In each window the mask is taken to be a linear function of the picture's colours; what the windows say of a pixel is
averaged. Box filters do it, so that its cost does not depend on the window.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]


def guided(mask: Picture, picture: npt.NDArray[np.uint8], radius_px: int, smooth: float = 1e-3) -> Picture:
    """The mask with the picture's edges.

    Args:
        mask: (h, w) in 0…1.
        picture: (h, w, 3) RGB uint8.
        radius_px: of the window.
        smooth: variance of a channel in 0…1 that counts as an edge.

    Returns:
        (h, w) in 0…1.
    """
    size = (2 * radius_px + 1, 2 * radius_px + 1)

    def mean(values: Picture) -> Picture:
        return np.asarray(cv2.blur(values, size), np.float32)

    colours = picture.astype(np.float32) / np.float32(255)
    red, green, blue = (np.ascontiguousarray(colours[..., channel]) for channel in range(3))
    means = mean(colours)
    # covariance of the channels: six different entries of a symmetric 3×3 matrix a pixel
    squares = mean(np.dstack([red * red, green * green, blue * blue]))
    products = mean(np.dstack([red * green, red * blue, green * blue]))
    rr, gg, bb = np.moveaxis(squares - means * means + np.float32(smooth), 2, 0)
    rg = products[..., 0] - means[..., 0] * means[..., 1]
    rb = products[..., 1] - means[..., 0] * means[..., 2]
    gb = products[..., 2] - means[..., 1] * means[..., 2]
    mask_mean = mean(mask)
    along = mean(colours * mask[..., None]) - means * mask_mean[..., None]
    # the symmetric system solved by cofactors
    c00, c01, c02 = gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg
    c11, c12, c22 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = np.maximum(rr * c00 + rg * c01 + rb * c02, 1e-12)
    x, y, z = np.moveaxis(along, 2, 0)
    slopes = np.dstack([c00 * x + c01 * y + c02 * z, c01 * x + c11 * y + c12 * z, c02 * x + c12 * y + c22 * z])
    slopes = slopes / determinant[..., None]
    offsets = mask_mean - (slopes * means).sum(axis=2)
    found = (mean(slopes) * colours).sum(axis=2) + mean(offsets)
    return np.asarray(np.clip(found, 0.0, 1.0), np.float32)
