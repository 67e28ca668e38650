"""64-bit hashes of pictures that are alike for copies of another size, format or quality.

Perceptual hash: DCT of the 32×32 grey picture, the 8×8 lowest frequencies against their median (Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions", pHash). A JPEG is decoded at a fraction of its
size: what is left of its decoding, the reading of its bits, is nearly all that the hash of a photo costs
(`benchmarks/hashing.py`). `facemill.dedup` compares the hashes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from facemill.pictures import DEFAULT_MAX_PIXELS, decode, orientation_of, picture_size, sniff, turned

SIDE_PX = 32
DECODED_SIDE_PX = 4 * SIDE_PX
"""At least so many pixels has each side of a JPEG that is decoded at a fraction: enough that it does not change the
hash."""
FLAT_DEVIATION = 4.0
"""Grey levels: below this standard deviation the hash is made of noise."""

DETAIL_SIDES = tuple(round(128 * 2 ** (step / 2)) for step in range(9))
"""Sides in pixels of a square of a picture's area, 128 to 2048."""

_SHARPNESS_SIDE_PX = 256


@dataclass(frozen=True)
class PictureHash:
    """What a picture is compared by.

    phash, dhash: 64 bits each. flat: too little in it for the hashes to mean anything; equal bytes are the only
    duplicates then.
    """

    phash: int
    dhash: int
    flat: bool


@dataclass(frozen=True)
class PictureDetail:
    """By what the best of several copies is chosen.

    Attributes:
        share: how much there is to see, 0 up to about 2: the share of the contrast that is lost when the picture is
            halved, summed over the sizes DETAIL_SIDES to which it is brought first. So copies of one picture compare
            at the same sizes, however many pixels they have: an enlarged thumbnail has nothing above its own size. JPEG
            of a quality from 15 up changes it by 3 % at most, half the side costs 9 to 14 % (portraits of 704 px).
        sharpness: standard deviation of the Laplacian at 256×256 px, between copies of the same share and size.
    """

    share: float
    sharpness: float


def hash_picture(data: bytes, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> PictureHash:
    """Hashes of an encoded picture; a damaged JPEG is hashed as far as it goes.

    Raises:
        InputError: it is no picture, or one that is too large.
    """
    return hash_small(shrink(data, max_pixels=max_pixels)[None])[0]


def shrink(data: bytes, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """The (32, 32) grey picture that an encoded one is hashed by. Raises InputError as `hash_picture` does."""
    return np.asarray(cv2.resize(_grey(data, max_pixels), (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)


def hash_small(small: npt.NDArray[np.uint8]) -> list[PictureHash]:
    """(N, 32, 32) pictures of `shrink` -> N hashes. Many at once take a fifth of the time for each."""
    grey = np.reshape(small, (-1, SIDE_PX, SIDE_PX)).astype(np.float32)
    low = (_WAVES @ grey @ _WAVES.T).reshape(-1, 64)
    # Half of the 64 are above the lower one of the two in the middle, as above the median between these.
    phash = _to_numbers(low > np.partition(low, 31, axis=1)[:, 31:32])
    grid = _ROWS @ grey @ _COLUMNS.T  # whole numbers: where nothing changes, no rounding says that something does
    dhash = _to_numbers((grid[:, :, :-1] > grid[:, :, 1:]).reshape(-1, 64))
    flat = (grey.std(axis=(1, 2)) < FLAT_DEVIATION) | (np.abs(np.bitwise_count(phash).astype(int) - 32) >= 24)
    columns = zip(phash.tolist(), dhash.tolist(), flat.tolist(), strict=True)
    return [PictureHash(*values) for values in columns]


def detail(data: bytes, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> PictureDetail:
    """How good a copy an encoded picture is. Raises InputError as `pictures.decode` does for what is no picture."""
    whole = cv2.cvtColor(decode(data, max_pixels=max_pixels), cv2.COLOR_RGB2GRAY)
    same_size = cv2.resize(whole, (_SHARPNESS_SIDE_PX, _SHARPNESS_SIDE_PX), interpolation=cv2.INTER_AREA)
    sharpness = float(cv2.Laplacian(same_size, cv2.CV_32F).std())
    grey = whole.astype(np.float32)
    height, width = grey.shape
    contrast = float(cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA).std())
    lost = 0.0
    for side in DETAIL_SIDES:
        zoom = side / (height * width) ** 0.5
        size_wh = max(2, round(width * zoom)), max(2, round(height * zoom))
        own = cv2.resize(grey, size_wh, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
        half = cv2.resize(own, (size_wh[0] // 2, size_wh[1] // 2), interpolation=cv2.INTER_AREA)
        lost += float(np.sqrt(np.square(own - cv2.resize(half, size_wh, interpolation=cv2.INTER_CUBIC)).mean()))
    return PictureDetail(share=lost / max(contrast, 1.0), sharpness=sharpness)


def _areas(count: int) -> npt.NDArray[np.float32]:
    """(count, 32) weights, times `count`, with which each of 32 values counts in each of `count` equal stretches."""
    edges = np.minimum(np.arange(SIDE_PX + 1)[None] * count, np.arange(1, count + 1)[:, None] * SIDE_PX)
    return np.diff(np.diff(edges, prepend=0, axis=0), axis=1).astype(np.float32)


_WAVES: npt.NDArray[np.float32] = np.ascontiguousarray(
    cv2.dct(np.eye(SIDE_PX, dtype=np.float32), flags=cv2.DCT_ROWS).T[:8]
)
"""(8, 32): the lowest 8 of the 32 waves whose products with a row are its DCT."""
_ROWS, _COLUMNS = _areas(8), _areas(9)


def _grey(data: bytes, max_pixels: int | None) -> npt.NDArray[np.uint8]:
    """The upright picture, of a JPEG at a fraction of its size."""
    picture_size(data, max_pixels=max_pixels)
    if sniff(data) == "jpeg":
        # of a thumbnail, walking over the segments would be a tenth of the work
        orientation = orientation_of(data) if b"Exif\0" in data else 1
        try:
            grey = simplejpeg.decode_jpeg(
                data,
                colorspace="GRAY",
                min_height=DECODED_SIDE_PX,
                min_width=DECODED_SIDE_PX,
                min_factor=2,  # others take longer than the whole size
                strict=False,  # `collect` has heard the warnings
            )
            return turned(grey[:, :, 0], orientation)
        except ValueError:
            pass  # unusual or broken: decoding all of it tells
    return np.asarray(cv2.cvtColor(decode(data, max_pixels=max_pixels), cv2.COLOR_RGB2GRAY), np.uint8)


def _to_numbers(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    """(N, 64) -> (N,), the first bit the most significant one."""
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
