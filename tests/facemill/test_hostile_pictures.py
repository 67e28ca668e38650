"""Pictures that hypothesis has damaged: each is a picture or one reason, in bounded memory."""

from __future__ import annotations

import io
import struct
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from facemill.errors import InputError
from facemill.pictures import decode, picture_size
from facemill.reasons import State

MAX_PIXELS = 1_000_000
MAX_GROWTH_BYTES = 400_000_000
"""Of the process while it decodes: some times what a picture at the limit takes, far below what headers ask for."""


def _whole_pictures() -> dict[str, bytes]:
    random = np.random.default_rng(5)
    small = random.integers(0, 256, (12, 16, 3), np.uint8)
    pixels = cv2.resize(small, (64, 48), interpolation=cv2.INTER_CUBIC)
    picture, second = Image.fromarray(pixels), Image.fromarray(pixels[::-1].copy())

    def saved(form: str, image: Image.Image = picture, **options: object) -> bytes:
        stream = io.BytesIO()
        image.save(stream, form, **options)
        return stream.getvalue()

    exif = Image.Exif()
    exif[0x0112] = 6
    wide = (pixels[:, :, ::-1].astype(np.uint16) * 257).copy()
    return {
        "jpeg": saved("JPEG", exif=exif.tobytes()),
        "progressive jpeg": saved("JPEG", progressive=True, subsampling=2),
        "grey jpeg": saved("JPEG", picture.convert("L")),
        "cmyk jpeg": saved("JPEG", picture.convert("CMYK")),
        "mpo": saved("MPO", save_all=True, append_images=[second]),
        "png": saved("PNG", exif=exif.tobytes()),
        "palette png": saved("PNG", picture.quantize(16), transparency=3),
        "alpha png": saved("PNG", picture.convert("RGBA")),
        "16-bit png": cv2.imencode(".png", wide)[1].tobytes(),
        "apng": saved("PNG", save_all=True, append_images=[second]),
        "webp": saved("WEBP", exif=exif.tobytes()),
        "lossless webp": saved("WEBP", picture.convert("RGBA"), lossless=True),
        "animated webp": saved("WEBP", save_all=True, append_images=[second]),
        "tiff": saved("TIFF"),
        "lzw tiff": saved("TIFF", compression="tiff_lzw"),
        "deflated tiff": saved("TIFF", compression="tiff_adobe_deflate"),
        "jpeg tiff": saved("TIFF", compression="jpeg"),
        "fax tiff": saved("TIFF", picture.convert("1"), compression="group4"),
        "16-bit tiff": cv2.imencode(".tiff", wide)[1].tobytes(),
        "bigtiff": saved("TIFF", big_tiff=True),
        "gif": saved("GIF"),
        "animated gif": saved("GIF", save_all=True, append_images=[second], transparency=0),
        "bmp": saved("BMP"),
        "ppm": saved("PPM"),
        "avif": saved("AVIF"),
        "jp2": saved("JPEG2000"),
    }


WHOLE = _whole_pictures()

_NUMBERS = st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 40_000])
_CHANGES = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
    st.tuples(st.just("number"), st.floats(0, 1), st.tuples(_NUMBERS, st.sampled_from(["<H", ">H", "<I", ">I"]))),
    st.tuples(st.just("early number"), st.floats(0, 1), st.tuples(_NUMBERS, st.sampled_from(["<H", ">H", "<I", ">I"]))),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("delete"), st.floats(0, 1), st.integers(1, 200)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.none()),
    st.tuples(st.just("double"), st.floats(0, 1), st.integers(1, 400)),
    st.tuples(st.just("zero"), st.floats(0, 1), st.integers(1, 200)),
)


def _changed(data: bytes, changes: list) -> bytes:
    for kind, where, what in changes:
        at = int(where * (min(len(data), 64) if kind == "early number" else len(data)))
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ what]) + data[at + 1 :]
        elif kind in ("number", "early number"):
            number, form = what
            packed = struct.pack(form, number & (2 ** (8 * struct.calcsize(form)) - 1))
            data = data[:at] + packed + data[at + len(packed) :]
        elif kind == "insert":
            data = data[:at] + what + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + what :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "double":
            data = data[: at + what] + data[at:]
        elif kind == "zero":
            data = data[:at] + bytes(len(data[at : at + what])) + data[at + what :]
    return data


def _state(data: bytes) -> str:
    try:
        picture = decode(data, max_pixels=MAX_PIXELS)
    except InputError as problem:
        refused = problem
    else:
        return _good(picture)
    assert refused.reason.state is State.FAILED
    assert len(refused.detail) < 400
    return refused.reason


def _good(picture: np.ndarray) -> str:
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert 0 < picture.shape[0] * picture.shape[1] <= MAX_PIXELS
    assert picture.flags.c_contiguous
    return State.OK


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("reads the memory of a process where Linux tells it")
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024


def _forget_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_bytes()


@pytest.mark.parametrize("kind", WHOLE)
def test_the_pictures_that_are_damaged_below_are_whole(kind: str) -> None:
    assert _state(WHOLE[kind]) == State.OK
    assert picture_size(WHOLE[kind]) == (64, 48)


def _try_many(count: int) -> Counter[str]:
    found: Counter[str] = Counter()

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(kind=st.sampled_from(sorted(WHOLE)), changes=st.lists(_CHANGES, min_size=1, max_size=4))
    def try_one(kind: str, changes: list) -> None:
        found[_state(_changed(WHOLE[kind], changes))] += 1

    for kind in WHOLE:  # what is decoded once has loaded its libraries
        _state(WHOLE[kind])
    before = _forget_peak()
    try_one()
    assert _peak_bytes() - before < MAX_GROWTH_BYTES
    return found


def test_a_damaged_picture_ends_in_one_state_and_in_bounded_memory() -> None:
    assert len(_try_many(300)) > 2


@pytest.mark.slow
def test_ten_thousand_damaged_pictures_end_in_one_state_each_and_in_bounded_memory() -> None:
    assert sum(_try_many(10_000).values()) >= 10_000


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200), start=st.sampled_from([b"", *(whole[:16] for whole in WHOLE.values())]))
def test_bytes_of_nothing_end_in_one_state(data: bytes, start: bytes) -> None:
    _state(start + data)
