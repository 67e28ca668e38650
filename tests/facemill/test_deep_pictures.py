"""Pictures of 16 bits a channel look as their tags say."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from facemill.errors import InputError
from facemill.media.own_pixels import own_pixels
from facemill.pictures import decode, turned
from facemill.reasons import Reason

SHADES = np.linspace(20, 230, 48 * 36).reshape(36, 48).round().astype(np.uint8)
SCENE = np.dstack([SHADES, SHADES[::-1], np.full_like(SHADES, 90)])
ALPHA = np.where(np.arange(48) < 24, 255, 128)[None].repeat(36, 0)
ON_WHITE = SCENE * (ALPHA[..., None] / 255) + 255 - ALPHA[..., None]


def deep(values: np.ndarray) -> np.ndarray:
    return np.rint(values * 257.0).astype(np.uint16)


def tiff(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, metadata=None, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("grey", [False, True])
def test_a_deep_tiff_is_turned_once(orientation: int, order: str, grey: bool) -> None:
    tags = [(274, "H", 1, orientation, True)]
    colours = deep(SHADES if grey else SCENE)
    data = tiff(colours, photometric="minisblack" if grey else "rgb", byteorder=order, extratags=tags)
    shown = decode(data)
    expected = turned(SCENE if not grey else np.dstack([SHADES] * 3), orientation)
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).max() <= 1
    own = own_pixels(data, "tiff")
    assert np.array_equal(own.colours, turned(colours, orientation))
    assert own.transposed == (orientation >= 5)


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        (255 - SHADES, {"photometric": "miniswhite"}, np.dstack([SHADES] * 3)),
        (np.dstack([SCENE, ALPHA]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, ON_WHITE),
        (np.dstack([SCENE, ALPHA]), {"photometric": "rgb", "extrasamples": ["unspecified"]}, SCENE),
        (
            np.dstack([SCENE * (ALPHA[..., None] / 255), ALPHA]),
            {"photometric": "rgb", "extrasamples": ["assocalpha"]},
            ON_WHITE,
        ),
    ],
    ids=["white is 0", "alpha", "a fourth channel that is no alpha", "alpha that is multiplied in"],
)
def test_the_values_of_a_deep_tiff_are_what_its_tags_say(
    values: np.ndarray, options: dict[str, Any], expected: np.ndarray
) -> None:
    assert np.abs(decode(tiff(deep(values), **options)) - expected).max() <= 1.5


def test_a_deep_tiff_in_planes_is_refused_by_name() -> None:
    data = tiff(np.moveaxis(deep(SCENE), 2, 0), photometric="rgb", planarconfig="separate")
    with pytest.raises(InputError, match="separate planes: save it with interleaved channels") as caught:
        decode(data)
    assert caught.value.reason == Reason.NOT_A_PICTURE


def test_the_grey_of_a_deep_png_that_is_transparent_lies_on_white() -> None:
    data = cv2.imencode(".png", deep(SHADES))[1].tobytes()
    key = b"tRNS" + struct.pack(">H", int(deep(SHADES)[5, 5]))
    data = data[:33] + struct.pack(">I", 2) + key + struct.pack(">I", zlib.crc32(key)) + data[33:]
    shown = np.where(SHADES[5, 5] == SHADES, 255, SHADES)
    assert np.abs(decode(data) - np.dstack([shown] * 3).astype(int)).max() <= 1
    own = own_pixels(data, "png")
    assert np.array_equal(own.colours, deep(SHADES))
    assert own.alpha is not None
    assert own.alpha[5, 5] == 0


def test_a_deep_grey_jpeg_2000_is_read() -> None:
    buffer = io.BytesIO()
    Image.fromarray(deep(SHADES)).save(buffer, "JPEG2000")
    assert np.abs(decode(buffer.getvalue()) - np.dstack([SHADES] * 3).astype(int)).max() <= 1
