"""How good a face is for training, as numbers that `curate` sets limits on, and how much of it is to be seen.

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

PROFILE_DEG, TURNED_DEG = 90.0, 60.0
"""Yaw from which on a face is past profile, in which 68 points mean nothing, and up to which all of it is there."""
LEAST_VISIBLE = 0.6
"""Visibility under which too little of a face is there to train on or to measure."""
MOST_DOUBT = 0.1
"""Doubt (`facemill.landmarks.doubt`) over which landmarks are not to be trusted. Of 86 open faces 1 has more. With a
bar across the face dlib fails on 23 of them: 11 have more, and 1 of those on which it does not fail. A patch over a
quarter of the face is seldom noticed: of 9 that fail 2 have more."""
LEAST_PRESENCE = 6.0
"""Presence, a logit, under which landmarks of a predictor that tells it (mesh) are not to be trusted: of 86 open faces
none has less, with a bar across the face 9, among them the 4 on which the mesh fails."""


def visibility(
    points: npt.NDArray[Any], yaw_deg: npt.NDArray[Any], size_wh: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """(N, 68, 2) landmarks and (N,) yaw -> (N,) 0…1: the share of the points that lie in the picture, less where the
    head is turned to a profile, 0 where its turn is not known (NaN). What covers a face is not seen here."""
    inside = ((points >= 0) & (points <= size_wh - 1)).all(axis=2).mean(axis=1)
    frontal = np.clip((PROFILE_DEG - np.abs(yaw_deg)) / (PROFILE_DEG - TURNED_DEG), 0, 1)
    return np.asarray(inside * np.nan_to_num(frontal), np.float32)


def are_trusted(
    yaw_deg: npt.NDArray[Any], doubt: npt.NDArray[Any], presence: npt.NDArray[Any]
) -> npt.NDArray[np.bool_]:
    """(N,) each -> (N,): whether landmarks are to be trusted, by the limits above: short of past profile, and found
    where they were when looked for again. A yaw of NaN, which points do not give, is past it; NaN in the others is not
    known and speaks for nothing."""
    turned = np.abs(np.asarray(yaw_deg, np.float64))
    return np.asarray((turned < PROFILE_DEG) & ~(doubt > MOST_DOUBT) & ~(presence < LEAST_PRESENCE), np.bool_)


def is_seen(visible: float | None, doubt: float | None, presence: float | None) -> bool:
    """Whether enough of a face is there, and its landmarks are to be trusted, by the limits above; what is None is not
    known and speaks for nothing."""
    return (
        (visible is None or visible >= LEAST_VISIBLE)
        and (doubt is None or doubt <= MOST_DOUBT)
        and (presence is None or presence >= LEAST_PRESENCE)
    )


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
