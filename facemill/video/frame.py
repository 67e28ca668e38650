"""One frame of a video: planar YUV as the codec has it, RGB where somebody looks.

Decoded pictures are reference pictures of the decoder: views of their planes are only read here until `paste` has made
the picture writable (which copies it if the decoder still holds it).
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from facemill.video.info import VideoInfo

RGB = npt.NDArray[np.uint8]
# Formats that `Frame` works in, with the subsampling of chroma in x and y.
SUBSAMPLING = {"yuv420p": (2, 2), "yuv422p": (2, 1), "yuv444p": (1, 1)}


class Frame:
    """An upright picture with its place in time.

    Attributes:
        pts: presentation time in ticks of `time_base` seconds; unique and rising through a video.
        duration: ticks until the next frame as the container states them, 0 where it does not.
    """

    def __init__(
        self, picture: av.VideoFrame, pts: int, time_base: Fraction, duration: int = 0, matrix: int | None = None
    ) -> None:
        """`picture` must be in a format of `SUBSAMPLING`; `matrix` (H.273) overrides what its tag says of its YUV."""
        if picture.format.name not in SUBSAMPLING:
            raise ValueError(f"expected a picture in {sorted(SUBSAMPLING)}, got {picture.format.name}")
        self.picture = picture
        self.pts = pts
        self.time_base = time_base
        self.duration = duration
        self._matrix = matrix or colour_matrix(int(picture.colorspace), picture.width, picture.height)

    @classmethod
    def from_rgb(
        cls,
        rgb: RGB,
        pts: int,
        time_base: Fraction,
        *,
        pix_fmt: str = "yuv420p",
        duration: int = 0,
        matrix: int | None = None,
        color_range: int = 0,
    ) -> Frame:
        """Makes a frame of RGB uint8 H×W×3 pixels, as if a video had been decoded to it."""
        height, width = rgb.shape[:2]
        matrix = matrix or colour_matrix(2, width, height)
        picture = _to_yuv(rgb, pix_fmt, matrix, color_range)
        return cls(picture, pts, time_base, duration, matrix)

    @property
    def time_s(self) -> float:
        """Seconds since the zero of the container's clock."""
        return float(self.pts * self.time_base)

    @property
    def width(self) -> int:
        return self.picture.width

    @property
    def height(self) -> int:
        return self.picture.height

    @cached_property
    def rgb(self) -> RGB:
        """The whole picture, RGB uint8 H×W×3, C-contiguous. Do not write into it: use `paste`."""
        return _to_rgb(self.picture, self._matrix)

    @property
    def luma(self) -> npt.NDArray[np.uint8]:
        """The brightness plane, H×W, read-only and free of cost."""
        view = planes(self.picture)[0]
        view.flags.writeable = False
        return view

    def region(
        self, box: tuple[float, float, float, float], scale: float = 1.0
    ) -> tuple[RGB, tuple[int, int, int, int]]:
        """RGB of a rectangle, grown to whole chroma samples and clipped to the picture.

        Args:
            box: x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
            scale: the result's pixels for one of the picture's; scaling on the way to RGB costs less than after it.

        Returns:
            RGB uint8 h×w×3 (h or w is 0 where the box lies outside) and the rectangle x0, y0, x1, y1 that it shows.
        """
        x0, y0, x1, y1 = self._grown(box)
        if x1 <= x0 or y1 <= y0:
            return np.zeros((max(0, y1 - y0), max(0, x1 - x0), 3), np.uint8), (x0, y0, x1, y1)
        size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
        if (x0, y0, x1, y1) == (0, 0, self.width, self.height):
            return _to_rgb(self.picture, self._matrix, size), (x0, y0, x1, y1)  # not through `rgb`, which would keep it
        part = av.VideoFrame(x1 - x0, y1 - y0, self.picture.format.name)
        part.color_range = self.picture.color_range
        for source, target, (sx, sy) in zip(planes(self.picture), planes(part), self._strides(), strict=True):
            target[:] = source[y0 // sy : y0 // sy + target.shape[0], x0 // sx : x0 // sx + target.shape[1]]
        return _to_rgb(part, self._matrix, size), (x0, y0, x1, y1)

    def paste(self, rgb: RGB, origin: tuple[int, int], changed: npt.NDArray[np.bool_]) -> None:
        """Writes the changed pixels of a region back; all other samples keep their exact values.

        Args:
            rgb: RGB uint8 h×w×3 of the rectangle that `region` gave.
            origin: x, y of its first pixel, as `region` gave it.
            changed: h×w, true where `rgb` differs. A chroma sample is rewritten if any of its pixels changed.
        """
        if not changed.any():
            return
        x0, y0 = origin
        part = _to_yuv(rgb, self.picture.format.name, self._matrix, int(self.picture.color_range))
        self.picture.make_writable()
        self.__dict__.pop("rgb", None)
        for source, target, (sx, sy) in zip(planes(part), planes(self.picture), self._strides(), strict=True):
            h, w = source.shape
            place = target[y0 // sy : y0 // sy + h, x0 // sx : x0 // sx + w]
            np.copyto(place, source, where=_any_pixel(changed, sx, sy))

    def _grown(self, box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        sx, sy = SUBSAMPLING[self.picture.format.name]
        x0 = min(self.width, max(0, int(np.floor(box[0])) // sx * sx))
        y0 = min(self.height, max(0, int(np.floor(box[1])) // sy * sy))
        x1 = max(0, min(self.width, -(-int(np.ceil(box[2])) // sx) * sx))
        y1 = max(0, min(self.height, -(-int(np.ceil(box[3])) // sy) * sy))
        return x0, y0, x1, y1

    def _strides(self) -> tuple[tuple[int, int], ...]:
        chroma = SUBSAMPLING[self.picture.format.name]
        return ((1, 1), chroma, chroma)


def working_format(info: VideoInfo, supported: tuple[str, ...], *, odd_420: bool) -> str:
    """The 8-bit planar format to decode into and to encode, so that as little as possible is lost.

    Args:
        supported: the encoder's pixel formats, empty for "any".
        odd_420: whether the encoder takes 4:2:0 with an odd width or height (VP9 and AV1 do, H.264 does not).
    """
    chroma = _chroma(info.pix_fmt)
    odd = (bool(info.width % 2), bool(info.height % 2))
    if chroma == "yuv422p" and (odd[0] or info.rotation in (90, 270)):
        chroma = "yuv444p"
    if chroma == "yuv420p" and any(odd) and not odd_420:
        chroma = "yuv444p"  # keeps the size; 4:2:0 could not without cutting or padding
    return chroma if not supported or chroma in supported else "yuv420p"


def planes(picture: av.VideoFrame) -> list[npt.NDArray[np.uint8]]:
    """Views H×W of the three planes, without the padding at the end of each line."""
    views = []
    for plane in picture.planes:
        flat = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # Plane has the buffer protocol
        views.append(flat[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)[:, : plane.width])
    return views


def upright(picture: av.VideoFrame, rotation: int) -> av.VideoFrame:
    """Turns a picture by 90, 180 or 270 degrees counter-clockwise (the sense of FFmpeg's display matrix)."""
    turns = rotation // 90 % 4
    if turns == 0:
        return picture
    width, height = (picture.height, picture.width) if turns % 2 else (picture.width, picture.height)
    turned = av.VideoFrame(width, height, picture.format.name)
    for source, target in zip(planes(picture), planes(turned), strict=True):
        target[:] = np.rot90(source, turns)
    turned.colorspace, turned.color_range = picture.colorspace, picture.color_range
    return turned


def colour_matrix(space: int, width: int, height: int) -> int:
    """The YUV matrix by its tag, and where there is none by size, as players guess it: BT.709 for HD, else BT.601."""
    if space in (1, 4, 5, 6, 7, 9):
        return 5 if space == 6 else space  # 5 and 6 are the same matrix
    return int(Colorspace.ITU709) if width >= 1280 or height > 576 else int(Colorspace.ITU601)


def to_format(picture: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
    """The picture in another pixel format with the same matrix and range (RGB becomes YUV by `colour_matrix`)."""
    name = picture.format.name
    if name == pix_fmt:
        return picture
    matrix = colour_matrix(int(picture.colorspace), picture.width, picture.height)
    full = name.startswith("yuvj") or int(picture.color_range) == ColorRange.JPEG
    is_rgb = picture.format.is_rgb or name == "pal8"
    wide = ColorRange.JPEG if full and not is_rgb else ColorRange.MPEG
    return VideoReformatter().reformat(
        picture,
        format=pix_fmt,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG if is_rgb else wide,
        dst_color_range=wide,
        threads=1,
    )


def _chroma(pix_fmt: str) -> str:
    layout = av.VideoFormat(pix_fmt, 64, 64)
    if layout.is_rgb or pix_fmt == "pal8":
        return "yuv444p"
    if len(layout.components) < 3:  # grey
        return "yuv420p"
    shape = (layout.chroma_width(64), layout.chroma_height(64))
    return {(32, 32): "yuv420p", (32, 64): "yuv422p"}.get(shape, "yuv444p")


def _to_rgb(picture: av.VideoFrame, matrix: int, size_wh: tuple[int, int] | None = None) -> RGB:
    full = int(picture.color_range) == ColorRange.JPEG
    width, height = size_wh or (picture.width, picture.height)
    converted = VideoReformatter().reformat(
        picture,
        width,
        height,
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    )
    rgb: Any = converted.to_ndarray()
    return np.ascontiguousarray(rgb)


def _to_yuv(rgb: RGB, pix_fmt: str, matrix: int, color_range: int) -> av.VideoFrame:
    full = color_range == ColorRange.JPEG
    source = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    return VideoReformatter().reformat(
        source,
        format=pix_fmt,
        src_colorspace=matrix,
        dst_colorspace=matrix,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        threads=1,
    )


def _any_pixel(changed: npt.NDArray[np.bool_], sx: int, sy: int) -> npt.NDArray[np.bool_]:
    """True for every block of sx × sy pixels that holds a true one; odd edges count as a block."""
    if (sx, sy) == (1, 1):
        return changed
    h, w = changed.shape
    padded = np.pad(changed, ((0, -h % sy), (0, -w % sx)))
    blocks = padded.reshape(padded.shape[0] // sy, sy, padded.shape[1] // sx, sx)
    return np.asarray(blocks.any(axis=(1, 3)), np.bool_)
