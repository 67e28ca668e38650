"""Bytes to pictures: what is read, and what is refused for which reason."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

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


SHARED = Path(__file__).parents[2] / "shared" / "data" / "dataset_faults"
if not SHARED.is_dir():
    SHARED = Path(__file__).parents[3] / "shared" / "data" / "dataset_faults"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="wants ../shared/data/dataset_faults")


def saved(form: str, picture: np.ndarray | Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    given = gradient() if picture is None else picture
    image = given if isinstance(given, Image.Image) else Image.fromarray(given)
    image.save(stream, form, **options)
    return stream.getvalue()


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II*\x00\x08\x00\x00\x00" if order == "<" else b"MM\x00*\x00\x00\x00\x08"
    return mark + struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def refused(data: bytes, **limits: int) -> tuple[Reason, str]:
    with pytest.raises(InputError) as error:
        pictures.decode(data, **limits)
    return error.value.reason, error.value.detail


def near(data: bytes, expected: np.ndarray, levels: float = 4.0) -> None:
    decoded = pictures.decode(data)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < levels


@pytest.mark.parametrize("form", ["JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "PPM", "GIF", "AVIF", "JPEG2000"])
def test_every_format_tells_its_size_and_is_read(form: str) -> None:
    if form == "DIB":
        pytest.skip("a bitmap without a file header is no file that anybody names a picture")
    data = saved(form)
    assert pictures.sniff(data[:32]) is not None
    assert pictures.picture_size(data) == (64, 48)
    near(data, gradient(), 12)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF", "AVIF", "JPEG2000"])
def test_every_format_is_refused_by_its_header(form: str) -> None:
    data = saved(form)
    reason, detail = refused(data, max_pixels=64 * 48 - 1)
    assert (reason, detail) == (Reason.TOO_LARGE, "64×48 pixels, limit 3071")
    assert pictures.decode(data, max_pixels=64 * 48).shape == (48, 64, 3)


def webp_of_38_bytes() -> bytes:
    """A lossless WebP of 16384 × 16384 in which every pixel is the same: 38 bytes, 0.8 GB decoded."""
    bits = (16_383 | 16_383 << 14).to_bytes(4, "little")
    body = b"VP8L" + struct.pack("<I", 18) + b"\x2f" + bits + bytes(13)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff_of_one_bit(side: int) -> bytes:
    """A TIFF header of side × side, one bit each, with one strip that is not there."""
    entries = [
        (256, 4, side),
        (257, 4, side),
        (258, 3, 1),
        (259, 3, 4),
        (262, 3, 0),
        (273, 4, 8),
        (278, 4, side),
        (279, 4, 9),
    ]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize(
    "data",
    [
        webp_of_38_bytes(),
        tiff_of_one_bit(40_000),
        b"P6\n40000 40000\n255\n",
        b"P4 40000 40000 ",
        b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + bytes(20),
        b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 40_000, -40_000, 1, 24) + bytes(24),
        b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 40_000, 40_000, 1, 8),
    ],
)
def test_a_few_bytes_that_ask_for_gigabytes_get_none(data: bytes) -> None:
    assert refused(data)[0] is Reason.TOO_LARGE


def test_a_frame_that_is_larger_than_the_stated_canvas_is_refused() -> None:
    frame = b"," + struct.pack("<HHHH", 0, 0, 60_000, 60_000) + b"\0\x08\x01\0\0"
    assert refused(b"GIF89a" + struct.pack("<HH", 8, 8) + b"\0\0\0" + frame + b";")[0] is Reason.TOO_LARGE


def jpeg_of_noise() -> bytes:
    return saved("JPEG", np.random.default_rng(3).integers(0, 256, (96, 96, 3), np.uint8), quality=90)


def test_a_jpeg_that_is_broken_in_the_middle_is_damaged() -> None:
    data = jpeg_of_noise()
    half = len(data) // 2
    for broken in (data[:half] + bytes(500) + data[half + 500 :], data[:half] + data[half + 300 :]):
        assert refused(broken)[0] is Reason.DAMAGED


def test_bytes_that_are_no_part_of_a_jpeg_are_no_harm() -> None:
    data = jpeg_of_noise()
    whole = pictures.decode(data)
    tables_at = data.index(b"\xff\xdb")
    for odd in (
        data[:-2],  # no end, but all rows
        data + bytes(3000),
        data + b"a text behind the picture",
        data + data,  # as MPO has it
        data[:tables_at] + bytes(2) + data[tables_at:],
        data[:tables_at] + b"\xff\xff\xff" + data[tables_at:],
        data[:tables_at] + b"junk!" + data[tables_at:],
        data[:-2] + b"\xff\xff\xff" + data[-2:],
        data[:-2] + bytes(3000),
        data[:-2] + bytes(3000) + data[-2:],
    ):
        np.testing.assert_array_equal(pictures.decode(odd), whole)


@pytest.mark.parametrize("run", [b"\xff" * 1_000_000 + b"\0", b"\xff\0" * 500_000])
def test_a_long_run_of_what_might_begin_a_marker_costs_a_moment(run: bytes) -> None:
    data = jpeg_of_noise()
    begin = time.process_time()
    for at in (data.index(b"\xff\xdb"), len(data) // 2):
        with contextlib.suppress(InputError):
            pictures.decode(data[:at] + run + data[at:])
    assert time.process_time() - begin < 5  # a search that begins again at each byte takes hours


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ends_early_is_truncated_wherever(progressive: bool) -> None:
    data = saved("JPEG", np.random.default_rng(3).integers(0, 256, (96, 96, 3), np.uint8), progressive=progressive)
    begin = data.index(b"\xff\xda")
    for at in range(begin + 20, len(data) - 40, max(1, (len(data) - begin) // 25)):
        assert refused(data[:at])[0] is Reason.TRUNCATED, at


def test_what_stands_behind_a_png_is_no_harm_and_a_wrong_check_sum_is() -> None:
    data = saved("PNG")
    np.testing.assert_array_equal(pictures.decode(data + bytes(10_000)), gradient())
    at = data.index(b"IDAT") + 10
    assert refused(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) == (
        Reason.DAMAGED,
        "the check sum of its IDAT is wrong",
    )
    assert refused(data[:-12])[0] is Reason.TRUNCATED


@pytest.mark.parametrize("form", ["TIFF", "BMP", "PPM", "GIF", "AVIF", "JPEG2000"])
def test_every_other_format_cut_in_half_fails(form: str) -> None:
    data = saved(form, np.random.default_rng(3).integers(0, 256, (96, 96, 3), np.uint8))
    assert refused(data[: len(data) // 2])[0] in (Reason.TRUNCATED, Reason.DAMAGED, Reason.NOT_A_PICTURE)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "WEBP with a prefix", "TIFF"])
def test_every_orientation_is_applied_in_every_form(orientation: int, order: str, form: str) -> None:
    upright = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: np.fliplr(np.rot90(a, -1)),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.fliplr(np.rot90(a, 1)),
        8: lambda a: np.rot90(a, 1),
    }[orientation](gradient())
    block = exif(orientation, order)
    if form == "TIFF":
        tags = Image.Exif()
        tags[0x0112] = orientation
        data = saved("TIFF", exif=tags)
    elif form == "WEBP with a prefix":
        data = saved("WEBP", lossless=True, exif=block)
        longer = b"EXIF" + struct.pack("<I", len(block) + 6) + b"Exif\0\0" + block
        data = data[: data.index(b"EXIF")] + longer
        data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    else:
        prefix = b"Exif\0\0" if form == "JPEG" else b""
        data = saved(form, exif=prefix + block, **({"lossless": True} if form == "WEBP" else {}))
    near(data, upright)


def test_a_broken_exif_block_is_no_reason_to_lose_a_picture() -> None:
    near(saved("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), gradient())
    near(saved("PNG", exif=exif(77)), gradient())


def swapped_profile() -> bytes:
    """A profile that the CMS has made, whose red is sRGB's green: what ignores it shows other colours."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = {bytes(profile[n : n + 4]): n for n in range(128 + 4, 128 + 4 + 12 * 20, 12)}
    red, green = at[b"rXYZ"], at[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile).replace(b"s\0R\0G\0B", b"o\0t\0h\0r")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_colour_profile_is_applied(form: str) -> None:
    flat = np.full((16, 16, 3), (200, 60, 30), np.uint8)
    options = {"lossless": True} if form == "WEBP" else {}
    near(saved(form, flat, icc_profile=swapped_profile(), **options), flat[:, :, [1, 0, 2]], 6)
    near(saved(form, flat, icc_profile=b"no profile at all", **options), flat)


