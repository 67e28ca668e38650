"""Scene cuts: where one frame to the next is another picture, so that nothing known of the last one holds."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

ANOTHER_LIGHT = 28.0
"""Mean change of brightness, 0…255, over a thumbnail; camera moves stay under 15."""
ANOTHER_PICTURE, LEAST_CHANGE = 0.4, 8.0
"""1 - correlation of the thumbnails, and the change of brightness from which on it counts: two dark scenes differ by
less than `ANOTHER_LIGHT`. Cuts on a dim stage have 0.74…0.99 at a change of 22…25; movement within the 15 clips that it
was set on stays under 0.16. Below the least change a nearly black picture is compared with its own noise."""
THUMBNAIL_PX = 32
Thumbnail = npt.NDArray[np.float32]  # (32, 32), 0…255


class CutDetector:
    """Compares each frame with the one before. Use one for one video."""

    def __init__(self) -> None:
        self._thumbnail: Thumbnail | None = None

    def is_cut(self, luma: npt.NDArray[np.uint8]) -> bool:
        """Whether a new scene starts with this frame; luma: its brightness, uint8 H×W. Never true of the first."""
        now = thumbnail(luma)
        before, self._thumbnail = self._thumbnail, now
        return before is not None and is_cut_between(before, now)


def is_cut_between(before: Thumbnail, now: Thumbnail) -> bool:
    """Whether a new scene starts between two neighbouring frames, by their thumbnails."""
    change = float(np.abs(now - before).mean())
    return change > ANOTHER_LIGHT or (change > LEAST_CHANGE and _correlation(before, now) < 1 - ANOTHER_PICTURE)


def thumbnail(luma: npt.NDArray[np.uint8]) -> Thumbnail:
    """The brightness of a frame, uint8 H×W, as it is compared with its neighbours'."""
    step = max(1, min(luma.shape) // 128)  # every pixel would cost more than finding the face
    coarse: Any = np.ascontiguousarray(luma[::step, ::step])
    size_wh = (THUMBNAIL_PX, THUMBNAIL_PX)
    return np.asarray(cv2.resize(coarse, size_wh, interpolation=cv2.INTER_AREA), np.float32)


def _correlation(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Pearson's, -1…1; 0 where one of them is flat."""
    a, b = first - first.mean(), second - second.mean()
    return float((a * b).sum() / max(1e-6, float(np.sqrt((a * a).sum() * (b * b).sum()))))
