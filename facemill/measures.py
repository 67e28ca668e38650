"""Numbers that say how good a swap is, of faces and pictures that are at hand; nothing here finds a face."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

from facemill import similarity
from facemill.embeddings import distance
from facemill.pictures import RGB

Item = TypeVar("Item")
CHANGE_BLOCK_PX, CHANGE_BLOCKS = 8, 4
_RIM, _FOREHEAD = (0.02, 0.15), 0.1  # depth inside the hull, and its reach above the brows, in heights of the face


def nearest(embedding: npt.NDArray[Any], references: npt.NDArray[Any]) -> float:
    """Euclidean distance of a 128-vector to the nearest of (N, 128) reference embeddings."""
    return float(distance(embedding[None], references).min())


def landmark_error(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    """Mean distance of 68×2 points, in % of the distance of the first's outer eye corners (points 36 and 45)."""
    eyes = float(np.linalg.norm(first[45].astype(np.float64) - first[36]))
    return 100.0 * fmean(np.linalg.norm(first.astype(np.float64) - second, axis=1).tolist()) / max(eyes, 1.0)


def flicker(
    before: Sequence[npt.NDArray[np.uint8]], after: Sequence[npt.NDArray[np.uint8]], where: npt.NDArray[np.bool_]
) -> float:
    """How much more a face trembles than the original: mean |x₋ − 2x + x₊| of brightness over time, as a ratio.

    Steady movement cancels out in the second difference. 1 is as calm as the original, 2 twice as restless. Originals
    calmer than half a level count as that calm, so that noise of encoding is no flicker.

    Args:
        before: three brightness planes in a row, H×W uint8.
        after: the same moments after the swap.
        where: H×W, the face.
    """
    restless = []
    for past, now, next_one in (before, after):
        moved = past[where].astype(np.float32) - 2.0 * now[where] + next_one[where]
        restless.append(float(np.abs(moved).mean()) if moved.size else 0.0)
    return max(restless[1], 0.5) / max(restless[0], 0.5)


def edges_left(before: RGB, after: RGB, landmarks: npt.NDArray[Any]) -> float:
    """How much of a replaced face's edges is still seen in a rim inside its outline: jowls, glasses, ends of brows.

    The slope by which the brightness gradients of the second picture follow those of the first; 1 where nothing was
    replaced, 0 where nothing of the old face can be told. The outline itself, which a new face may share, does not
    count.

    Args:
        before: RGB uint8 H×W×3; `after`: of the same size.
        landmarks: (68, 2) of the replaced face.
    """
    points = np.asarray(landmarks, np.float64)
    height = max(1.0, float(np.ptp(points[:, 1])))
    hull = cv2.convexHull(np.vstack([points, points[17:27] - [0.0, _FOREHEAD * height]]).astype(np.float32))
    face = np.zeros(before.shape[:2], np.uint8)
    cv2.fillConvexPoly(face, np.rint(hull * 16).astype(np.int32), 1, shift=4)
    depth = cv2.distanceTransform(face, cv2.DIST_L2, cv2.DIST_MASK_5) / height
    rim = (depth > _RIM[0]) & (depth < _RIM[1])
    old, new = (_gradients(picture)[:, rim] for picture in (before, after))
    return float((old * new).sum() / max(float((old * old).sum()), 1e-6))


def _gradients(picture: RGB) -> npt.NDArray[np.float32]:
    """(2, H, W): of the brightness, a pixel's noise taken off."""
    grey = cv2.GaussianBlur(np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.float32), (0, 0), 1.0)
    return np.stack([cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)])


def psnr_db(first: RGB, second: RGB, where: npt.NDArray[np.bool_] | None = None) -> float:
    """Peak signal-to-noise ratio of two RGB uint8 pictures of one size, over the pixels where `where` holds.

    Returns:
        dB, at most `facemill.similarity.PSNR_CAP_DB`, which equal pictures (and an empty `where`) get.

    Raises:
        ValueError: different sizes.
    """
    if first.shape != second.shape:
        raise ValueError(f"pictures must have one size, got {first.shape} and {second.shape}")
    squared = (first.astype(np.float32) - second) ** 2
    chosen = squared if where is None else squared[where]
    error = float(chosen.mean(dtype=np.float64)) if chosen.size else 0.0
    return float(similarity.psnr_db(torch.tensor(error / 255.0**2, dtype=torch.float64)))


def change(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8]) -> float:
    """How much two H×W brightness planes differ at their `CHANGE_BLOCKS` most different blocks, 0…255.

    Blocks are compared by their means: encoding noise nearly averages out, a new face does not.
    """
    if before.shape != after.shape:
        return 255.0
    height, width = before.shape
    size_wh = (max(1, width // CHANGE_BLOCK_PX), max(1, height // CHANGE_BLOCK_PX))
    blocks = cv2.resize(np.subtract(before, after, dtype=np.float32), size_wh, interpolation=cv2.INTER_AREA)
    most = np.sort(np.abs(blocks), axis=None)[-CHANGE_BLOCKS:]
    return float(most[0])


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """Up to `count` of the items, evenly spread, in their order: the middles of `count` equal stretches."""
    if len(items) <= count:
        return list(items)
    return [items[int((n + 0.5) * len(items) / count)] for n in range(count)]
