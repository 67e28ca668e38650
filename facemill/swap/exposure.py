"""Faces in the dark: nets were trained on faces that can be seen, and draw anything but a face from a black crop.

A dim crop is brightened for the net and what it draws is dimmed again; in one that is black nobody can see a face, and
nothing is drawn into it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from facemill.pictures import RGB

BRIGHTEST = 98.0
"""Percentile that stands for the bright parts of a face: a reflex in an eye is no light on it."""
DIM = 90.0
"""Bright parts under this, of 255, are lifted to it; those of the sample people's darkest frames lie at 120."""
BLACK = 12.0
"""Under this there is noise and no face: lifted, it would be more than seven times as strong."""


def gain_of(crop: RGB) -> float | None:
    """By how much a crop, RGB uint8 H×W×3, is to be brightened for a net: 1 or more; None where nothing can be seen."""
    bright = float(np.percentile(crop.max(axis=2), BRIGHTEST))
    if bright < BLACK:
        return None
    return max(1.0, DIM / bright)


def brightened(crop: RGB, gain: float) -> RGB:
    """The crop with all its values multiplied, RGB uint8; what is too bright then is white."""
    if gain == 1.0:
        return crop
    return np.asarray(np.minimum(crop.astype(np.float32) * gain + 0.5, 255), np.uint8)


def dimmed(face: npt.NDArray[np.float32], gain: float) -> npt.NDArray[np.float32]:
    """What a net drew of a brightened crop, RGB float32 in 0…1, in the light of the crop as it was."""
    return face if gain == 1.0 else face / np.float32(gain)
