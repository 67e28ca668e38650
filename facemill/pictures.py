"""Bytes to pictures and back, safe against whatever a person can put in a folder.

The size is read from the header before anything is decoded (`picture_headers`): a 100,000 × 100,000 PNG is refused for
33 bytes of work, not after 30 GB of memory. A picture that ends early or is broken in the middle is an error, where
most readers fill the rest with grey: for that libjpeg's warnings are heard, through simplejpeg. Everything else is
Pillow's, with OpenCV for 16 bits. What comes out is what a viewer shows: upright (EXIF), in sRGB, on white where it is
transparent.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from functools import cache, lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

# OpenCV reads its own limit once, at import; ours is checked first, and its message must not win.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**40))
import cv2

from facemill.deep_pictures import used_range, wide_pixels
from facemill.errors import InputError
from facemill.picture_headers import JpegFile, check_png, header_size, not_read, read_jpeg, sniff
from facemill.reasons import Reason

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "RGB",
    "decode",
    "decode_own",
    "encode_jpeg",
    "encode_png",
    "open_with_pillow",
    "orientation_of",
    "picture_size",
    "sha256_hex",
    "sniff",
]

RGB = npt.NDArray[np.uint8]
DEFAULT_MAX_PIXELS = 64_000_000

_PILLOW_FORMATS = {
    "png": "PNG",
    "webp": "WEBP",
    "bmp": "BMP",
    "gif": "GIF",
    "tiff": "TIFF",
    "pnm": "PPM",
    "avif": "AVIF",
    "heic": "HEIF",
    "jp2": "JPEG2000",
    "jpeg": "JPEG",
}
_TOLD_CHARACTERS = 200
_ORIENTATION = 0x0112
_HARMLESS = ("JFIF revision", "Adobe color transform", "SOS parameters", "progression")
"""Of libjpeg's warnings: all rows are there and as they were written."""
_UNUSUAL = ("subsampling", "nsupported", "not supported")
"""Of TurboJPEG's errors: the picture is sound, but of a kind that only libjpeg's own interface reads."""


def decode(data: bytes, *, max_pixels: int | None = DEFAULT_MAX_PIXELS) -> RGB:
    """Decodes JPEG (MPO: its first picture), PNG, WebP, BMP, TIFF, PNM, GIF, AVIF, JPEG 2000 and, with the package
    pillow-heif, HEIC; of several frames or pages the first.

    Args:
        data: the encoded picture.
        max_pixels: pictures with more are refused by their header; None where that was judged before.

    Returns:
        RGB uint8 H×W×3, upright (EXIF applied), in sRGB (ICC applied), C-contiguous. Grey becomes three equal channels,
        what is transparent lies on white, 16 bits are brought to 8 by the range that they use (10, 12 or 16 bits).

    Raises:
        InputError: EMPTY_FILE, NOT_A_PICTURE, TRUNCATED, DAMAGED, or TOO_LARGE above `max_pixels`; nothing else,
            whatever the bytes are.
    """
    picture_size(data, max_pixels=max_pixels)
    kind = sniff(data) or ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is an error below, or no harm
            picture, orientation = _decode_jpeg(data) if kind == "jpeg" else _decode_other(data, kind, max_pixels)
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(Reason.TOO_LARGE, "not enough memory to decode it") from error
    # Decoders raise whatever they like at bytes that they did not expect: SyntaxError, struct.error, KeyError, …
    except Exception as error:
        raise _problem(error) from error
    return np.ascontiguousarray(turned(picture, orientation))


