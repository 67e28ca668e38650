"""What a picture's file says beside its pixels, carried into the file that takes its place: EXIF, XMP, IPTC, profiles.

Blocks are copied byte for byte, since much in them (the notes of camera makers) holds places of its own bytes. Changed
is what is no longer true: the orientation, which is applied to the pixels; and what shows the old picture is left out,
thumbnails above all. Nothing that a block states is believed beyond its end.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from facemill.picture_headers import jpeg_end, jpeg_segments

_ORIENTATION, _EXIF_IFD, _WIDTH, _HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003
_THUMBNAIL_AT, _THUMBNAIL_BYTES = 0x0201, 0x0202
_MOST_ENTRIES = 4096
_EXIF_START = b"Exif\0\0"
_XMP_START = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP_START = b"Photoshop 3.0\0"
_PHOTOSHOP_THUMBNAILS = (1033, 1036)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that say how pixels are stored, which is written anew
_PNG_OF_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"bKGD", b"hIST", b"sBIT", b"sPLT"}
_PNG_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_PNG_COLOURS = {b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI"}


@dataclass
class Carried:
    """A file with what was said of it, and what of that was left out, in words."""

    data: bytes
    notes: list[str] = field(default_factory=list)


def upright_exif(block: bytes, *, transposed: bool) -> tuple[bytes, bool]:
    """An EXIF block (with `Exif\\0\\0` before it or not) of a picture that stands upright now.

    Args:
        transposed: whether width and height have changed places.

    Returns:
        The block, as long as before, and whether it had a thumbnail, which is blank now.
    """
    start = len(_EXIF_START) if block.startswith(_EXIF_START) else 0
    data = bytearray(block)
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[start : start + 2]))
    if order is None:
        return block, False
    exif = _Ifds(data, start, order)
    try:
        first = exif.number(start + 4, 4)
        entries, next_at = exif.entries(first)
        if _ORIENTATION in entries:
            exif.set_short(entries[_ORIENTATION], 1)
        if transposed and _EXIF_IFD in entries:
            inner, _ = exif.entries(exif.number(entries[_EXIF_IFD] + 8, 4))
            if _WIDTH in inner and _HEIGHT in inner:
                width, height = inner[_WIDTH], inner[_HEIGHT]
                data[width + 2 : width + 12], data[height + 2 : height + 12] = (
                    data[height + 2 : height + 12],
                    data[width + 2 : width + 12],
                )
        thumbnail = exif.drop_thumbnail(next_at)
        return bytes(data), thumbnail
    except (struct.error, IndexError):  # broken: as far as it could be read it is right
        return bytes(data), False


class _Ifds:
    """The directories of an EXIF block. Raises struct.error where it ends too early."""

    def __init__(self, data: bytearray, start: int, order: str) -> None:
        self._data, self._start, self._order = data, start, order

    def number(self, at: int, size: int) -> int:
        value: int = struct.unpack_from(self._order + {2: "H", 4: "I"}[size], self._data, at)[0]
        return value

    def entries(self, offset: int) -> tuple[dict[int, int], int]:
        """Tag → where its entry of 12 bytes stands; and where the place of the next directory stands."""
        at = self._start + offset
        count = self.number(at, 2)
        if count > _MOST_ENTRIES:
            raise struct.error("too many entries")
        places = {self.number(at + 2 + 12 * index, 2): at + 2 + 12 * index for index in range(count)}
        return places, at + 2 + 12 * count

    def set_short(self, entry: int, value: int) -> None:
        size = 4 if self.number(entry + 2, 2) == 4 else 2  # LONG, where SHORT is meant
        struct.pack_into(self._order + {2: "H", 4: "I"}[size], self._data, entry + 8, value)

    def drop_thumbnail(self, next_at: int) -> bool:
        following = self.number(next_at, 4)
        if following == 0:
            return False
        struct.pack_into(self._order + "I", self._data, next_at, 0)
        entries, _ = self.entries(following)
        if _THUMBNAIL_AT in entries and _THUMBNAIL_BYTES in entries:
            at = self._start + self.number(entries[_THUMBNAIL_AT] + 8, 4)
            end = min(at + self.number(entries[_THUMBNAIL_BYTES] + 8, 4), len(self._data))
            self._data[at:end] = bytes(max(0, end - at))
        return True


def upright_xmp(packet: bytes) -> bytes:
    """An XMP packet of a picture that stands upright now, and has no video behind it."""
    packet = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]", rb"\g<1>1", packet)
    return re.sub(rb"((?:MotionPhoto|MicroVideo)\s*(?:=\s*[\"']|>)\s*)1", rb"\g<1>0", packet)


def shows_picture(packet: bytes) -> bool:
    """Whether an XMP packet holds a thumbnail."""
    return b"xmpGImg:image" in packet or b"xap:Thumbnails" in packet


def carried_jpeg(source: bytes, encoded: bytes, *, transposed: bool, profile: bool) -> Carried:
    """The pixels of one JPEG with what another one says beside them.

    Args:
        source: the file whose pixels were taken.
        encoded: the file with the new ones.
        transposed: whether width and height have changed places.
        profile: whether the source's profile is that of the new pixels, too.
    """
    notes: list[str] = []
    kept: list[bytes] = []
    for marker, start, end in jpeg_segments(source):
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            continue
        segment = _kept_segment(marker, source[start + 4 : end], notes, transposed=transposed, profile=profile)
        if segment is not None:
            kept.append(bytes([0xFF, marker]) + (len(segment) + 2).to_bytes(2, "big") + segment)
    if source[(end := jpeg_end(source)) :].strip(b"\0"):
        behind = len(source) - end
        notes.append(f"dropped {behind} bytes behind the picture, such as a video or other pictures of it")
    # Adobe's marker says how the pixels were encoded, so the encoder's own is true
    own = [
        encoded[start:end]
        for marker, start, end in jpeg_segments(encoded)
        if not (0xE0 <= marker <= 0xED or marker in (0xEF, 0xFE))
    ]
    return Carried(b"".join([b"\xff\xd8", *kept, *own]), list(dict.fromkeys(notes)))


def _kept_segment(marker: int, content: bytes, notes: list[str], *, transposed: bool, profile: bool) -> bytes | None:
    if marker == 0xE0:
        if content.startswith(b"JFIF\0") and len(content) >= 14:
            return content[:12] + b"\0\0"  # without a thumbnail
        return None if content.startswith(b"JFXX\0") else content
    if marker == 0xE1 and content.startswith(_EXIF_START[:5]):
        block, thumbnail = upright_exif(content, transposed=transposed)
        if thumbnail:
            notes.append("dropped the thumbnail, which shows the old picture")
        return block
    if marker == 0xE1 and content.startswith(_XMP_START):
        if shows_picture(content):
            notes.append("dropped the XMP packet, which has a thumbnail of the old picture")
            return None
        return upright_xmp(content)
    if marker == 0xE2 and content.startswith(b"MPF\0"):
        notes.append("dropped the other pictures of the file (MPO): only the first one is converted")
        return None
    if marker == 0xE2 and content.startswith(b"ICC_PROFILE\0"):
        return content if profile else None
    if marker == 0xED and content.startswith(_PHOTOSHOP_START):
        return _without_thumbnails(content, notes)
    return None if marker == 0xEE and content.startswith(b"Adobe") else content


def _without_thumbnails(content: bytes, notes: list[str]) -> bytes:
    """Photoshop's resources, IPTC among them, without pictures of the old one."""
    kept, at = [_PHOTOSHOP_START], len(_PHOTOSHOP_START)
    while content[at : at + 4] == b"8BIM" and at + 12 <= len(content):
        number = int.from_bytes(content[at + 4 : at + 6], "big")
        name = content[at + 6] + 1
        size_at = at + 6 + name + name % 2
        size = int.from_bytes(content[size_at : size_at + 4], "big")
        end = size_at + 4 + size + size % 2
        if number in _PHOTOSHOP_THUMBNAILS:
            notes.append("dropped the thumbnail, which shows the old picture")
        else:
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


