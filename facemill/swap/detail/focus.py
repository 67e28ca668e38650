"""A new face no sharper than the frame that it lies in.

How sharp a picture is shows in its finest edges. A frame far out of focus has none: what is found there is the rounding
to whole levels and the encoder's noise. So edges are looked at in smaller copies too, where noise has averaged out.
How strong those are differs from person to person as well; so there a new face may have as much more than the old one
as it has of its features, which a blur hardly touches.

    detail ─► detail blurred ─► nothing added ─► the drawing softened ─► softened more
       └── as far to the right as every scale asks for ──┘
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]
Sizes = npt.NDArray[np.float64]

SHARPER = 1.1
"""How much sharper than the old face the new one may be."""
SCALES = 3
"""How many copies have their edges looked at: the picture, and each half as large as the one before."""
FEATURES = 16
"""How many times smaller the picture is in which features are told."""
LEAST_PX, ENOUGH_PX = 6 * FEATURES, 9 * FEATURES
"""Side of a face's rectangle up to which features tell nothing, and from which on they tell all; in between ever more,
so that a face that grows is not softened at once."""
_SOFT_PX, _SOFTER_PX, _SOFTEST_PX = 1.5, 2.5, 5.0  # standard deviations of the blurs along the way
_NOTHING = 1e-5  # of edges; less is a flat picture


def as_sharp_as(detail: Picture, new: Picture, ground: Picture, weight: Picture) -> Picture:
    """What is added to a new face so that it is no sharper than the old one is in this frame.

    Args:
        detail: (h, w) brightness that would be added to the new face.
        new: (h, w) brightness in 0…1 of the new face, as the net drew it.
        ground: (h, w) the same of the frame there.
        weight: (h, w) in 0…1, where the new face will be seen.

    Returns:
        (h, w), the detail, softer detail, or what softens the drawing.
    """
    told = float(np.clip((min(new.shape) - LEAST_PX) / (ENOUGH_PX - LEAST_PX), 0, 1))
    look = _Edges(weight, SCALES if told else 1)
    wanted = SHARPER * look.sizes(look.of(ground))
    if told:
        features = _Edges(_shrunk(weight, FEATURES), 1)
        drawn, shown = (features.sizes(features.of(_shrunk(one, FEATURES)))[0] for one in (new, ground))
        wanted[1:] *= max(drawn / max(shown, _NOTHING), 1.0) / told
    wanted = np.maximum(wanted, _NOTHING)
    drawn_edges = look.of(new)
    here = detail
    found = look.sizes(drawn_edges, look.of(here))
    for softer in _SOFTER:
        if (found <= wanted).all():
            break
        further = softer(detail, new)
        then = look.sizes(drawn_edges, look.of(further))
        if (then <= wanted).all():
            # between two steps, as far as the strictest scale asks for
            share = float(np.clip(((found - wanted) / np.maximum(found - then, _NOTHING)).max(), 0, 1))
            return np.asarray(here + np.float32(share) * (further - here), np.float32)
        here, found = further, then
    return here


_SOFTER: tuple[Callable[[Picture, Picture], Picture], ...] = (
    lambda detail, _: _blurred(detail, _SOFT_PX),
    lambda _, new: np.zeros_like(new),
    lambda _, new: _blurred(new, _SOFTER_PX) - new,
    lambda _, new: _blurred(new, _SOFTEST_PX) - new,
)
"""Detail and drawing → what may be added instead, ever softer; each is made only where the one before is too sharp."""


class _Edges:
    """A picture's edges where a face is seen, at some scales."""

    def __init__(self, weight: Picture, scales: int) -> None:
        self._weights = _pyramid(weight, scales)
        self._totals = [max(float(np.vdot(one, one)), 1e-6) for one in self._weights]

    def of(self, brightness: Picture) -> list[Picture]:
        """The edges at each scale; those of a sum of pictures are the sum of theirs."""
        copies = _pyramid(brightness, len(self._weights))
        return [
            np.asarray(cv2.multiply(cv2.Laplacian(copy, cv2.CV_32F), weight), np.float32)
            for copy, weight in zip(copies, self._weights, strict=True)
        ]

    def sizes(self, *parts: Sequence[Picture]) -> Sizes:
        """(S,) root mean square at each scale of the edges of a sum of pictures."""
        return np.array(
            [
                np.sqrt(max(sum(np.vdot(one, other) for one in edges for other in edges), 0.0) / total)
                for edges, total in zip(zip(*parts, strict=True), self._totals, strict=True)
            ]
        )


def _pyramid(picture: Picture, scales: int) -> list[Picture]:
    copies = [picture]
    while len(copies) < scales:
        copies.append(_shrunk(copies[-1], 2))
    return copies


def _shrunk(picture: Picture, times: int) -> Picture:
    """Means of squares of `times` pixels; what is left over at the right and at the bottom is left out."""
    height, width = (side // times for side in picture.shape)
    whole = picture[: height * times, : width * times]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _blurred(picture: Picture, sigma_px: float) -> Picture:
    taps = 2 * round(3 * sigma_px) + 1  # OpenCV's own choice reaches four deviations, and takes twice the time
    return np.asarray(cv2.GaussianBlur(picture, (taps, taps), sigma_px), np.float32)