def decode_own(data: bytes) -> RGB:
    """Decodes a JPEG or PNG that facemill has encoded, with OpenCV alone: a GPU machine need have no other decoder.

    Raises:
        InputError: NOT_A_PICTURE.
    """
    bgr: Any = cv2.imdecode(np.frombuffer(data or b"-", np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise InputError(Reason.NOT_A_PICTURE, "the decoder gave up")
    return np.ascontiguousarray(bgr[:, :, ::-1])


def picture_size(data: bytes, *, max_pixels: int | None = None) -> tuple[int, int] | None:
    """Width and height in pixels as the header states them (before EXIF rotation); None where only decoding can tell.

    Raises:
        InputError: EMPTY_FILE, NOT_A_PICTURE (no known signature), TRUNCATED (in its header), TOO_LARGE above
            `max_pixels`.
    """
    if not data:
        raise InputError(Reason.EMPTY_FILE)
    kind = sniff(data)
    if kind is None:
        raise InputError(Reason.NOT_A_PICTURE, not_read(data))
    size = header_size(data, kind)
    if size is None and kind != "jpeg":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                size = open_with_pillow(data, kind).size
        except InputError:
            raise
        except Exception:  # decoding says what is wrong
            return None
    if size is not None:
        _check_size(size, max_pixels)
    return size


def orientation_of(data: bytes) -> int:
    """EXIF's orientation 1 to 8, by which `decode` turns a picture; 1 where none is stated.

    Raises:
        InputError: as `decode`, for bytes whose header is broken.
    """
    kind = sniff(data) or ""
    if kind == "jpeg":
        return _exif_orientation(read_jpeg(data).exif)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _pillow_orientation(open_with_pillow(data, kind))
    except InputError:
        raise
    except Exception as error:
        raise _problem(error) from error


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


def _check_size(size: tuple[int, int], max_pixels: int | None) -> None:
    if max_pixels is not None and size[0] * size[1] > max_pixels:
        raise InputError(Reason.TOO_LARGE, f"{size[0]}×{size[1]} pixels, limit {max_pixels}")


def _problem(error: Exception) -> InputError:
    told = f"{error!s:.{_TOLD_CHARACTERS}}" or type(error).__name__
    if type(error).__name__ == "UnidentifiedImageError":
        return InputError(Reason.NOT_A_PICTURE, "of a kind that the decoder does not read, or its header is broken")
    if isinstance(error, EOFError) or "truncated" in told or "not enough image data" in told:
        return InputError(Reason.TRUNCATED)
    return InputError(Reason.DAMAGED, told)


def _decode_jpeg(data: bytes) -> tuple[RGB, int]:
    jpeg = read_jpeg(data)
    orientation = _exif_orientation(jpeg.exif)
    try:
        picture = _jpeg_pixels(jpeg)
    except _UnusualJpeg:
        return _to_rgb(open_with_pillow(jpeg.tidy, "jpeg"), jpeg.icc), orientation
    if jpeg.icc or jpeg.components == 4:
        return _to_rgb(picture if jpeg.components == 4 else _grey_or_rgb(picture, jpeg), jpeg.icc), orientation
    return np.asarray(picture), orientation


def _jpeg_pixels(jpeg: JpegFile) -> Any:
    """Pixels as an array, RGB or grey, or of CMYK as a picture of Pillow's."""
    import simplejpeg

    if not (jpeg.complete or jpeg.all_scanned):
        raise InputError(Reason.TRUNCATED, "it ends before its last scan")
    space = {1: "GRAY" if jpeg.icc else "RGB", 4: "CMYK"}.get(jpeg.components, "RGB")
    try:
        pixels = simplejpeg.decode_jpeg(jpeg.tidy, colorspace=space, strict=True)
    except ValueError as error:
        told = str(error)
        if any(word in told for word in _UNUSUAL):
            raise _UnusualJpeg from error
        if not (any(word in told for word in _HARMLESS) or _is_padded(told, jpeg.tidy)):
            if jpeg.complete:
                raise InputError(Reason.DAMAGED, told[:_TOLD_CHARACTERS]) from error
            raise InputError(Reason.TRUNCATED) from error
        pixels = simplejpeg.decode_jpeg(jpeg.tidy, colorspace=space, strict=False)
    if jpeg.components == 4:
        return _pillow().fromarray(255 - pixels if jpeg.adobe else pixels, "CMYK")
    return pixels


def _is_padded(warning: str, data: bytes) -> bool:
    """Whether a warning is about bytes before the end that only fill it up; others are what a broken scan left over."""
    found = re.search(r"(\d+) extraneous bytes before marker 0xd9", warning)
    left_over = data[-2 - int(found[1]) : -2] if found else b""
    return left_over != b"" and left_over.strip(left_over[:1]) == b""


class _UnusualJpeg(Exception):
    pass


def _grey_or_rgb(pixels: Any, jpeg: JpegFile) -> Image:
    found: Image = _pillow().fromarray(pixels[:, :, 0] if jpeg.components == 1 else pixels)
    return found


def _decode_other(data: bytes, kind: str, max_pixels: int | None) -> tuple[RGB, int]:
    if kind == "png":
        check_png(data)
    if kind == "webp" and len(data) < int.from_bytes(data[4:8], "little") + 8:
        raise InputError(Reason.TRUNCATED, "shorter than it says")
    picture = open_with_pillow(data, kind)
    _check_size(picture.size, max_pixels)  # a frame may be larger than the canvas that the header stated
    profile = picture.info.get("icc_profile") or b""
    wide = wide_pixels(data, kind, picture)
    orientation = 1 if kind == "tiff" else _pillow_orientation(picture)  # each decoder turns a TIFF as it loads it
    return _to_rgb(picture if wide is None else _narrowed(wide), profile), orientation


def open_with_pillow(data: bytes, kind: str) -> Image:
    """Pillow's picture of one of the kinds that `sniff` tells apart, of which only the header has been read. Pillow
    raises whatever it likes at bytes that it did not expect, now and when pixels are asked for."""
    if kind == "heic":
        _register_heic()
    found: Image = _pillow().open(io.BytesIO(data), formats=[_PILLOW_FORMATS[kind]])
    return found


@cache
def _pillow() -> ModuleType:
    from PIL import Image

    # Pillow's own limit is 179 million pixels for everybody; ours is a parameter, and is checked before each decoding.
    Image.MAX_IMAGE_PIXELS = None
    return Image


def _register_heic() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise InputError(
            Reason.NOT_A_PICTURE, "HEIC, which is read where the package pillow-heif is installed"
        ) from None
    register_heif_opener()


def _narrowed(pixels: npt.NDArray[np.uint16]) -> Image:
    """16 bits to 8, by the range that is used."""
    colours = pixels[:, :, :3] if pixels.ndim == 3 else pixels
    full = used_range(colours)
    to_8 = (np.arange(65_536, dtype=np.uint64) * 255 + full // 2) // full
    narrow = to_8.clip(0, 255).astype(np.uint8)[colours]
    if pixels.ndim == 3 and pixels.shape[2] == 4:  # alpha uses all of its range
        narrow = np.dstack([narrow, (pixels[:, :, 3] >> 8).astype(np.uint8)])
    found: Image = _pillow().fromarray(narrow)
    return found


def _to_rgb(picture: Image, profile: bytes) -> RGB:
    """A picture of any mode as RGB: alpha on white, colours in sRGB."""
    picture.load()
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        raise InputError(Reason.NOT_A_PICTURE, f"pixels of a kind that is not read ({picture.mode})")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
        colours = _in_srgb(picture.convert("RGB"), profile)
        white = _pillow().new("RGB", picture.size, (255, 255, 255))
        white.paste(colours, (0, 0), alpha)
        return np.asarray(white)
    if picture.mode in ("P", "1"):
        picture = picture.convert("RGB")
    return np.asarray(_in_srgb(picture, profile))


def _in_srgb(picture: Image, profile: bytes) -> Image:
    """The picture in RGB, its colours as sRGB; a profile that cannot be read or is none of its kind says nothing."""
    if profile:
        from PIL import ImageCms

        try:
            transform = colour_transform(profile, picture.mode)
            if transform is not None:
                return ImageCms.applyTransform(picture, transform) or picture
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return picture if picture.mode == "RGB" else picture.convert("RGB")


@lru_cache(maxsize=16)
def colour_transform(profile: bytes, mode: str, *, back: bool = False) -> Any:
    """Little CMS's transform from a profile's colours to sRGB, or None where they are sRGB already.

    Args:
        mode: Pillow's, of pixels in the profile's colours.
        back: from sRGB to those colours.

    Raises:
        PyCMSError, OSError, ValueError, TypeError: the profile cannot be read, or is none for this mode.
    """
    from PIL import ImageCms

    read = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(read):
        return None
    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(*((srgb, read, "RGB", mode) if back else (read, srgb, mode, "RGB")))


def _exif_orientation(block: bytes) -> int:
    """1 to 8 of an EXIF block; 1 where there is none or it cannot be read."""
    if not block:
        return 1
    exif = _pillow().Exif()
    try:
        exif.load(block)
        return _stated(exif.get(_ORIENTATION))
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return 1


def _pillow_orientation(picture: Image) -> int:
    try:
        return _stated(picture.getexif().get(_ORIENTATION))
    except Exception:  # a broken EXIF block is no reason to lose the picture
        return 1


def _stated(value: Any) -> int:
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turned(picture: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """A view of pixels (H×W or H×W×C), turned and mirrored as EXIF's orientation 1 to 8 wants it."""
    if orientation in (5, 6, 7, 8):
        picture = picture.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return picture
