"""What a file of an archive is, by its content: a still picture of some kind, something that moves, or neither."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from facemill.errors import InputError
from facemill.foreign_files import open_regular
from facemill.media_files import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Tell, list_holding, read_limited, tell_nobody
from facemill.picture_headers import jpegs_in_a_row, not_read, png_chunks, sniff, webp_chunks
from facemill.pictures import DEFAULT_MAX_PIXELS, picture_size
from facemill.reasons import Reason
from facemill.video import probe
from facemill.video.info import STILL_BRANDS

MAX_STILL_BYTES = 2**28  # more than any picture of as many pixels as are read
HEAD_BYTES = 64
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # bytes of each version of its second header
PICTURE = " picture"
VIDEO, ANIMATION = "video", "animation"
_MOST_BLOCKS = 2**20  # of a GIF that are looked through: one with more is left to FFmpeg


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
    return codec.removesuffix(PICTURE) if codec and codec.endswith(PICTURE) else None


def media_kind(path: Path | str) -> str:
    """What a file has to be read as: the kind of a still picture (`facemill.picture_headers.KINDS`), ANIMATION for WebP
    of several pictures, which FFmpeg does not read, and VIDEO for all else: whoever opens that says what is wrong.

    What was told of a file is remembered until its size, its times or its place on the disk are others.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError:
        return VIDEO
    return _media_kind(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


def still_kind(path: Path | str) -> str | None:
    """The kind of a still picture; None where a file moves, is no picture, or cannot be read."""
    kind = media_kind(path)
    return None if kind in (VIDEO, ANIMATION) else kind


@lru_cache(maxsize=4096)
def _media_kind(path: Path, _stamp: tuple[int, ...]) -> str:
    try:
        with open_regular(path) as stream:
            head = stream.read(HEAD_BYTES)
        kind = sniff(head)
        if kind is None or (kind == "bmp" and not _is_bmp(head)):
            return VIDEO
        if kind == "pnm" and path.suffix.lower() not in PICTURE_SUFFIXES:  # two letters are no signature
            return VIDEO
        if kind in ("avif", "heic"):
            return kind if head[8:12].decode("ascii", "replace") in STILL_BRANDS else VIDEO
        if kind in _MOVES and _MOVES[kind](read_limited(path, MAX_STILL_BYTES)):
            return ANIMATION if kind == "webp" else VIDEO
        return kind
    except (InputError, OSError):  # so large that it is no picture, or gone
        return VIDEO


def read_still(path: Path) -> bytes:
    """The bytes of a still picture whose header is sound and whose size is within the limit.

    Raises:
        InputError: UNREADABLE, EMPTY_FILE, NOT_A_PICTURE, TRUNCATED, TOO_LARGE.
    """
    data = read_limited(path, MAX_STILL_BYTES)
    picture_size(data, max_pixels=DEFAULT_MAX_PIXELS)
    return data


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
    if media_kind(path) != VIDEO:
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
    at, pictures, inside = 13 + _colour_table(data[10]), 0, False
    for _ in range(_MOST_BLOCKS):
        if at >= len(data):
            return False
        block = data[at]
        if inside:  # one of some blocks of bytes, the last of which is empty
            at, inside = at + 1 + block, block > 0
        elif block == 0x21:  # an extension and its label
            at, inside = at + 2, True
        elif block == 0x2C and at + 10 < len(data):
            pictures += 1
            if pictures > 1:
                return True
            at, inside = at + 10 + _colour_table(data[at + 9]) + 1, True  # and the size of its codes
        else:
            return False
    return True


def _colour_table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


_MOVES = {"jpeg": jpegs_in_a_row, "png": _png_moves, "webp": _webp_moves, "gif": _gif_moves}
