"""What a file of an archive is, by its content: a still picture of some kind, something that moves, or neither."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from facemill.errors import InputError
from facemill.foreign_files import open_regular
from facemill.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Tell, list_holding, read_limited, tell_nobody
from facemill.picture_headers import jpeg_end, not_read, png_chunks, sniff, webp_chunks
from facemill.pictures import DEFAULT_MAX_PIXELS, orientation_of, picture_size
from facemill.reasons import Reason
from facemill.video import probe
from facemill.video.info import STILL_BRANDS

MAX_STILL_BYTES = 2**28  # more than any picture of as many pixels as are read
HEAD_BYTES = 64
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes of each version of its second header
_PICTURE = " picture"


@dataclass(frozen=True)
class MediaFacts:
    """What a table says of a video or a picture before it is decoded.

    Attributes:
        codec: FFmpeg's name, or of a still picture its kind and the word: "jpeg picture".
        width, height: in pixels, as it is shown.
        frames: as the container states them; 1 of a still picture.
        duration_s: None of a still picture, and where nothing is stated.
        audio: codec of the first stream of sound.
        fps: average, where there is one.
    """

    codec: str
    width: int
    height: int
    frames: int | None
    duration_s: float | None
    audio: str | None
    fps: float | None = None


def kind_in(codec: str | None) -> str | None:
    """The kind of a still picture out of a table's column `codec`; None for a video's."""
    return codec.removesuffix(_PICTURE) if codec and codec.endswith(_PICTURE) else None


def still_kind(path: Path | str) -> str | None:
    """The kind of a still picture (`facemill.picture_headers.KINDS`); None where a file moves, is no picture, or cannot
    be read: whoever opens it as a video says what is wrong."""
    path = Path(path)
    try:
        with open_regular(path) as stream:
            head = stream.read(HEAD_BYTES)
        kind = sniff(head)
        if kind is None or (kind == "bmp" and not _is_bmp(head)):
            return None
        if kind == "pnm" and path.suffix.lower() not in PICTURE_SUFFIXES:  # two letters are no signature
            return None
        if kind in ("avif", "heic"):
            return kind if head[8:12].decode("ascii", "replace") in STILL_BRANDS else None
        if kind in _MOVES:
            return None if _MOVES[kind](read_limited(path, MAX_STILL_BYTES)) else kind
        return kind
    except InputError:  # so large that it is no picture
        return None
    except OSError:
        return None


def is_moving_webp(path: Path | str) -> bool:
    """Whether a file is WebP of more than one picture, which FFmpeg does not read."""
    try:
        with open_regular(Path(path)) as stream:
            if sniff(stream.read(HEAD_BYTES)) != "webp":
                return False
        return _webp_moves(read_limited(Path(path), MAX_STILL_BYTES))
    except (InputError, OSError):
        return False


def read_still(path: Path) -> bytes:
    """The bytes of a still picture whose header is sound and whose size is within the limit.

    Raises:
        InputError: UNREADABLE, EMPTY_FILE, NOT_A_PICTURE, TRUNCATED, TOO_LARGE.
    """
    data = read_limited(path, MAX_STILL_BYTES)
    picture_size(data, max_pixels=DEFAULT_MAX_PIXELS)
    return data


def media_facts(path: Path | str) -> MediaFacts:
    """Reads headers, and of a video the first frame.

    Raises:
        InputError: it can be neither read as a video nor as a picture.
        OSError: it is gone.
    """
    from facemill.media.animation import AnimationReader

    path = Path(path)
    kind = still_kind(path)
    if kind is not None:
        data = read_still(path)
        width, height = picture_size(data) or (0, 0)
        if orientation_of(data) >= 5:
            width, height = height, width
        return MediaFacts(kind + _PICTURE, width, height, 1, None, None)
    if is_moving_webp(path):
        with AnimationReader(path) as reader:
            info = reader.info
    else:
        with named_as_picture(path):
            info = probe(path)
    audio = info.audio[0].codec if info.audio else None
    fps = float(info.fps) if info.fps else None
    return MediaFacts(info.codec, info.width, info.height, info.frames, info.duration_s, audio, fps)


def list_media(folder: Path, tell: Tell = tell_nobody) -> list[Path]:
    """Every file below a folder that is named as a video or a picture or is one, in the order of `list_files`.

    A file with such a suffix is listed even where it holds none, so that it gets a row with the reason. Any other is
    opened; those that are neither are counted in one message.

    Raises:
        FacemillError: as `list_files`.
    """
    return list_holding(folder, _is_listed, "neither videos nor pictures", tell)


def _is_listed(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES | PICTURE_SUFFIXES or _holds_media(path)


def _holds_media(path: Path) -> bool:
    if still_kind(path) is not None or is_moving_webp(path):
        return True
    try:
        probe(path)
    except InputError as problem:  # a video that is cut off or too large is one all the same
        return problem.reason in (Reason.VIDEO_TRUNCATED, Reason.TOO_LARGE)
    return True


@contextmanager
def named_as_picture(path: Path) -> Iterator[None]:
    """What is no video but has the name of a picture is no picture."""
    try:
        yield
    except InputError as error:
        if error.reason != Reason.NOT_A_VIDEO or path.suffix.lower() not in PICTURE_SUFFIXES:
            raise
        try:
            with open_regular(path) as stream:
                head = stream.read(HEAD_BYTES)
        except OSError:
            raise error from None
        raise InputError(Reason.NOT_A_PICTURE, not_read(head)) from error


def _is_bmp(head: bytes) -> bool:
    return head[6:10] == b"\0\0\0\0" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS


def _jpeg_moves(data: bytes) -> bool:
    """Whether JPEGs stand behind one another, as a camera's raw stream of them has it. Those of an MPO do, too, but the
    first one names the others."""
    end = jpeg_end(data)
    return data[end : end + 3] == b"\xff\xd8\xff" and b"MPF\0" not in data[: min(end, 2**18)]


def _png_moves(data: bytes) -> bool:
    for name, content in png_chunks(data):
        if name == b"acTL":
            return int.from_bytes(content[:4], "big") > 1
        if name == b"IDAT":
            return False
    return False


def _webp_moves(data: bytes) -> bool:
    return sum(name == b"ANMF" for name, _ in webp_chunks(data)) > 1


def _gif_moves(data: bytes) -> bool:
    """Whether it has more than one picture, by its blocks."""
    if len(data) < 13:
        return False
    at, pictures = 13 + _colour_table(data[10]), 0
    while at < len(data):
        block = data[at]
        if block == 0x21:  # an extension and its label
            at = _behind_sub_blocks(data, at + 2)
        elif block == 0x2C and at + 10 < len(data):
            pictures += 1
            if pictures > 1:
                return True
            at = _behind_sub_blocks(data, at + 10 + _colour_table(data[at + 9]) + 1)  # and the size of its codes
        else:
            return False
    return False


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _behind_sub_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


_MOVES = {"jpeg": _jpeg_moves, "png": _png_moves, "webp": _webp_moves, "gif": _gif_moves}
