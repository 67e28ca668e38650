"""Pictures of 16 bits a channel, whose low 8 bits Pillow would drop: read by OpenCV, and what it leaves out done here.

OpenCV turns a TIFF upright as it loads it, as Pillow does. It passes over what TIFF's tags say of the values: whether 0
is white, and whether a fourth channel is alpha and has been multiplied into the colours already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.errors import InputError
from facemill.reasons import Reason

if TYPE_CHECKING:
    from PIL.Image import Image

Wide = npt.NDArray[np.uint16]
_FULL = 65_535
_BITS, _PHOTOMETRIC, _PLANES, _EXTRA = 258, 262, 284, 338  # tags of TIFF
_WHITE_IS_ZERO, _SEPARATE, _MULTIPLIED, _UNSTATED = 0, 2, 1, 0  # values of the last three


def wide_pixels(data: bytes, kind: str, picture: Image) -> Wide | None:
    """The pixels of a picture of 16 bits a channel: H×W, or H×W×3 or 4 as RGB and alpha; a TIFF's stand upright, all
    others as they are stored. None for any other picture, and for one of these that OpenCV does not read.

    Args:
        data: of the file.
        kind: as `facemill.picture_headers.sniff` tells it.
        picture: the same as Pillow opened it.

    Raises:
        InputError: NOT_A_PICTURE, a TIFF in separate planes.
    """
    if kind == "pnm" and picture.mode == "I":
        return np.asarray(np.clip(np.asarray(picture), 0, _FULL), np.uint16)
    if kind == "jp2" and picture.mode.startswith("I;16"):
        return np.asarray(picture, np.uint16)
    tags: Any = picture.tag_v2 if kind == "tiff" else {}  # type: ignore[attr-defined]  # TIFF's class has it
    if not ((kind == "png" and data[24] == 16) or set(tags.get(_BITS, ())) == {16}):
        return None
    if tags.get(_PLANES) == _SEPARATE and len(tags[_BITS]) > 1:
        raise InputError(
            Reason.NOT_A_PICTURE, "TIFF of 16 bits a channel in separate planes: save it with interleaved channels"
        )
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        return np.asarray(picture, np.uint16) if picture.mode.startswith("I;16") else None
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        pixels = pixels[:, :, [2, 1, 0, *range(3, pixels.shape[2])]]
    if kind == "tiff":
        return _as_tagged(pixels, tags)
    key = picture.info.get("transparency")
    if pixels.ndim == 2 and isinstance(key, int):  # the one grey that is transparent, which OpenCV leaves out
        pixels = np.dstack([pixels] * 3 + [np.where(pixels == key, 0, _FULL)])
    return np.asarray(pixels, np.uint16)


def used_range(colours: Wide) -> int:
    """The value that stands for full brightness: cameras and scanners put 10 or 12 bits into 16."""
    top = int(colours.max(initial=0))
    return next(levels for levels in (255, 1023, 4095, _FULL) if top <= levels)


def _as_tagged(pixels: Wide, tags: Any) -> Wide:
    """What TIFF's tags say of values that were read as they are stored."""
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and pixels.ndim == 2:
        return np.asarray(_FULL - pixels, np.uint16)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        extra = tags.get(_EXTRA, (_UNSTATED,))[0]
        if extra == _UNSTATED:
            return pixels[:, :, :3]
        if extra == _MULTIPLIED:
            alpha = pixels[:, :, 3:].astype(np.float32)
            colours = pixels[:, :, :3] * (_FULL / np.maximum(alpha, 1))
            return np.asarray(np.dstack([np.rint(colours).clip(0, _FULL), pixels[:, :, 3]]), np.uint16)
    return np.asarray(pixels, np.uint16)
