"""Sets the new face into the picture. Methods by the name that `params.yaml` uses.

A method sees the face's rectangle only (blending the whole frame costs seventeen times as much at 720p) and may change
nothing where the mask is 0.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from facemill.registry import Registry

RGB = npt.NDArray[np.uint8]
BlendMethod = Callable[[RGB, npt.NDArray[np.float32], npt.NDArray[np.float32]], RGB]

METHODS: Registry[BlendMethod] = Registry("blend method")
register = METHODS.register


def blend_method(name: str) -> BlendMethod:
    """The method of that name: `(picture, face, mask) -> picture` with a new array.

    `picture` is RGB uint8 h×w×3, `face` RGB float32 h×w×3 in 0…1, `mask` float32 h×w in 0…1.

    Raises:
        FacemillError: no such method; the message lists those there are.
    """
    return METHODS[name]


@register("feather")
def feather(picture: RGB, face: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]) -> RGB:
    """Mixes new face and picture, weighted by the soft mask: its edge is as soft as the mask's."""
    weight = mask[..., None]
    mixed = picture * (1.0 - weight) + (face * 255.0) * weight
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)


@register("poisson")
def poisson(picture: RGB, face: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]) -> RGB:
    """The new face's gradients on the old face's border (Pérez et al. 2003, "Poisson Image Editing"), then feathered.

    Hides differences of light that colour matching leaves; some fifteen times slower than `feather`.
    """
    solid = np.where(mask > 0.5, np.uint8(255), np.uint8(0))
    solid[[0, -1], :] = 0
    solid[:, [0, -1]] = 0
    if not solid.any():
        return feather(picture, face, mask)
    x, y, w, h = cv2.boundingRect(solid)
    new = np.clip(np.rint(face * 255.0), 0, 255).astype(np.uint8)
    # seamlessClone places the mask's bounding box around the centre it is given, and overwrites the mask
    cloned = cv2.seamlessClone(new, picture.copy(), solid.copy(), (x + w // 2, y + h // 2), cv2.NORMAL_CLONE)
    return feather(picture, cloned.astype(np.float32) / 255.0, mask)
