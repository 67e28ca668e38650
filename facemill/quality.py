"""How good a face is for training, as numbers that `curate` sets limits on.

Sizes are taken from boxes in pixels of the original picture, sharpness from the aligned crop; pose is
`align.head_pose`.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

SHARPNESS_PX = 128
"""The face is brought to this size first, so that the measure means the same for every crop size."""


def sharpness(crop: npt.NDArray[np.uint8], coverage: float = 1.6) -> float:
    """Variance of the Laplacian of the grey face, from 0 (flat) up.

    A sharp portrait has hundreds, press photos of 100 px faces (LFW) 17–67, a portrait blurred by 3 px under 20. Only
    the middle of the crop is looked at, the face itself, so that a busy background does not count. A face smaller than
    SHARPNESS_PX was enlarged on the way and scores low, as it should: what matters is the detail that a net can see.
    Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy".

    Args:
        crop: RGB uint8, square.
        coverage: with which it was aligned.

    Raises:
        ValueError: another shape or type.
    """
    if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8 or min(crop.shape[:2]) < 1:
        raise ValueError(f"expected an RGB crop, uint8 H×W×3, got {crop.dtype} {crop.shape}")
    side = crop.shape[0]
    margin = round(side * (1 - 1 / max(coverage, 1.0)) / 2)
    face = crop[margin : side - margin, margin : side - margin]
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    interpolation = cv2.INTER_AREA if grey.shape[0] >= SHARPNESS_PX else cv2.INTER_LINEAR
    grey = cv2.resize(grey, (SHARPNESS_PX, SHARPNESS_PX), interpolation=interpolation)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def face_px(box_xyxy: npt.NDArray[Any]) -> float:
    """The shorter side of a box in pixels."""
    left, top, right, bottom = (float(edge) for edge in box_xyxy)
    return min(right - left, bottom - top)
