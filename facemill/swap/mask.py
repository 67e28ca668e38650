"""Where the new face replaces the old one: a soft mask from the landmarks, in the coordinates of the crop."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

FOREHEAD = 0.18  # how far above the brows the mask reaches, in heights of the 68-point box
TEMPLES = 0.06  # how far beyond the first and last points of the jaw line it reaches, where the arms of glasses are
_BROWS, _EYES = slice(17, 27), slice(36, 48)
_TEMPLES = [0, 1, 15, 16]


def face_mask(
    landmarks: npt.NDArray[Any], size_px: int, feather: float, jaw_feather: float | None = None
) -> npt.NDArray[np.float32]:
    """The hull of the face from chin to lower forehead, with a soft edge.

    Args:
        landmarks: (68, 2) in pixels of the upright, aligned crop.
        size_px: side of the crop.
        feather: width of the soft edge over the height of the landmarks' box, 0…0.5; 0 gives a hard edge.
        jaw_feather: the same below the eyes, where the jaw ends a face; above the brows, where hair and hats begin
            anywhere, it stays as wide as `feather`.

    Returns:
        float32 (size_px, size_px) in 0…1; 0 along the crop's border: a face that reaches past it leaves no seam.
    """
    points = np.asarray(landmarks, np.float64)
    height = max(1.0, float(np.ptp(points[:, 1])))
    feather_px = feather * height
    brows = points[_BROWS] - [0.0, FOREHEAD * height]
    temples = points[_TEMPLES] + TEMPLES * height * np.array([[-1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    hull = cv2.convexHull(np.vstack([points, brows, temples]).astype(np.float32))
    mask = np.zeros((size_px, size_px), np.uint8)
    # 4 fractional bits: a face that moves by half a pixel moves its mask by half a pixel
    cv2.fillConvexPoly(mask, np.rint(hull * 16).astype(np.int32), 255, lineType=cv2.LINE_AA, shift=4)
    inside = mask.astype(np.float32) / 255.0
    # The edge is pulled in before it is softened: beyond the jaw lies background that the net never learned.
    wide = feather_px if jaw_feather is None else _widths(points, size_px, feather_px, jaw_feather * height)
    inside *= _ramp(mask, wide)
    return np.asarray(inside * _window(size_px, max(1.0, min(feather_px, 0.06 * size_px))), np.float32)


def _widths(points: npt.NDArray[np.float64], size_px: int, feather_px: float, jaw_px: float) -> npt.NDArray[np.float32]:
    """(size_px, 1): the soft edge's width in each row, from the brows' to the jaw's."""
    eyes, brows = points[_EYES, 1].mean(), points[_BROWS, 1].mean()
    above = np.clip((eyes - np.arange(size_px)) / max(1.0, eyes - brows), 0.0, 1.0)
    return np.asarray(jaw_px + (feather_px - jaw_px) * above, np.float32)[:, None]


def _ramp(mask: npt.NDArray[np.uint8], feather_px: float | npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """0 at the hull's edge, rising smoothly to 1 over the feather, which may differ from row to row."""
    if np.max(feather_px) < 1:
        return np.ones(mask.shape, np.float32)
    depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return _smooth(np.asarray(depth / np.maximum(feather_px, 1.0), np.float32))


def _window(size_px: int, margin_px: float) -> npt.NDArray[np.float32]:
    edge = np.minimum(np.arange(size_px), np.arange(size_px)[::-1]) / margin_px
    side = _smooth(edge.astype(np.float32))
    return np.minimum(side[:, None], side[None, :])


def _smooth(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Smoothstep: no visible line where the edge begins or ends."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * (3.0 - 2.0 * x), np.float32)
