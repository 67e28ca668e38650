"""Still pictures with something painted in: what nobody touched stays, pixels and what the file says of itself."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo

from facemill.errors import InputError
from facemill.media import StillReader, media_facts, open_media, still_kind
from facemill.media.embedded import upright_exif
from facemill.media.own_pixels import own_pixels
from facemill.media.still import StillWriter
from facemill.pictures import decode, encode_png, sniff
from facemill.reasons import Reason

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:title="a day"/></x:xmpmeta>'


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """A smooth picture of 120×80 with edges, RGB."""
    y, x = np.mgrid[0:80, 0:120]
    rgb = np.stack([40 + x, 60 + 2 * y, 200 - x], axis=-1).clip(0, 255).astype(np.uint8)
    rgb[50:70, 80:110] = (220, 180, 40)
    return rgb


def encoded(picture: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def painted(tmp_path: Path, data: bytes, suffix: str = ".bin", grey: int = 128) -> tuple[bytes, list[str]]:
    """The file with a square of one colour in the middle of the upper left quarter, 16 px high."""
    (tmp_path / f"in{suffix}").write_bytes(data)
    reader = open_media(tmp_path / f"in{suffix}")
    assert isinstance(reader, StillReader)
    with reader, StillWriter(tmp_path / f"out{suffix}", reader) as writer:
        [frame] = reader
        region, (x, y, _, _) = frame.region((16, 16, 32, 32))
        frame.paste(np.full_like(region, grey), (x, y), np.ones(region.shape[:2], bool))
        writer.write(frame)
        part = writer.commit()
    assert part.size_wh == (reader.info.width, reader.info.height)
    return (tmp_path / f"out{suffix}").read_bytes(), writer.warnings


def outside(shape: tuple[int, ...], margin: int = 0) -> np.ndarray:
    mask = np.ones(shape[:2], bool)
    mask[16 - margin : 32 + margin, 16 - margin : 32 + margin] = False
    return mask


LOSSLESS: dict[str, Callable[[np.ndarray], bytes]] = {
    "png": lambda rgb: encoded(Image.fromarray(rgb), "PNG"),
    "grey png": lambda rgb: encoded(Image.fromarray(rgb).convert("L"), "PNG"),
    "grey png with alpha": lambda rgb: encoded(Image.fromarray(rgb).convert("LA"), "PNG"),
    "bmp": lambda rgb: encoded(Image.fromarray(rgb), "BMP"),
    "tiff": lambda rgb: encoded(Image.fromarray(rgb), "TIFF", compression="tiff_lzw"),
    "webp": lambda rgb: encoded(Image.fromarray(rgb), "WEBP", lossless=True),
    "gif": lambda rgb: encoded(Image.fromarray(rgb).quantize(64), "GIF"),
    "palette png": lambda rgb: encoded(Image.fromarray(rgb).quantize(64), "PNG"),
    "pnm": lambda rgb: encoded(Image.fromarray(rgb), "PPM"),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_what_nobody_touched_is_the_same_to_the_last_bit(kind: str, scene: np.ndarray, tmp_path: Path) -> None:
    data = LOSSLESS[kind](scene)
    written, warnings = painted(tmp_path, data, ".ppm" if kind == "pnm" else ".x")
    before, after = decode(data), decode(written)
    assert after.shape == before.shape
    mask = outside(before.shape)
    assert np.array_equal(before[mask], after[mask])
    assert abs(int(after[24, 24, 0]) - 128) <= 1
    kept = kind.split()[-1] if "alpha" not in kind else "png"
    assert sniff(written) == (kept if kept not in ("gif", "pnm") else "png")
    if kind in ("png", "bmp", "tiff", "webp", "grey png"):
        assert warnings == []
    if "grey" in kind:
        assert Image.open(io.BytesIO(written)).mode == Image.open(io.BytesIO(data)).mode


@pytest.mark.parametrize("quality", [30, 75, 92, 100])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_keeps_its_quality(quality: int, subsampling: int, scene: np.ndarray, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(scene), "JPEG", quality=quality, subsampling=subsampling, progressive=quality == 75)
    written, warnings = painted(tmp_path, data)
    old, new = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(written))
    assert new.quantization == old.quantization
    assert JpegImagePlugin.get_sampling(new) == JpegImagePlugin.get_sampling(old)
    assert ("progressive" in new.info) == ("progressive" in old.info)
    assert warnings == []
    mask = outside(scene.shape, 16)  # what shares no block with the square
    apart = np.abs(decode(data).astype(int) - decode(written))[mask]
    assert apart.mean() < 0.6, "another generation of the same tables"
    assert abs(decode(written)[24, 24].astype(int).mean() - 128) < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_and_the_rest_of_exif_kept(
    name: str, orientation: int, scene: np.ndarray, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8298] = orientation, "Maker", "(c) somebody"
    inner = exif.get_ifd(0x8769)
    inner[0xA002], inner[0xA003], inner[0x9003] = 120, 80, "2001:02:03 04:05:06"
    exif.get_ifd(0x8825)[1] = "N"
    data = encoded(Image.fromarray(scene), name, exif=exif.tobytes())
    assert decode(data).shape[:2] == ((120, 80) if orientation >= 5 else (80, 120))
    written, _ = painted(tmp_path, data)
    shown = Image.open(io.BytesIO(written))
    assert shown.size == ((80, 120) if orientation >= 5 else (120, 80))
    found = shown.getexif()
    assert found.get(0x0112, 1) == 1
    assert (found[0x010F], found[0x8298]) == ("Maker", "(c) somebody")
    assert found.get_ifd(0x8769)[0x9003] == "2001:02:03 04:05:06"
    assert found.get_ifd(0x8825)[1] == "N"
    if name != "TIFF":
        sides = (found.get_ifd(0x8769)[0xA002], found.get_ifd(0x8769)[0xA003])
        assert sides == ((80, 120) if orientation >= 5 else (120, 80))
    mask = outside(decode(data).shape, 16)
    # another generation, of a JPEG of quality 75 one whose blocks may lie elsewhere
    assert np.abs(decode(data).astype(int) - decode(written))[mask].mean() < {"JPEG": 2, "WEBP": 1.5}.get(name, 0.01)


def test_thumbnails_of_the_old_picture_go_and_are_said(scene: np.ndarray, tmp_path: Path) -> None:
    thumbnail = encoded(Image.fromarray(scene).resize((30, 20)), "JPEG")
    # MM, one entry (orientation 3), then a second directory that says where the thumbnail lies
    first = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01\0\x03\0\0" + b"\0\0\0\x1a"
    second = b"\0\x02" + b"\x02\x01\0\x04\0\0\0\x01\0\0\0\x38" + b"\x02\x02\0\x04\0\0\0\x01"
    block = b"Exif\0\0" + first + second + len(thumbnail).to_bytes(4, "big") + b"\0\0\0\0" + thumbnail
    photoshop = b"Photoshop 3.0\0" + b"8BIM\x04\x0c\0\0" + len(thumbnail).to_bytes(4, "big") + thumbnail
    photoshop += b"\0" * (len(thumbnail) % 2) + b"8BIM\x04\x04\0\0\0\0\0\x04IPTC"
    data = encoded(Image.fromarray(scene), "JPEG", exif=block, quality=90)
    data = data[:2] + b"\xff\xed" + (len(photoshop) + 2).to_bytes(2, "big") + photoshop + data[2:]
    data += b"....ftypmp42 the video of a motion photo" * 100
    assert thumbnail in data
    written, warnings = painted(tmp_path, data)
    assert thumbnail[40:] not in written
    assert b"8BIM\x04\x04\0\0\0\0\0\x04IPTC" in written
    assert warnings == [
        "dropped the thumbnail, which shows the old picture",
        "dropped 4000 bytes behind the picture, such as a video or other pictures of it",
    ]
    assert Image.open(io.BytesIO(written)).getexif()[0x0112] == 1


SHOWS = b"the old picture " * 4


def in_jpeg(number: int, content: bytes) -> Callable[[bytes], bytes]:
    """Puts a segment APPn into a JPEG."""
    segment = bytes([0xFF, 0xE0 + number]) + (len(content) + 2).to_bytes(2, "big") + content
    return lambda data: data[:2] + segment + data[2:]


def in_png(name: bytes, content: bytes) -> Callable[[bytes], bytes]:
    """Puts a chunk into a PNG, behind its header."""
    chunk = len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")
    return lambda data: data[:33] + chunk + data[33:]


def exif_with(thumbnail: bytes, *, damage: bool) -> bytes:
    """An EXIF block with a thumbnail of plain pixels, and sides of the picture where no directory is."""
    sides = b"\x69\x87\x04\0\x01\0\0\0" + (b"\xff\xff\xff\x7f" if damage else b"\0\0\0\0")
    first = b"II*\0\x08\0\0\0" + b"\x01\0" + sides + b"\x1a\0\0\0"
    at = b"\x11\x01\x04\0\x01\0\0\0" + (26 + 2 + 24 + 4).to_bytes(4, "little")
    length = b"\x17\x01\x04\0\x01\0\0\0" + len(thumbnail).to_bytes(4, "little")
    return b"Exif\0\0" + first + b"\x02\0" + at + length + b"\0\0\0\0" + thumbnail


HIDDEN: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "XMP's extension": ("JPEG", in_jpeg(1, b"http://ns.adobe.com/xmp/extension/\0" + SHOWS)),
    "XMP with the original": ("JPEG", in_jpeg(1, b"http://ns.adobe.com/xap/1.0/\0 GImage:Data=" + SHOWS)),
    "FlashPix": ("JPEG", in_jpeg(2, b"FPXR\0" + SHOWS)),
    "C2PA": ("JPEG", in_jpeg(11, b"JP" + SHOWS)),
    "a camera's own": ("JPEG", in_jpeg(5, SHOWS)),
    "JFIF's extension": ("JPEG", in_jpeg(0, b"JFXX\0\x10" + SHOWS)),
    "a thumbnail of plain pixels": ("JPEG", in_jpeg(1, exif_with(SHOWS, damage=False))),
    "beside a broken directory": ("JPEG", in_jpeg(1, exif_with(SHOWS, damage=True))),
    "in a block that cannot be read": ("JPEG", in_jpeg(1, b"Exif\0\0II*\0\xff\xff\0\0\xff\xd8\xff" + SHOWS)),
    "C2PA in a PNG": ("PNG", in_png(b"caBX", SHOWS)),
    "a chunk of an extension": ("PNG", in_png(b"thMb", SHOWS)),
    "Photoshop's resources as text": ("PNG", in_png(b"zTXt", b"Raw profile type 8bim\0\0" + SHOWS)),
    "compressed XMP": ("PNG", in_png(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + SHOWS)),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_nothing_that_may_show_the_old_picture_stays_and_each_is_said(
    name: str, scene: np.ndarray, tmp_path: Path
) -> None:
    kind, hide = HIDDEN[name]
    options = {"exif": b""} if kind == "JPEG" else {}
    data = hide(encoded(Image.fromarray(scene), kind, **options))
    assert SHOWS in data
    written, warnings = painted(tmp_path, data)
    assert SHOWS not in written
    assert len([warning for warning in warnings if warning.startswith("dropped")]) == 1


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_that_is_stated_twice_is_applied_once(
    name: str, orientation: int, scene: np.ndarray, tmp_path: Path
) -> None:
    exif, packet = Image.Exif(), XMP.replace(b'"6"', f'"{orientation}"'.encode())
    exif[0x0112] = orientation
    options: dict[str, Any] = {"exif": exif.tobytes()}
    if name == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", packet.decode())
        options |= {"pnginfo": info}
    elif name == "TIFF":
        exif[700] = packet
        options |= {"exif": exif}
    else:
        options |= {"xmp": packet}
    data = encoded(Image.fromarray(scene), name, **options)
    written, _ = painted(tmp_path, data)
    assert b'tiff:Orientation="1"' in written
    mask = outside(decode(data).shape, 16)
    assert np.abs(decode(data).astype(int) - decode(written))[mask].mean() < 2


@pytest.mark.parametrize("cut", range(40))
def test_a_broken_exif_block_is_carried_as_far_as_it_goes(cut: int) -> None:
    block = (
        b"II*\0\x08\0\0\0\x02\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x69\x87\x04\0\x01\0\0\0\xff\xff\xff\x7f"
    )
    for data in (block[:cut], block[:cut] + b"\xff" * 30):
        changed, _ = upright_exif(data, transposed=True)
        assert len(changed) == len(data)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_profiles_and_xmp_are_kept(name: str, scene: np.ndarray, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ" if name == "none" else "sRGB")).tobytes()
    options: dict[str, Any] = {"icc_profile": profile}
    if name == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add_text("Title", "a day")
        options |= {"pnginfo": info, "dpi": (300, 300)}
    else:
        options |= {"xmp": XMP}
    written, _ = painted(tmp_path, encoded(Image.fromarray(scene), name, **options))
    found = Image.open(io.BytesIO(written))
    assert found.info["icc_profile"] == profile
    packet = found.info.get("xmp") or found.info["XML:com.adobe.xmp"].encode()
    assert b'tiff:Orientation="1" dc:title="a day"' in packet
    if name == "PNG":
        assert found.info["Title"] == "a day"
        assert round(found.info["dpi"][0]) == 300


def test_colours_of_a_wide_profile_stay_its_own(scene: np.ndarray, tmp_path: Path) -> None:
    """A profile whose red and green have changed places shows at once whether colours were taken for sRGB."""
    wide = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = wide.index(b"rXYZ"), wide.index(b"gXYZ")
    wide[red : red + 4], wide[green : green + 4] = b"gXYZ", b"rXYZ"
    for at in (i for i in range(len(wide) - 4) if wide[i : i + 4] == b"sRGB"):
        wide[at : at + 4] = b"RGBs"
    data = encoded(Image.fromarray(scene), "PNG", icc_profile=bytes(wide))
    (tmp_path / "in.png").write_bytes(data)
    with StillReader(tmp_path / "in.png") as reader, StillWriter(tmp_path / "out.png", reader) as writer:
        [frame] = reader
        region, (x, y, _, _) = frame.region((16, 16, 32, 32))
        frame.paste(
            np.broadcast_to(np.array([200, 90, 60], np.uint8), region.shape).copy(), (x, y), np.ones((16, 16), bool)
        )
        writer.write(frame)
        writer.commit()
    written = (tmp_path / "out.png").read_bytes()
    assert np.abs(decode(written)[24, 24].astype(int) - [200, 90, 60]).max() <= 3
    mask = outside(scene.shape)
    assert np.array_equal(own_pixels(written, "png").colours[mask], scene[mask])


@pytest.mark.parametrize("name", ["png", "tiff"])
@pytest.mark.parametrize("levels", [1023, 65_535])
def test_sixteen_bits_stay_sixteen(name: str, levels: int, scene: np.ndarray, tmp_path: Path) -> None:
    deep = (scene.astype(np.float64) / 255 * levels + np.arange(3)).clip(0, levels).astype(np.uint16)
    deep[0, 0] = levels
    data = cv2.imencode(f".{name}", deep[:, :, ::-1])[1].tobytes()
    written, warnings = painted(tmp_path, data)
    found = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_UNCHANGED)[:, :, ::-1]
    assert found.dtype == np.uint16
    mask = outside(deep.shape)
    assert np.array_equal(found[mask], deep[mask])
    assert abs(found[24, 24, 0] / levels - 128 / 255) < 0.01
    assert warnings == []


def test_alpha_is_kept(scene: np.ndarray, tmp_path: Path) -> None:
    alpha = np.linspace(0, 255, 120).astype(np.uint8)[None].repeat(80, 0)
    alpha[16:32, 16:32] = 255
    data = encoded(Image.fromarray(np.dstack([scene, alpha])), "PNG")
    written, _ = painted(tmp_path, data)
    found = np.asarray(Image.open(io.BytesIO(written)))
    mask = outside(scene.shape)
    assert np.array_equal(found[:, :, 3], alpha)
    assert np.array_equal(found[mask], np.dstack([scene, alpha])[mask]), "what is hidden is as it was, too"
    assert (found[24, 24, :3] == 128).all()


def test_cmyk_becomes_rgb_and_is_said(scene: np.ndarray, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(scene).convert("CMYK"), "JPEG", quality=95)
    written, warnings = painted(tmp_path, data)
    assert Image.open(io.BytesIO(written)).mode == "RGB"
    assert warnings == ["its colours became those of sRGB"]
    assert np.abs(decode(data).astype(int) - decode(written))[outside(scene.shape, 16)].mean() < 2


def test_an_mpo_keeps_its_first_picture_and_says_so(scene: np.ndarray, tmp_path: Path) -> None:
    first, second = Image.fromarray(scene), Image.fromarray(255 - scene)
    data = encoded(first, "MPO", save_all=True, append_images=[second])
    (tmp_path / "a.mpo").write_bytes(data)
    assert still_kind(tmp_path / "a.mpo") == "jpeg"
    written, warnings = painted(tmp_path, data)
    assert any("MPO" in warning for warning in warnings)
    assert getattr(Image.open(io.BytesIO(written)), "n_frames", 1) == 1


def many_pages(scene: np.ndarray) -> bytes:
    page = Image.fromarray(scene)
    return encoded(page, "TIFF", save_all=True, append_images=[page, page])


def moving(scene: np.ndarray, name: str) -> bytes:
    pages = [Image.fromarray(np.roll(scene, shift, axis=1)) for shift in (0, 8, 16)]
    return encoded(pages[0], name, save_all=True, append_images=pages[1:], duration=[100, 300, 50])


def test_what_moves_is_no_still(scene: np.ndarray, tmp_path: Path) -> None:
    for name in ("GIF", "WEBP", "PNG"):
        path = tmp_path / f"moves.{name.lower()}"
        path.write_bytes(moving(scene, name))
        assert still_kind(path) is None
        with open_media(path) as reader:
            frames = [(float(frame.time_s), frame.rgb.copy()) for frame in reader]
        assert [time for time, _ in frames] == [0, pytest.approx(0.1), pytest.approx(0.4)], name
        limit = 25 if name == "GIF" else 8
        assert np.abs(frames[1][1].astype(int) - np.roll(scene, 8, axis=1)).mean() < limit
        facts = media_facts(path)
        assert (facts.width, facts.height) == (120, 80)
        path.write_bytes(encoded(Image.fromarray(scene), name))
        assert still_kind(path) == name.lower()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (many_pages, Reason.NOT_A_PICTURE),
        (lambda scene: encoded(Image.fromarray(scene), "JPEG")[:900], Reason.TRUNCATED),
        (lambda scene: encoded(Image.fromarray(scene), "PNG")[:-40], Reason.TRUNCATED),
        (lambda scene: encoded(Image.fromarray(scene), "WEBP")[:-40], Reason.TRUNCATED),
        (
            lambda scene: (
                encoded(Image.fromarray(scene), "PNG")[:16]
                + b"\0\1\x86\xa0\0\1\x86\xa0"
                + encoded(Image.fromarray(scene), "PNG")[24:]
            ),
            Reason.TOO_LARGE,
        ),
    ],
    ids=["many pages", "cut JPEG", "cut PNG", "cut WebP", "bomb"],
)
def test_what_cannot_be_read_has_a_reason(
    make: Callable[[np.ndarray], bytes], reason: Reason, scene: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "x.jpg").write_bytes(make(scene))
    with pytest.raises(InputError) as raised:
        open_media(tmp_path / "x.jpg")
    assert raised.value.reason == reason


def test_a_text_named_as_a_picture_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("<html>404</html>" * 30)
    for ask in (media_facts, open_media):
        with pytest.raises(InputError, match="a web page"):
            ask(tmp_path / "x.jpg")


def test_a_gif_of_endless_blocks_is_left_to_the_decoder(tmp_path: Path) -> None:
    """Two million blocks of one byte, where a picture has as many as its pixels need."""
    head = b"GIF89a" + (8).to_bytes(2, "little") * 2 + b"\x00\x00\x00"
    (tmp_path / "endless.gif").write_bytes(head + b"\x21\xfe" + b"\x01a" * 2**21 + b"\x00\x3b")
    assert still_kind(tmp_path / "endless.gif") is None


def test_a_file_that_is_replaced_is_told_anew(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encode_png(np.zeros((8, 8, 3), np.uint8)))
    assert still_kind(path) == "png"
    path.with_name("other").write_text("no picture")
    path.with_name("other").rename(path)
    assert still_kind(path) is None