def carried_png(source: bytes, encoded: bytes, *, transposed: bool, profile: bool) -> Carried:
    """The pixels of one PNG with what another one says beside them; arguments as of `carried_jpeg`."""
    notes: list[str] = []
    kept: list[bytes] = []
    for name, content in png_chunks(source):
        if name in _PNG_OF_PIXELS | _PNG_ANIMATION or (name in _PNG_COLOURS and not profile):
            continue
        if name == b"eXIf":
            content, thumbnail = upright_exif(content, transposed=transposed)
            if thumbnail:
                notes.append("dropped the thumbnail, which shows the old picture")
        elif name == b"pHYs" and transposed and len(content) == 9:
            content = content[4:8] + content[:4] + content[8:]
        elif name == b"iTXt" and content.startswith(b"XML:com.adobe.xmp\0"):
            if shows_picture(content):
                notes.append("dropped the XMP packet, which has a thumbnail of the old picture")
                continue
            content = upright_xmp(content)
        elif content.startswith((b"Raw profile type exif\0", b"Raw profile type APP1\0")):
            notes.append("dropped EXIF of an old kind (ImageMagick's text)")
            continue
        elif not name.isalpha() or name[0] < 97:
            continue  # a critical chunk of an extension that nobody knows
        kept.append(_png_chunk(name, content))
    chunks = list(png_chunks(encoded))
    head = [_png_chunk(*chunk) for chunk in chunks if chunk[0] == b"IHDR"]
    body = [_png_chunk(*chunk) for chunk in chunks if chunk[0] in (b"PLTE", b"tRNS", b"IDAT", b"IEND")]
    # in front of the pixels, as colours have to be; texts may stand there
    return Carried(b"".join([_PNG_SIGNATURE, *head, *kept, *body]), notes)


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


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")
