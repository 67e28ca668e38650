"""Bytes to pictures: what is read, and what is refused for which reason."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from facemill import pictures
from facemill.errors import InputError
from facemill.reasons import Reason


def gradient(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 3, y * 4, (x + y) * 2], axis=2).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A valid PNG header with no picture behind it."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_png_round_trip_is_exact_and_rgb() -> None:
    picture = gradient()
    np.testing.assert_array_equal(pictures.decode(pictures.encode_png(picture)), picture)


def test_jpeg_round_trip_is_close() -> None:
    picture = gradient()
    decoded = pictures.decode(pictures.encode_jpeg(picture))
    assert np.abs(decoded.astype(int) - picture).mean() < 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".ppm"])
def test_formats_are_read(suffix: str) -> None:
    data = cv2.imencode(suffix, gradient())[1].tobytes()
    assert pictures.decode(data).shape == (48, 64, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_header_tells_width_then_height(suffix: str) -> None:
    assert pictures.picture_size(cv2.imencode(suffix, gradient())[1].tobytes()) == (64, 48)


def test_exif_orientation_is_applied() -> None:
    exif = b"Exif\x00\x00" + b"II*\x00\x08\x00\x00\x00" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    jpeg = pictures.encode_jpeg(gradient())
    rotated = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert pictures.decode(rotated).shape == (64, 48, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"a text that somebody named .jpg", Reason.NOT_A_PICTURE),
        (b"\xff\xd8\xff\xda\x00\x02 no jpeg at all \xff\xd9", Reason.NOT_A_PICTURE),
        (b"\x89PNG\r\n\x1a\n", Reason.TRUNCATED),
    ],
)
def test_what_is_no_picture_has_a_reason(data: bytes, reason: Reason) -> None:
    with pytest.raises(InputError) as error:
        pictures.decode(data)
    assert error.value.reason == reason


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_picture_cut_in_half_is_truncated(suffix: str) -> None:
    data = cv2.imencode(suffix, gradient(480, 640))[1].tobytes()
    with pytest.raises(InputError) as error:
        pictures.decode(data[: len(data) // 2])
    assert error.value.reason == Reason.TRUNCATED


def test_the_end_of_an_embedded_thumbnail_is_not_the_end_of_the_picture() -> None:
    thumbnail, jpeg = pictures.encode_jpeg(gradient()), pictures.encode_jpeg(gradient(480, 640))
    comment = b"\xff\xfe" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = jpeg[:2] + comment + jpeg[2:]
    assert pictures.decode(whole).shape == (480, 640, 3)
    with pytest.raises(InputError, match="truncated"):
        pictures.decode(whole[: len(whole) // 2])


def test_huge_picture_is_refused_by_its_header() -> None:
    with pytest.raises(InputError) as error:
        pictures.decode(png_header(100_000, 100_000))
    assert error.value.reason == Reason.TOO_LARGE
    assert "100000×100000" in error.value.detail
