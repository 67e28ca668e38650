"""Bytes to pictures and back, safe against whatever a person can put in a folder.

The header is read before anything is decoded: a 100,000 × 100,000 PNG is refused for 33 bytes of work, not after 30 GB
of memory. Decoding is OpenCV's with EXIF orientation applied; a JPEG or PNG that ends early is an error, where OpenCV
alone would fill the rest with grey.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

# OpenCV reads its own limit once, at import; ours is checked first, and its message must not win.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**40))
import cv2

from facemill.errors import InputError
from facemill.reasons import Reason

RGB = npt.NDArray[np.uint8]
DEFAULT_MAX_PIXELS = 64_000_000


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> RGB:
    """Decodes JPEG, PNG, WebP, BMP, TIFF, PNM or GIF (first frame).

    Returns:
        RGB uint8 H×W×3, upright (EXIF applied), C-contiguous. Grey becomes three equal channels, alpha is dropped.

    Raises:
        InputError: EMPTY_FILE, NOT_A_PICTURE, TRUNCATED, or TOO_LARGE above `max_pixels`.
    """
    picture_size(data, max_pixels=max_pixels)
    if _ends_early(data):
        raise InputError(Reason.TRUNCATED, "no end marker")
    try:
        bgr: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(Reason.NOT_A_PICTURE, str(error.err) if hasattr(error, "err") else "decoder error") from error
    if bgr is None:
        raise InputError(Reason.NOT_A_PICTURE, "the decoder gave up")
    if bgr.shape[0] * bgr.shape[1] > max_pixels:
        raise InputError(Reason.TOO_LARGE, f"{bgr.shape[1]}×{bgr.shape[0]} pixels, limit {max_pixels}")
    return np.ascontiguousarray(bgr[:, :, ::-1])


def picture_size(data: bytes, *, max_pixels: int | None = None) -> tuple[int, int] | None:
    """Width and height in pixels as the header states them (before EXIF rotation); None where only decoding can tell.

    Raises:
        InputError: EMPTY_FILE, NOT_A_PICTURE (no known signature), TOO_LARGE above `max_pixels`.
    """
    if not data:
        raise InputError(Reason.EMPTY_FILE)
    kind = sniff(data)
    if kind is None:
        raise InputError(Reason.NOT_A_PICTURE, "no known signature")
    size = _SIZE_READERS[kind](data) if kind in _SIZE_READERS else None
    if size and max_pixels is not None and size[0] * size[1] > max_pixels:
        raise InputError(Reason.TOO_LARGE, f"{size[0]}×{size[1]} pixels, limit {max_pixels}")
    return size


def sniff(data: bytes) -> str | None:
    """The format by its first bytes (`jpeg`, `png`, `webp`, `bmp`, `gif`, `tiff`, `pnm`), or None."""
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "pnm" if len(data) > 3 and data[0:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace() else None


def encode_jpeg(picture: RGB, quality: int = 95) -> bytes:
    """JPEG bytes of an RGB uint8 picture; 4:4:4 chroma, since faces are looked at closely."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return _encode(".jpg", picture, options)


def encode_png(picture: RGB) -> bytes:
    """Lossless PNG bytes of an RGB uint8 picture."""
    return _encode(".png", picture, [])


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of the bytes as 64 hexadecimal digits: the identity of an input."""
    return hashlib.sha256(data).hexdigest()


def _encode(suffix: str, picture: RGB, options: list[int]) -> bytes:
    done, buffer = cv2.imencode(suffix, picture[:, :, ::-1], options)
    if not done:
        raise ValueError(f"OpenCV could not encode a {picture.shape} {picture.dtype} picture as {suffix}")
    return buffer.tobytes()


_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"GIF8", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
)


_START_OF_SCAN = 0xDA


def _ends_early(data: bytes) -> bool:
    kind = sniff(data)
    if kind == "jpeg":
        # An embedded thumbnail has an end marker too, but it stands before the scan; in the scan 0xFF is escaped.
        scans = [at for marker, at in _jpeg_segments(data) if marker == _START_OF_SCAN]
        return not scans or data.find(b"\xff\xd9", scans[0]) < 0
    if kind == "png":
        return b"IEND" not in data[-4096:]
    if kind == "webp":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    return False


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(marker, offset) of each segment up to and including the start of scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:  # fill bytes and markers without a length
            at += 1 if marker == 0xFF else 2
            continue
        yield marker, at
        if marker == _START_OF_SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """From the start-of-frame segment."""
    for marker, at in _jpeg_segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
    return None


def _png_size(data: bytes) -> tuple[int, int]:
    if len(data) < 24:
        raise InputError(Reason.TRUNCATED, "no header")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _gif_size(data: bytes) -> tuple[int, int]:
    if len(data) < 10:
        raise InputError(Reason.TRUNCATED, "no header")
    width, height = struct.unpack("<HH", data[6:10])
    return width, height


def _bmp_size(data: bytes) -> tuple[int, int]:
    if len(data) < 26:
        raise InputError(Reason.TRUNCATED, "no header")
    width, height = struct.unpack("<ii", data[18:26])
    return abs(width), abs(height)


_SIZE_READERS = {"jpeg": _jpeg_size, "png": _png_size, "gif": _gif_size, "bmp": _bmp_size}
