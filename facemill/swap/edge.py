"""At its edge the new face takes the tone of the skin around it, while its fine detail ends sharply.

One soft edge for both shows either a seam (narrow) or two faces in one (wide). Tone is what changes slowly: it is mixed
over the wide edge and the rest over the narrow one, as in the multiresolution spline of Burt & Adelson (1983), with two
bands. What is no skin (the frame of glasses, a strand of hair, a background beside a narrower old face) lends nothing.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.float32]

SLOW = 0.06
"""Standard deviation of the blur that leaves tone, over the crop's side."""
UNUSUAL = 2.5
"""How many times the usual difference between the two faces a pixel may differ before it counts as no skin."""
_LEAST_DIFFERENCE = 0.01  # of 0…1: faces as alike as that


def toned(new: Picture, old: Picture, wide: Picture, narrow: Picture, skin: Picture) -> Picture:
    """The new face with the tone of the old one where the wide edge is about to end.

    Args:
        new: RGB (P, P, 3) in 0…1, in crop coordinates.
        old: likewise, what the frame shows there.
        wide: (P, P) in 0…1, the mask of tone.
        narrow: likewise, the mask of detail, which reaches further out.
        skin: likewise, where the old face is; beyond it the frame shows something else.

    Returns:
        (P, P, 3) in 0…1, a new array.
    """
    sigma = SLOW * len(new)
    apart = old - new
    inside = narrow > 0.5
    usual = float(np.median(np.abs(apart[inside]))) if inside.any() else 0.0
    unusual = np.sqrt(np.einsum("hwc,hwc->hw", apart, apart)) / (UNUSUAL * (usual + _LEAST_DIFFERENCE))
    counts = np.asarray(skin * (1.02 - wide) * np.exp(-0.5 * unusual * unusual), np.float32)
    tone = np.asarray(cv2.GaussianBlur(apart * counts[..., None], (0, 0), sigma), np.float32)
    amount = (1 - wide) / (np.asarray(cv2.GaussianBlur(counts, (0, 0), sigma), np.float32) + np.float32(1e-3))
    return np.asarray(np.clip(new + tone * amount[..., None], 0.0, 1.0), np.float32)
