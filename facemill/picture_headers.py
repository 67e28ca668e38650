"""What the first bytes and the structure of a picture say, before anything is decoded.

The size that a header states is checked before a decoder gets to see it: a WebP of 38 bytes or a TIFF of 2 KB can ask
for gigabytes. Only bytes are looked at here; a length that a file states is never believed beyond the file's end.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from facemill.errors import InputError
from facemill.reasons import Reason

KINDS = ("jpeg", "png", "webp", "bmp", "gif", "tiff", "pnm", "avif", "heic", "jp2")
"""What `sniff` tells apart."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"GIF8", "gif"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"II+\x00", "tiff"),
    (b"MM\x00+", "tiff"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
)
_NOT_READ = (
    (b"8BPS", "Photoshop"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"gimp xcf", "GIMP's XCF"),
    (b"IIU\x00", "a raw picture of a camera"),
    (b"FUJIFILMCCD-RAW", "a raw picture of a camera"),
    (b"<svg", "SVG"),
    (b"<?xml", "SVG or other XML"),
    (b"<!DOCTYPE", "a web page"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
)
_START_OF_SCAN, _END = 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODED_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_PROGRESSIVE_FRAMES = frozenset({0xC2, 0xCA})
_NEXT_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
"""One byte in front and no `+`: so the search jumps from one to the next as memchr does, and is linear in a file that
holds nothing else."""
_MOST_SCANS = 500
_CRITICAL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})


