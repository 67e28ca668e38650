"""What a picture's file says beside its pixels, carried into the file that takes its place: EXIF, XMP, IPTC, profiles.

Blocks are copied byte for byte, since much in them (the notes of camera makers) holds places of its own bytes. Changed
is what is no longer true: the orientation, which is applied to the pixels; and what shows the old picture is left out,
thumbnails above all. Kept is what is known to show nothing; whatever else a file brings is dropped and said, since some
programs put whole pictures into blocks of their own. Nothing that a block states is believed beyond its end.
"""

from __future__ import annotations

import re
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field

from facemill.picture_headers import jpeg_end, jpeg_segments, png_chunks

_ORIENTATION, _EXIF_IFD, _WIDTH, _HEIGHT = 0x0112, 0x8769, 0xA002, 0xA003
_THUMBNAILS = ((0x0201, 0x0202), (0x0111, 0x0117))
"""Tags of where a thumbnail lies and of how many bytes it has: as JPEG, and in strips of plain pixels."""
_SIZES = {3: 2, 4: 4}  # bytes of a SHORT and of a LONG
_JPEG_START = b"\xff\xd8\xff"
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
_PNG_KEPT = _PNG_COLOURS | {b"eXIf", b"pHYs", b"tIME", b"tEXt", b"zTXt", b"iTXt"}
_PNG_XMP = b"XML:com.adobe.xmp\0"
_PNG_RAW_PROFILE = b"Raw profile type "  # ImageMagick's: EXIF, XMP, Photoshop's resources as text


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
        The block, as long as before, and whether it had a thumbnail, which is blank now. Of a broken one that is
        whatever begins as a JPEG.
    """
    start = len(_EXIF_START) if block.startswith(_EXIF_START) else 0
    data = bytearray(block)
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[start : start + 2]))
    if order is None:
        return block, False
    exif = _Ifds(data, start, order)
    try:
        entries, next_at = exif.entries(exif.number(start + 4, 4))
        if _ORIENTATION in entries:
            exif.set_short(entries[_ORIENTATION], 1)
        thumbnail = exif.drop_thumbnail(next_at)
    except (struct.error, IndexError):
        at = data.find(_JPEG_START)
        if at >= 0:
            data[at:] = bytes(len(data) - at)
        return bytes(data), at >= 0
    if transposed and _EXIF_IFD in entries:
        with suppress(struct.error, IndexError):  # then there are no sides that could be wrong
            exif.swap_sides(exif.number(entries[_EXIF_IFD] + 8, 4))
    return bytes(data), thumbnail


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
        for place, length in _THUMBNAILS:
            if place in entries and length in entries:
                for offset, count in zip(self._values(entries[place]), self._values(entries[length]), strict=False):
                    at = self._start + offset
                    end = min(at + count, len(self._data))
                    self._data[at:end] = bytes(max(0, end - at))
        return True

    def swap_sides(self, offset: int) -> None:
        """Width and height of the picture, as the directory at `offset` states them, change places."""
        entries, _ = self.entries(offset)
        if _WIDTH in entries and _HEIGHT in entries:
            width, height = (slice(entries[tag] + 2, entries[tag] + 12) for tag in (_WIDTH, _HEIGHT))
            self._data[width], self._data[height] = self._data[height], self._data[width]

    def _values(self, entry: int) -> list[int]:
        """The numbers of an entry of SHORTs or LONGs."""
        size, count = _SIZES.get(self.number(entry + 2, 2), 4), self.number(entry + 4, 4)
        if count > _MOST_ENTRIES:
            raise struct.error("too many values")
        at = entry + 8 if size * count <= 4 else self._start + self.number(entry + 8, 4)
        return [self.number(at + size * index, size) for index in range(count)]


def upright_xmp(packet: bytes) -> bytes:
    """An XMP packet of a picture that stands upright now, and has no video behind it."""
    packet = re.sub(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]", rb"\g<1>1", packet)
    return re.sub(rb"((?:MotionPhoto|MicroVideo)\s*(?:=\s*[\"']|>)\s*)1", rb"\g<1>0", packet)


def kept_xmp(packet: bytes, notes: list[str]) -> bytes | None:
    """An XMP packet as it is true of the new picture; None where it holds a picture itself, which is noted."""
    if any(name in packet for name in (b"xmpGImg:image", b"xap:Thumbnails", b"GImage:Data", b"GDepth:Data")):
        notes.append("dropped the XMP packet, which has a thumbnail of the old picture")
        return None
    return upright_xmp(packet)


def kept_exif(block: bytes, notes: list[str], *, transposed: bool) -> bytes:
    """`upright_exif`, a thumbnail noted."""
    block, thumbnail = upright_exif(block, transposed=transposed)
    if thumbnail:
        notes.append("dropped the thumbnail, which shows the old picture")
    return block


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
    if marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 14:
        return content[:12] + b"\0\0"  # without a thumbnail
    if marker == 0xE1 and content.startswith(_EXIF_START[:5]):
        return kept_exif(content, notes, transposed=transposed)
    if marker == 0xE1 and content.startswith(_XMP_START):
        return kept_xmp(content, notes)
    if marker == 0xE2 and content.startswith(b"MPF\0"):
        notes.append("dropped the other pictures of the file (MPO): only the first one is converted")
        return None
    if marker == 0xE2 and content.startswith(b"ICC_PROFILE\0"):
        return content if profile else None
    if marker == 0xED and content.startswith(_PHOTOSHOP_START):
        return _without_thumbnails(content, notes)
    if marker == 0xFE:
        return content
    if not (marker == 0xEE and content.startswith(b"Adobe")):  # that says how pixels were stored
        notes.append(f"dropped the segment APP{marker - 0xE0}, which may show the old picture")
    return None


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
        packet: bytes | None = content
        if name not in _PNG_KEPT:
            notes.append(f"dropped the chunk {name.decode('latin-1')}, which may show the old picture")
            continue
        if name == b"eXIf":
            packet = kept_exif(content, notes, transposed=transposed)
        elif name == b"pHYs" and transposed and len(content) == 9:
            packet = content[4:8] + content[:4] + content[8:]
        elif name != b"tIME" and content.startswith(_PNG_RAW_PROFILE):
            notes.append("dropped metadata of an old kind (ImageMagick's text)")
            packet = None
        elif content.startswith(_PNG_XMP):
            if name == b"iTXt" and content[len(_PNG_XMP) : len(_PNG_XMP) + 1] == b"\0":  # 1: compressed
                packet = kept_xmp(content, notes)
            else:
                notes.append("dropped the XMP packet, which is compressed and may show the old picture")
                packet = None
        if packet is not None:
            kept.append(_png_chunk(name, packet))
    chunks = list(png_chunks(encoded))
    head = [_png_chunk(*chunk) for chunk in chunks if chunk[0] == b"IHDR"]
    body = [_png_chunk(*chunk) for chunk in chunks if chunk[0] in (b"PLTE", b"tRNS", b"IDAT", b"IEND")]
    # in front of the pixels, as colours have to be; texts may stand there
    return Carried(b"".join([_PNG_SIGNATURE, *head, *kept, *body]), list(dict.fromkeys(notes)))


def _png_chunk(name: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")
