"""The pixels of a still picture as its file has them: their own colours, bits and transparency, upright.

What was painted is put there as a difference: painted colours are those of sRGB on white, and what they changed there
is what changes here. So nothing is lost of deep pixels, of colours that sRGB does not have, or of what shines through.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.deep_pictures import used_range, wide_pixels
from facemill.errors import InputError
from facemill.media.still_frame import Change
from facemill.picture_headers import read_jpeg
from facemill.pictures import (
    RGB,
    colour_transform,
    decode,
    open_with_pillow,
    orientation_of,
    turned,
)
from facemill.reasons import Reason

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]
LEAST_ALPHA = 64  # of 255: what shines through more would have to change by more than four times as much


@dataclass
class OwnPixels:
    """Attributes:
    colours: uint8 or uint16, H×W (grey) or H×W×3 (RGB), upright.
    alpha: of the same type, H×W; None where nothing is transparent.
    full: the value of full brightness, see `facemill.pictures.used_range`.
    profile: the ICC profile that says what the colours are; empty for sRGB.
    transposed: whether width and height of the stored picture were the other way round.
    notes: what of the source's pixels could not be kept, in words.
    """

    colours: Array
    alpha: Array | None = None
    full: int = 255
    profile: bytes = b""
    transposed: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def deep(self) -> bool:
        """Whether there are 16 bits for a value."""
        return bool(self.colours.dtype == np.uint16)

    def paint(self, changes: Sequence[Change]) -> None:
        """Puts what was painted into the colours."""
        turn = _Turn(self.profile, grey=self.colours.ndim == 2)
        for change in changes:
            x, y = change.origin
            rows, columns = slice(y, y + change.old.shape[0]), slice(x, x + change.old.shape[1])
            step = (turn.own(change.new).astype(np.float32) - turn.own(change.old)) * (self.full / 255)
            changed = change.changed
            if self.alpha is not None:
                alpha = self.alpha[rows, columns].astype(np.float32) * (255 / np.iinfo(self.alpha.dtype).max)
                changed = changed & (alpha > 0)
                seen = np.maximum(alpha, LEAST_ALPHA) / 255
                step /= seen if step.ndim == 2 else seen[:, :, None]
            place = self.colours[rows, columns]
            painted = np.clip(np.rint(place + step), 0, self.full).astype(place.dtype)
            np.copyto(place, painted, where=changed if place.ndim == 2 else changed[:, :, None])


def own_pixels(data: bytes, kind: str) -> OwnPixels:
    """Decodes a picture that `facemill.pictures.decode` has decoded.

    Raises:
        InputError: DAMAGED, where the decoder that keeps everything sees it otherwise.
    """
    orientation = orientation_of(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is an error, or no harm
            found = _deep_pixels(data, kind) or _plain_pixels(data, kind)
    except InputError:
        raise
    except Exception as error:  # decoders raise whatever they like
        raise InputError(Reason.DAMAGED, f"{error!s:.200}" or type(error).__name__) from error
    if found is None:
        return OwnPixels(np.array(decode(data)), transposed=False, notes=["its colours became those of sRGB"])
    found.transposed = orientation >= 5
    if kind == "tiff":  # each decoder turns it as it loads it
        orientation = 1
    found.colours = np.array(turned(found.colours, orientation), order="C")  # a copy, to paint on
    if found.alpha is not None:
        found.alpha = np.array(turned(found.alpha, orientation), order="C")
    return found


def _deep_pixels(data: bytes, kind: str) -> OwnPixels | None:
    """Of PNG and TIFF with 16 bits for a value; None for all others."""
    if kind not in ("png", "tiff"):
        return None
    picture = open_with_pillow(data, kind)
    pixels = wide_pixels(data, kind, picture)
    if pixels is None:
        return None
    alpha = None
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        alpha = pixels[:, :, 3]
        grey = kind == "png" and data[25] in (0, 4)
        pixels = pixels[:, :, 0] if grey else pixels[:, :, :3]
    elif pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return OwnPixels(pixels, alpha, used_range(pixels), picture.info.get("icc_profile") or b"")


def _plain_pixels(data: bytes, kind: str) -> OwnPixels | None:
    """Of all with 8 bits for a value; None where colours are of a kind that has to become sRGB."""
    if kind == "jpeg":
        jpeg = read_jpeg(data)
        if jpeg.components not in (1, 3):
            return None
        picture, profile = open_with_pillow(jpeg.tidy, kind), jpeg.icc
    else:
        picture = open_with_pillow(data, kind)
        profile = picture.info.get("icc_profile") or b""
    notes = []
    if kind == "avif" and (place := data.find(b"av1C")) >= 0 and data[place + 6] & 0x40:
        notes.append("more than 8 bits a channel became 8")
    picture.load()
    mode = picture.mode
    if mode == "P" or mode == "PA":
        notes.append("its palette became full colours")
    elif mode == "1":
        notes.append("its black and white became grey")
    alpha = None
    if mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        full: Image = picture.convert("RGBA")
        alpha = np.asarray(full.getchannel("A"))
        picture = picture if mode == "L" else picture.getchannel("L") if mode == "LA" else full.convert("RGB")
    elif mode == "P":
        picture = picture.convert("RGB")
    elif mode == "1":
        picture = picture.convert("L")
    if picture.mode not in ("L", "RGB"):
        return None
    return OwnPixels(np.asarray(picture), alpha, 255, profile, notes=notes)


class _Turn:
    """From sRGB to a picture's own colours, as far as a profile says what they are."""

    def __init__(self, profile: bytes, *, grey: bool) -> None:
        self._mode = "L" if grey else "RGB"
        self._transform = _transform_of(profile, self._mode) if profile else None

    def own(self, rgb: RGB) -> Array:
        """H×W where they are grey, else H×W×3."""
        from PIL import Image, ImageCms

        if self._transform is None:
            return rgb if self._mode == "RGB" else np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))
        return np.asarray(ImageCms.applyTransform(Image.fromarray(rgb), self._transform))


def _transform_of(profile: bytes, mode: str) -> Any:
    """Little CMS's transform, or None where the profile is sRGB, none of its kind or cannot be read."""
    from PIL import ImageCms

    try:
        return colour_transform(profile, mode, back=True)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
