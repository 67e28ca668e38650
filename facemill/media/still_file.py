"""A still picture with a new face, in the file format that it came in and with all that it said of itself.

JPEG keeps its quantization tables, its subsampling and whether it is progressive, so its quality; PNG, BMP and TIFF are
exact, and WebP is where it was. Kinds that cannot be written as well as they came (GIF, HEIC, JPEG 2000, PNM) become
PNG.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from facemill.errors import InputError
from facemill.media.embedded import Carried, carried_jpeg, carried_png, kept_exif, kept_xmp
from facemill.media.own_pixels import OwnPixels, own_pixels
from facemill.media.still_frame import Change
from facemill.picture_headers import read_jpeg, sniff, webp_chunks
from facemill.pictures import open_with_pillow
from facemill.reasons import Reason

LOSSY_QUALITY = 95  # of WebP and AVIF, which do not say how they were encoded
AVIF_QUALITY = 90
LARGEST_ERROR = 16.0  # of 255, on average: a written picture that is farther from what was put in is another one
_LOSSLESS = ("png", "bmp", "tiff")
_TIFF_KEPT = {
    269, 270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 700, 33432, 33723,  # texts, resolution, XMP, IPTC
    33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113,  # places on the earth
}  # fmt: skip
_TIFF_OF_PIXELS = {
    254, 255, 256, 257, 258, 259, 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 284, 317, 318, 319, 320, 321, 322,
    323, 324, 325, 332, 338, 339, 347, 529, 530, 531, 532, 34675,
}  # fmt: skip
_TIFF_COMPRESSIONS = {
    "raw": None,
    "tiff_lzw": "tiff_lzw",
    "packbits": "packbits",
    "tiff_adobe_deflate": "tiff_adobe_deflate",
}
_RAW_TAGS = (50706, 330)  # DNG's version; pictures inside of the picture
_XMP_TAG = 700
_TIFF_DIRECTORIES = (34665, 34853)  # EXIF; the place


def written_suffix(kind: str) -> str | None:
    """What a name gets behind it where a kind is not written as it came: `.png`; None where it is."""
    return None if kind in _ENCODERS else ".png"


def check_still(data: bytes, kind: str) -> None:
    """Refuses files of which only a part would be seen.

    Raises:
        InputError: NOT_A_PICTURE: several pages, or a raw picture of a camera.
    """
    if kind != "tiff":
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is an error when it is decoded, or no harm
            picture: Any = open_with_pillow(data, kind)
            pages, tags = int(getattr(picture, "n_frames", 1)), picture.tag_v2
    except Exception:  # whoever decodes it says what is wrong
        return
    if any(tag in tags for tag in _RAW_TAGS):
        raise InputError(Reason.NOT_A_PICTURE, "a TIFF with pictures inside, as raw ones of cameras: develop it before")
    if pages > 1:
        raise InputError(
            Reason.NOT_A_PICTURE, f"a TIFF of {pages} pages, of which only the first is seen: save each as a file"
        )


def repainted(data: bytes, changes: Sequence[Change]) -> Carried:
    """A picture's file with what was painted.

    Args:
        data: the file as it is, which `decode` has decoded.
        changes: what was painted into what `decode` gave.

    Raises:
        InputError: CONVERSION_FAILED, what was written is not what was put in; DAMAGED.
    """
    kind = sniff(data) or ""
    own = own_pixels(data, kind)
    own.paint(changes)
    encode = _ENCODERS.get(kind, _png)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = encode(data, own)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, cv2.error) as error:
        raise InputError(Reason.CONVERSION_FAILED, f"it could not be encoded: {error!s:.200}") from error
    if kind not in _ENCODERS:
        written.notes.append(f"written as PNG: {kind.upper()} is not written")
    _verify(written.data, own, exact=kind not in _ENCODERS or kind in _LOSSLESS)
    return Carried(written.data, [*own.notes, *written.notes])


def _jpeg(data: bytes, own: OwnPixels) -> Carried:
    from PIL import JpegImagePlugin

    jpeg = read_jpeg(data)
    source: Any = open_with_pillow(jpeg.tidy, "jpeg")
    options: dict[str, Any] = {"progressive": jpeg.progressive, "optimize": True}
    tables = [source.quantization[number] for number in sorted(source.quantization)]
    sampling = JpegImagePlugin.get_sampling(source) if jpeg.components == 3 else 0
    if tables and jpeg.components != 4 and max(map(max, tables)) <= 255:
        options["qtables"] = tables
    else:
        options["quality"] = LOSSY_QUALITY
    options["subsampling"] = sampling if sampling >= 0 else 0
    if own.transposed and sampling == 1:  # 4:2:2 has no name for the other way round
        options["subsampling"] = 0
    buffer = io.BytesIO()
    source_of(own).save(buffer, "JPEG", **options)
    return carried_jpeg(
        data, buffer.getvalue(), transposed=own.transposed, profile=bool(own.profile) or jpeg.components != 4
    )


def _png(data: bytes, own: OwnPixels) -> Carried:
    encoded = _deep_png(own) if own.deep else _saved(own, "PNG")
    if sniff(data) == "png":
        return carried_png(data, encoded, transposed=own.transposed, profile=True)
    told = _Told.of(data, own)
    return Carried(
        _saved(own, "PNG", **told.options("exif", "icc_profile", "xmp")) if not own.deep else encoded, told.notes
    )


def _deep_png(own: OwnPixels) -> bytes:
    """PNG of 16 bits, which Pillow does not write."""
    pixels = own.colours if own.colours.ndim == 2 else own.colours[:, :, ::-1]
    if own.alpha is not None:
        bgr = pixels if pixels.ndim == 3 else np.dstack([pixels] * 3)
        pixels = np.dstack([bgr, own.alpha])
    done, buffer = cv2.imencode(".png", pixels)
    if not done:
        raise ValueError("OpenCV gave up")
    return buffer.tobytes()


def _webp(data: bytes, own: OwnPixels) -> Carried:
    lossless = any(name == b"VP8L" for name, _ in webp_chunks(data))
    told = _Told.of(data, own)
    options = told.options("exif", "icc_profile", "xmp")
    quality = {"quality": 80} if lossless else {"quality": LOSSY_QUALITY}
    return Carried(_saved(own, "WEBP", lossless=lossless, exact=True, method=4, **quality, **options), told.notes)


def _avif(data: bytes, own: OwnPixels) -> Carried:
    told = _Told.of(data, own)
    return Carried(_saved(own, "AVIF", quality=AVIF_QUALITY, **told.options("exif", "icc_profile", "xmp")), told.notes)


def _bmp(data: bytes, own: OwnPixels) -> Carried:
    if own.alpha is None:
        return Carried(_saved(own, "BMP"))
    own.alpha = None
    return Carried(_saved(own, "BMP"), ["alpha dropped: no pixel is transparent any more"])


def _tiff(data: bytes, own: OwnPixels) -> Carried:
    source: Any = open_with_pillow(data, "tiff")
    tags, notes = _tiff_tags(source)
    lost = sorted(set(source.tag_v2) - _TIFF_OF_PIXELS - tags.keys() - set(_TIFF_DIRECTORIES))
    if lost:
        notes.append(f"dropped the TIFF tags {', '.join(map(str, lost))}")
    if own.deep:
        if any(tag in source.tag_v2 for tag in _TIFF_DIRECTORIES):
            notes.append("dropped EXIF: it is not written beside 16 bits a channel")
        return Carried(_deep_tiff(own, source.tag_v2, tags), notes)
    compression = _TIFF_COMPRESSIONS.get(source.info.get("compression", "raw"), "tiff_adobe_deflate")
    exif = _exif_of(source, tags)
    if exif and compression:  # libtiff does not write the directories of EXIF, and all else is Pillow's own way
        notes.append("written without compression, so that EXIF is kept")
        compression = None
    told = {"exif": exif} if exif else {"tiffinfo": _tiff_directory(source, tags)}
    options = {"compression": compression} if compression else {}
    return Carried(_saved(own, "TIFF", icc_profile=own.profile, **told, **options), notes)


def _tiff_directory(source: Any, tags: Mapping[int, Any]) -> Any:
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    directory = ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory.tagtype[tag] = source.tag_v2.tagtype[tag]
        directory[tag] = value
    return directory


def _exif_of(source: Any, tags: Mapping[int, Any]) -> bytes:
    """The directories of EXIF and of the place, with the other tags before them; empty where there is neither."""
    from PIL import Image

    found, exif = source.getexif(), Image.Exif()
    for number in _TIFF_DIRECTORIES:
        if inner := found.get_ifd(number):
            exif.get_ifd(number).update(inner)
            exif[number] = exif.get_ifd(number)
    if not exif:
        return b""
    for tag, value in tags.items():
        exif[tag] = value
    return exif.tobytes()


def _tiff_tags(source: Any) -> tuple[dict[int, Any], list[str]]:
    """Those that are true of the new picture, too."""
    tags = {tag: source.tag_v2[tag] for tag in _TIFF_KEPT if tag in source.tag_v2}
    notes: list[str] = []
    if _XMP_TAG in tags:
        packet = tags.pop(_XMP_TAG)
        if (kept := kept_xmp(bytes(packet), notes)) is not None:
            tags[_XMP_TAG] = kept
    return tags, notes


def _deep_tiff(own: OwnPixels, known: Any, tags: Mapping[int, Any]) -> bytes:
    """TIFF of 16 bits, which Pillow writes in grey only."""
    import tifffile

    pixels = own.colours
    if own.alpha is not None:
        pixels = np.dstack([pixels, own.alpha])
    extra: list[tuple[int, int, int, Any, bool]] = []
    for tag, value in tags.items():
        kind = known.tagtype[tag]
        if tag in (282, 283, 296, 270, 305):
            continue  # which have arguments of their own
        plain = value if kind in (1, 2, 7) else value if isinstance(value, tuple) else (value,)
        extra.append((tag, kind, 0 if kind == 2 else len(plain), plain, True))
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        pixels,
        photometric="minisblack" if own.colours.ndim == 2 else "rgb",
        extrasamples=["unassalpha"] if own.alpha is not None else None,
        iccprofile=own.profile or None,
        resolution=(float(tags.get(282, 1)), float(tags.get(283, 1))),
        resolutionunit=int(tags.get(296, 1)),
        description=tags.get(270) or "",
        software=tags.get(305) or "",
        metadata=None,
        extratags=extra,
    )
    return buffer.getvalue()


class _Told:
    """What a picture says of itself as Pillow reads it, for those kinds that Pillow writes it into again."""

    def __init__(self) -> None:
        self.exif = self.icc_profile = self.xmp = b""
        self.notes: list[str] = []

    @classmethod
    def of(cls, data: bytes, own: OwnPixels) -> _Told:
        told = cls()
        info: Any = open_with_pillow(data, sniff(data) or "").info
        if exif := info.get("exif") or b"":
            told.exif = kept_exif(exif, told.notes, transposed=own.transposed)
        xmp = info.get("xmp") or b""
        if isinstance(xmp, bytes) and xmp:
            told.xmp = kept_xmp(xmp, told.notes) or b""
        told.icc_profile = own.profile
        return told

    def options(self, *names: str) -> dict[str, bytes]:
        return {name: value for name in names if (value := getattr(self, name))}


def source_of(own: OwnPixels) -> Any:
    """The pixels as a picture of Pillow's; those that have 8 bits."""
    from PIL import Image

    picture = Image.fromarray(own.colours)
    if own.alpha is not None:
        picture.putalpha(Image.fromarray(own.alpha))
    return picture


def _saved(own: OwnPixels, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    source_of(own).save(buffer, name, **options)
    return buffer.getvalue()


def _verify(data: bytes, own: OwnPixels, *, exact: bool) -> None:
    """Reads what was written: that bytes are there proves nothing."""
    try:
        kind = sniff(data) or ""
        found = own_pixels(data, kind)
    except InputError as error:
        raise InputError(Reason.CONVERSION_FAILED, f"verification: {error}") from error
    if found.colours.shape != own.colours.shape or found.transposed:
        detail = f"verification: {found.colours.shape}, expected {own.colours.shape}"
        raise InputError(Reason.CONVERSION_FAILED, detail)
    apart = np.abs(found.colours.astype(np.int32) - own.colours)
    if (int(apart.max(initial=0)) > 0) if exact else (float(apart.mean()) > LARGEST_ERROR):
        raise InputError(
            Reason.CONVERSION_FAILED, f"verification: pixels differ by {float(apart.mean()):.2f} on average"
        )


_ENCODERS: dict[str, Callable[[bytes, OwnPixels], Carried]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "avif": _avif,
    "bmp": _bmp,
    "tiff": _tiff,
}
