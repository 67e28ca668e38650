"""Letterboxing: pictures of different sizes share one padded tensor, so that a net sees a full batch.

Pictures of nearly the same size go into one bucket; each lies at the top left of its canvas, unscaled, and the rest of
the canvas is black. Coordinates therefore need no mapping back. Padding must change no answer: the detector drops what
it finds there, and keeps the padding out of cells that straddle the picture's end (`PNet.forward` shows how).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Letterbox", "buckets"]

STEPS_PER_OCTAVE = 8
"""Bucket sizes between n and 2 n pixels: a side is padded by an eighth at most."""


@dataclass(frozen=True)
class Letterbox:
    """One bucket: which pictures lie in it, and how large the canvas is."""

    rows: tuple[int, ...]
    """Places of the bucket's pictures in the sequence that was given."""
    sizes_hw: tuple[tuple[int, int], ...]
    """Height and width of each in pixels."""

    @property
    def canvas_hw(self) -> tuple[int, int]:
        """The smallest canvas that holds each of them: fuller buckets waste nothing on their rounding."""
        return max(height for height, _ in self.sizes_hw), max(width for _, width in self.sizes_hw)

    def fill(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        """(B, H, W, 3) uint8, the bucket's pictures out of all `pictures`, padded with black at right and bottom."""
        height, width = self.canvas_hw
        canvas = np.zeros((len(self.rows), height, width, 3), np.uint8)
        for at, row in enumerate(self.rows):
            canvas[at, : pictures[row].shape[0], : pictures[row].shape[1]] = pictures[row]
        return canvas


def buckets(sizes_hw: Sequence[tuple[int, int]], *, max_pixels: int) -> Iterator[Letterbox]:
    """Letterboxes that together hold every picture once, each of at most `max_pixels` canvas pixels or one picture.

    Which pictures share a letterbox depends on the sizes and their order alone.
    """
    by_bucket: dict[tuple[int, int], list[int]] = {}
    for row, (height, width) in enumerate(sizes_hw):
        by_bucket.setdefault((_step(height), _step(width)), []).append(row)
    for (height, width), rows in sorted(by_bucket.items()):
        count = max(1, max_pixels // (height * width))
        for first in range(0, len(rows), count):
            part = rows[first : first + count]
            yield Letterbox(tuple(part), tuple(sizes_hw[row] for row in part))


def _step(size_px: int) -> int:
    """The size rounded up to one of STEPS_PER_OCTAVE bucket sizes between each power of two and the next."""
    step = max(1, (1 << (size_px - 1).bit_length()) // (2 * STEPS_PER_OCTAVE))
    return -(-size_px // step) * step