def sniff(data: bytes) -> str | None:
    """The format by its first bytes, one of `KINDS`, or None. 32 bytes are enough."""
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _iso_kind(data)
    return "pnm" if len(data) > 3 and data[0:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace() else None


def not_read(data: bytes) -> str:
    """In words, what bytes are that are no picture of a kind in `KINDS`."""
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    name = next(
        (name for signature, name in _NOT_READ if start.startswith(signature) or data.startswith(signature)), ""
    )
    return f"{name}, which is not read" if name else "no known signature"


def header_size(data: bytes, kind: str) -> tuple[int, int] | None:
    """Width and height in pixels as the header states them; None for a kind whose header only its decoder reads.

    Raises:
        InputError: TRUNCATED, where the file ends in its header.
    """
    if kind == "jpeg":
        return next(_jpeg_sizes(data), None)
    if kind in _SIZE_READERS:
        try:
            return _SIZE_READERS[kind](data)
        except struct.error:
            raise InputError(Reason.TRUNCATED, "no header") from None
    return None


@dataclass
class JpegFile:
    """A JPEG by its segments.

    Attributes:
        tidy: its bytes without what stands between segments or behind its end, with an end; the same object where
            nothing had to be changed.
        size: width and height as its frame states them.
        components: of a pixel.
        exif: the EXIF block behind its `Exif\\0\\0`, or empty.
        icc: the colour profile, put together, or empty.
        adobe: whether Adobe's marker is there: CMYK is inverted then.
        complete: whether it had an end of its own.
        scans: how many it has.
        progressive: whether they bring it in several passes.
    """

    tidy: bytes
    size: tuple[int, int] = (0, 0)
    components: int = 0
    exif: bytes = b""
    icc: bytes = b""
    adobe: bool = False
    complete: bool = True
    scans: int = 0
    progressive: bool = False
    _profile: dict[int, bytes] = field(default_factory=dict)
    _scan_headers: list[bytes] = field(default_factory=list)

    @property
    def all_scanned(self) -> bool:
        """Whether scans have brought every coefficient of every component to its last bit; of a progressive picture
        that ends between two scans some are missing, though each row is there."""
        precision: dict[int, list[int]] = {}  # of each component, the bit with which each coefficient ends
        for header in self._scan_headers:
            count = header[0] if header else 0
            ids, band = header[1 : 1 + 2 * count : 2], header[1 + 2 * count : 4 + 2 * count]
            if len(band) < 3:
                continue
            first, last, low_bit = (band[0], band[1], band[2] & 15) if self.progressive else (0, 63, 0)
            for component in ids:
                bits = precision.setdefault(component, [13] * 64)
                for coefficient in range(first, min(last, 63) + 1):
                    bits[coefficient] = min(bits[coefficient], low_bit)
        return len(precision) >= self.components and not any(map(any, precision.values()))


def read_jpeg(data: bytes) -> JpegFile:
    """Walks over the segments of a JPEG: bytes that lie between them are none of its own, and are no harm.

    Raises:
        InputError: TRUNCATED (no scan), NOT_A_PICTURE (no frame, or one of a kind that is not read), DAMAGED (scans
            without end).
    """
    found = JpegFile(data)
    pieces: list[bytes] = []
    kept_from, kept_to = 0, 2
    for marker, start, end in jpeg_segments(data):
        if start != kept_to:  # stray bytes before this segment
            pieces.append(data[kept_from:kept_to])
            kept_from = start
        kept_to = end
        _read_segment(found, marker, data[start + 4 : min(end, start + 4 + 65_533)])
        if marker == _END:
            break
    else:
        found.complete = False
    if not found.scans:
        raise InputError(Reason.TRUNCATED, "it ends before its picture begins")
    if not found.size[0] or not found.components:
        raise InputError(Reason.NOT_A_PICTURE, "a JPEG without a frame")
    pieces.append(data[kept_from:kept_to])
    if not found.complete:
        pieces.append(b"\xff\xd9")
    if len(pieces) > 1 or len(pieces[0]) != len(data):
        found.tidy = b"".join(pieces)
    found.icc = b"".join(found._profile[number] for number in sorted(found._profile))
    return found


def jpeg_end(data: bytes) -> int:
    """Where a JPEG ends, by its segments: bytes behind that are none of its own."""
    return max((end for _, _, end in jpeg_segments(data)), default=2)


def jpegs_in_a_row(data: bytes) -> bool:
    """Whether JPEGs of one size stand behind one another, as a camera's raw stream of them has it. Those of an MPO do,
    too, but the first one names the others; a depth map or another light of a phone's picture is smaller.

    Args:
        data: of the file, to behind the head of the second picture.
    """
    end = jpeg_end(data)
    return (
        data[end : end + 3] == b"\xff\xd8\xff"
        and b"MPF\0" not in data[: min(end, 2**18)]
        and next(_jpeg_sizes(data), None) == next(_jpeg_sizes(data[end : end + 2**18]), None)
    )


def check_png(data: bytes) -> None:
    """Walks over the chunks of a PNG up to its end; what stands behind that is no harm.

    Raises:
        InputError: TRUNCATED, or DAMAGED where the check sum of a chunk that matters is wrong.
    """
    view = memoryview(data)
    at = 8
    while at + 12 <= len(data):
        length, name = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        end = at + 12 + length
        if end > len(data):
            break
        if name in _CRITICAL_CHUNKS and zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(
            view[end - 4 : end], "big"
        ):
            raise InputError(Reason.DAMAGED, f"the check sum of its {name.decode('ascii')} is wrong")
        if name == b"IEND":
            return
        at = end
    raise InputError(Reason.TRUNCATED, "no end marker")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of each whole chunk of a PNG up to its end."""
    at = 8
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            return
        yield name, data[at + 8 : at + 8 + length]
        if name == b"IEND":
            return
        at += 12 + length


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of each chunk of a WebP; the last one may be cut short."""
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _iso_kind(data: bytes) -> str | None:
    """AVIF or HEIC by the brands of an ISO file."""
    brands = data[8 : max(16, min(int.from_bytes(data[:4], "big"), 64))]
    if re.search(rb"avi[fs]", brands):
        return "avif"
    return "heic" if re.search(rb"hei[cxms]|hev[cxms]|mif1|msf1", brands) else None


def _read_segment(found: JpegFile, marker: int, content: bytes) -> None:
    if marker in _FRAMES and not found.components and len(content) >= 6:
        if marker not in _DECODED_FRAMES or content[0] != 8:
            raise InputError(
                Reason.NOT_A_PICTURE, f"JPEG of a kind that is not read (frame {marker:X}, {content[0]} bits)"
            )
        height, width = struct.unpack(">HH", content[1:5])
        found.size, found.components = (width, height), content[5]
        found.progressive = marker in _PROGRESSIVE_FRAMES
    elif marker == _START_OF_SCAN:
        found.scans += 1
        found._scan_headers.append(content[:16])
        if found.scans > _MOST_SCANS:
            raise InputError(Reason.DAMAGED, f"more than {_MOST_SCANS} scans")
    elif marker == 0xE1 and content.startswith(b"Exif\0") and not found.exif:
        found.exif = content[6:]
    elif marker == 0xE2 and content.startswith(b"ICC_PROFILE\0") and len(content) > 14:
        found._profile.setdefault(content[12], content[14:])
    elif marker == 0xEE and content.startswith(b"Adobe"):
        found.adobe = True


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Of a JPEG, (marker, start, end) of each segment behind its start; of a scan with the data that follow it."""
    at = 2
    while found := _NEXT_MARKER.search(data, at):
        marker, start = found[1][0], found.end() - 2
        if marker in (0x01, 0xD8):  # no length; a start in a picture is none
            at = found.end()
            continue
        if marker == _END:
            yield marker, start, found.end()
            return
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        end = start + 2 + length
        if length < 2 or end > len(data):
            at = found.end()
            continue
        if marker == _START_OF_SCAN:
            following = _NEXT_MARKER.search(data, end)
            end = following.start() if following else len(data)
        yield marker, start, end
        at = end


def _jpeg_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    for marker, start, _ in jpeg_segments(data):
        if marker in _FRAMES and start + 9 <= len(data):
            height, width = struct.unpack(">HH", data[start + 5 : start + 9])
            yield width, height
        elif marker == _START_OF_SCAN:
            return


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack("<HH", data[6:10])
    return width, height


def _bmp_size(data: bytes) -> tuple[int, int]:
    if data[14:18] == b"\x0c\0\0\0":  # OS/2: 16 bits each
        width, height = struct.unpack("<HH", data[18:22])
        return width, height
    width, height = struct.unpack("<ii", data[18:26])
    return abs(width), abs(height)


def _webp_size(data: bytes) -> tuple[int, int]:
    first = data[12:16]
    if first == b"VP8X":
        (flags_and_width, height_low, height_high) = struct.unpack("<IHB", data[23:30])
        return (flags_and_width >> 8) + 1, (height_low | height_high << 16) + 1
    if first == b"VP8L":
        (bits,) = struct.unpack("<I", data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


_SIZE_READERS = {"png": _png_size, "gif": _gif_size, "bmp": _bmp_size, "webp": _webp_size}