def test_what_is_transparent_lies_on_white() -> None:
    cutout = np.dstack([np.full((4, 6, 3), 10, np.uint8), np.tile(np.uint8([0, 0, 128, 128, 255, 255]), (4, 1))])
    for form in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if form == "WEBP" else {}
        decoded = pictures.decode(saved(form, cutout, **options))
        assert decoded[0, :, 0].tolist() == [255, 255, 132, 132, 10, 10], form
    palette = Image.fromarray(np.uint8([[0, 1], [1, 0]]), "P")
    palette.putpalette([9, 9, 9, 50, 60, 70])
    for form in ("PNG", "GIF"):
        decoded = pictures.decode(saved(form, palette, transparency=0))
        assert decoded[0].tolist() == [[255, 255, 255], [50, 60, 70]], form


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("grey", [False, True])
def test_16_bits_are_brought_to_8_by_the_range_that_they_use(bits: int, suffix: str, grey: bool) -> None:
    picture = gradient()
    picture[0, 0] = 255
    wide = np.round(picture.astype(float) / 255 * (2**bits - 1)).astype(np.uint16)
    if grey:
        wide, picture = wide[:, :, 0], np.repeat(picture[:, :, :1], 3, axis=2)
    near(cv2.imencode(suffix, wide if grey else wide[:, :, ::-1])[1].tobytes(), picture, 1)


