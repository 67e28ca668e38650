"""64-bit hashes of pictures that are alike for copies of another size, format or quality.

Perceptual hash: DCT of the 32×32 grey picture, the 8×8 lowest frequencies against their median (Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions", pHash). The picture is decoded at a fraction of
its size, which makes hashing several times faster than decoding. `facemill.dedup` compares them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from facemill.errors import InputError
from facemill.picture_headers import read_jpeg
from facemill.pictures import DEFAULT_MAX_PIXELS, decode, picture_size, sniff
from facemill.reasons import Reason

SIDE_PX = 32
FLAT_DEVIATION = 4.0
"""Grey levels: below this standard deviation the hash is made of noise."""

DETAIL_SIDES = tuple(round(128 * 2 ** (step / 2)) for step in range(9))
"""Sides in pixels of a square of a picture's area, 128 to 2048."""

_REDUCED = (
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)


@dataclass(frozen=True)
class PictureHash:
    """What a picture is compared by.

    phash, dhash: 64 bits each. flat: too little in it for the hashes to mean anything; equal bytes are the only
    duplicates then. sharpness: standard deviation of the Laplacian at 256×256 px, to choose the sharper of two copies.
    """

    phash: int
    dhash: int
    flat: bool
    sharpness: float


def hash_picture(data: bytes, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> PictureHash:
    """Hashes of an encoded picture. Raises InputError as `pictures.decode` does for what is no picture."""
    grey = _reduced_grey(data, max_pixels)
    small = cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA).astype(np.float32)
    phash = perceptual_hash(small)
    bits = phash.bit_count()
    sharp = cv2.resize(grey, (SIDE_PX * 8, SIDE_PX * 8), interpolation=cv2.INTER_AREA)
    return PictureHash(
        phash=phash,
        dhash=difference_hash(small),
        flat=bool(small.std() < FLAT_DEVIATION) or not 8 < bits < 56,
        sharpness=float(cv2.Laplacian(sharp, cv2.CV_32F).std()),
    )


def detail(data: bytes, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> float:
    """How much there is to see in an encoded picture, to choose the best of several copies: 0 up to about 2.

    The share of the contrast that is lost when the picture is halved, summed over the sizes DETAIL_SIDES to which it is
    brought first. So copies of one picture compare at the same sizes, however many pixels they have: an enlarged
    thumbnail has nothing above its own size. JPEG of a quality from 15 up changes it by 3 % at most, half the side
    costs 9 to 14 % (portraits of 704 px).

    Raises:
        InputError: as `pictures.decode` does for what is no picture.
    """
    grey = cv2.cvtColor(decode(data, max_pixels=max_pixels), cv2.COLOR_RGB2GRAY).astype(np.float32)
    height, width = grey.shape
    contrast = float(cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).std())
    lost = 0.0
    for side in DETAIL_SIDES:
        zoom = side / (height * width) ** 0.5
        size_wh = max(2, round(width * zoom)), max(2, round(height * zoom))
        own = cv2.resize(grey, size_wh, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
        half = cv2.resize(own, (size_wh[0] // 2, size_wh[1] // 2), interpolation=cv2.INTER_AREA)
        lost += float(np.sqrt(np.square(own - cv2.resize(half, size_wh, interpolation=cv2.INTER_CUBIC)).mean()))
    return lost / max(contrast, 1.0)


def perceptual_hash(small: npt.NDArray[np.float32]) -> int:
    """(32, 32) grey -> 64 bits: the 8×8 lowest frequencies, each above their median or not."""
    low = cv2.dct(small)[:8, :8]
    return _to_int(low > np.median(low))


def difference_hash(small: npt.NDArray[np.float32]) -> int:
    """(32, 32) grey -> 64 bits: whether each of 8×8 places is brighter than its right neighbour."""
    grid = cv2.resize(small, (9, 8), interpolation=cv2.INTER_AREA)
    return _to_int(grid[:, :-1] > grid[:, 1:])


def _reduced_grey(data: bytes, max_pixels: int | None) -> npt.NDArray[np.uint8]:
    size = picture_size(data, max_pixels=max_pixels)
    if sniff(data) != "jpeg":  # only JPEG can be decoded at a fraction of its cost
        return np.asarray(cv2.cvtColor(decode(data, max_pixels=max_pixels), cv2.COLOR_RGB2GRAY), np.uint8)
    data = read_jpeg(
        data
    ).tidy  # stray bytes are told on this process's own output, by nobody who could be asked not to
    shorter = min(size) if size else 0
    # four times the side of what is hashed: enough that the fraction does not change the hash
    flag = next((flag for factor, flag in _REDUCED if shorter >= factor * SIDE_PX * 4), cv2.IMREAD_GRAYSCALE)
    try:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise InputError(Reason.NOT_A_PICTURE, "decoder error") from error
    if grey is None:
        raise InputError(Reason.NOT_A_PICTURE, "the decoder gave up")
    return np.asarray(grey, np.uint8)


def _to_int(bits: npt.NDArray[np.bool_]) -> int:
    return int(struct.unpack(">Q", np.packbits(bits.ravel()).tobytes())[0])