def test_of_frames_and_pages_the_first_is_taken() -> None:
    second = Image.fromarray(255 - gradient())
    for form in ("GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"):
        near(saved(form, save_all=True, append_images=[second]), gradient(), 12)


def test_a_printer_s_jpeg_is_shown_in_its_colours() -> None:
    near(saved("JPEG", Image.fromarray(gradient()).convert("CMYK"), quality=95), gradient(), 6)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"8BPS\0\1", "Photoshop"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"  <svg xmlns='x'>", "SVG"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, name: str) -> None:
    assert refused(data) == (Reason.NOT_A_PICTURE, f"{name}, which is not read")


def test_heic_is_named_where_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    data = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(40)
    assert refused(data) == (
        Reason.NOT_A_PICTURE,
        "HEIC, which is read where the package pillow-heif is installed",
    )


def test_heic_is_read_where_the_package_is_there() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    near(saved("HEIF", quality=95), gradient(), 12)


def test_our_own_pictures_are_read_without_any_other_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    np.testing.assert_array_equal(pictures.decode_own(pictures.encode_png(gradient())), gradient())
    with pytest.raises(InputError):
        pictures.decode_own(b"")


@needs_shared
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("webp_exif_prefix_orientation6.webp", (256, 256)),
        ("bomb_40000x40000_1bit.tif", Reason.TOO_LARGE),
        ("jpeg_2000_zero_bytes_in_the_middle.jpg", Reason.DAMAGED),
        ("pillow_junk_jpeg_header.jpg", (768, 1024)),
        ("jpeg_two_zero_bytes_before_DQT.jpg", (256, 256)),
        ("jpeg_complete_without_EOI.jpg", (256, 256)),
        ("pillow_pal8os2.bmp", (64, 127)),
        ("pillow_hopper_bigtiff.tif", (128, 128)),
        ("pillow_hopper_gray_4bpp.tif", (128, 128)),
        ("alpha_cutout.png", (128, 128)),
        ("grey_9000x9000.png", Reason.TOO_LARGE),
    ],
)
def test_the_pictures_of_bug_reports(name: str, expected: object) -> None:
    data = (SHARED / name).read_bytes()
    if isinstance(expected, Reason):
        assert refused(data)[0] is expected
    else:
        assert pictures.decode(data).shape[:2] == expected


@needs_shared
def test_the_colours_of_bug_reports() -> None:
    shown = pictures.decode((SHARED / "icc_display_p3.jpg").read_bytes()).mean((0, 1))
    np.testing.assert_allclose(shown, [142, 106, 96], atol=1)
    assert pictures.decode((SHARED / "png16_12bit_range.png").read_bytes()).mean() > 100
