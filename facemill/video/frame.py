"""One frame of a video: planar YUV as the codec has it, RGB where somebody looks.

Decoded pictures are reference pictures of the decoder: views of their planes are only read here until `paste` has made
the picture writable (which copies it if the decoder still holds it).
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from facemill.video.info import UNSPECIFIED, Colour, Orientation, VideoInfo

RGB = npt.NDArray[np.uint8]
# Formats that `Frame` works in, with the subsampling of chroma in x and y.
SUBSAMPLING = {
    "yuv420p": (2, 2),
    "yuv422p": (2, 1),
    "yuv444p": (1, 1),
    "yuv420p10le": (2, 2),
    "yuv422p10le": (2, 1),
    "yuv444p10le": (1, 1),
}
EIGHT_BITS = tuple(name for name in SUBSAMPLING if name.endswith("p"))
COLOURLESS = 2  # of 255: chroma that lies so near to its middle everywhere belongs to a picture without colour
# Codecs of video proper: their grey is limited unless it says otherwise. That of pictures (PNG, GIF, …) is full.
LIMITED_GREY = {"h264", "hevc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "prores", "dnxhd", "vc1"}


class Frame:
    """An upright picture with its place in time.

    Attributes:
        pts: presentation time in ticks of `time_base` seconds; unique and rising through a video.
        duration: ticks until the next frame as the container states them, 0 where it does not.
        pixel_ratio: width of a pixel over its height. Boxes and sizes are in pixels all the same, whatever their shape.
    """

    def __init__(
        self,
        picture: av.VideoFrame,
        pts: int,
        time_base: Fraction,
        duration: int = 0,
        matrix: int | None = None,
        pixel_ratio: Fraction | None = None,
    ) -> None:
        """`picture` must be in a format of `SUBSAMPLING`; `matrix` (H.273) overrides what its tag says of its YUV;
        `pixel_ratio` is the width of a pixel over its height."""
        if picture.format.name not in SUBSAMPLING:
            raise ValueError(f"expected a picture in {sorted(SUBSAMPLING)}, got {picture.format.name}")
        self.picture = picture
        self.pts = pts
        self.time_base = time_base
        self.duration = duration
        self.pixel_ratio = float(pixel_ratio or 1)
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

    @property
    def size_bytes(self) -> int:
        """Roughly the memory that it takes."""
        return int(self.width * self.height * (3 if self.picture.format.name == "yuv444p" else 1.5))

    @cached_property
    def rgb(self) -> RGB:
        """The whole picture, RGB uint8 H×W×3, C-contiguous. Do not write into it: use `paste`."""
        return _to_rgb(self.picture, self._matrix)

    @property
    def square_rgb(self) -> RGB:
        """The whole picture as people see it: RGB uint8, stretched where its pixels are not square."""
        if self.pixel_ratio == 1:
            return self.rgb
        zoom = (max(1.0, self.pixel_ratio), max(1.0, 1 / self.pixel_ratio))
        return self.region((0, 0, self.width, self.height), zoom)[0]

    @property
    def luma(self) -> npt.NDArray[np.uint8]:
        """The brightness plane, uint8 H×W, read-only; free of cost where the picture has 8 bits."""
        view = planes(self.picture)[0]
        if view.dtype != np.uint8:
            view = (view >> 2).astype(np.uint8)
        view.flags.writeable = False
        return view

    def region(
        self, box: tuple[float, float, float, float], scale: float | tuple[float, float] = 1.0
    ) -> tuple[RGB, tuple[int, int, int, int]]:
        """RGB of a rectangle, grown to whole chroma samples and clipped to the picture.

        Args:
            box: x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
            scale: the result's pixels for one of the picture's, in x and y where they differ; scaling on the way to RGB
                costs less than after it.

        Returns:
            RGB uint8 h×w×3 (h or w is 0 where the box lies outside) and the rectangle x0, y0, x1, y1 that it shows.
        """
        x0, y0, x1, y1 = self._grown(box)
        if x1 <= x0 or y1 <= y0:
            return np.zeros((max(0, y1 - y0), max(0, x1 - x0), 3), np.uint8), (x0, y0, x1, y1)
        zoom = scale if isinstance(scale, tuple) else (scale, scale)
        size = (max(1, round((x1 - x0) * zoom[0])), max(1, round((y1 - y0) * zoom[1])))
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
            changed: h×w, true where `rgb` differs. A chroma sample is rewritten if any of its pixels changed, and none
                is where the rectangle had no colour at all: what goes into a picture in black and white has none.
        """
        if not changed.any():
            return
        x0, y0 = origin
        part = _to_yuv(rgb, self.picture.format.name, self._matrix, int(self.picture.color_range))
        self.picture.make_writable()
        self.__dict__.pop("rgb", None)
        places = []
        for source, target, (sx, sy) in zip(planes(part), planes(self.picture), self._strides(), strict=True):
            h, w = source.shape
            places.append(target[y0 // sy : y0 // sy + h, x0 // sx : x0 // sx + w])
        colourless = all(_without_colour(place) for place in places[1:])
        for source, place, (sx, sy) in zip(planes(part), places, self._strides(), strict=True):
            if ((sx, sy) == (1, 1) and place is places[0]) or not colourless:
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
    """The planar format to decode into and to encode, so that as little as possible is lost.

    Args:
        supported: the encoder's pixel formats, empty for "any".
        odd_420: whether the encoder takes 4:2:0 with an odd width or height (VP9 and AV1 do, H.264 does not).
    """
    chroma = _chroma(info.pix_fmt)
    odd = (bool(info.width % 2), bool(info.height % 2))
    if chroma == "yuv422p" and (odd[0] or info.orientation.transposed):
        chroma = "yuv444p"
    if chroma == "yuv420p" and any(odd) and not odd_420:
        chroma = "yuv444p"  # keeps the size; 4:2:0 could not without cutting or padding
    deep = f"{chroma}10le"
    wanted = [deep, chroma, "yuv420p10le"] if info.bit_depth > 8 else [chroma]
    return next((name for name in wanted if name in supported), "yuv420p") if supported else wanted[0]


def working_colour(info: VideoInfo) -> Colour:
    """The tags of the YUV that a video is worked on and written in: its own, or what RGB and grey become."""
    colour = info.colour
    if is_rgb(info.pix_fmt):
        return replace(colour, space=colour_matrix(UNSPECIFIED, info.width, info.height), range=int(ColorRange.MPEG))
    if is_grey(info.pix_fmt) and colour.range == 0 and info.codec not in LIMITED_GREY:
        return replace(colour, range=int(ColorRange.JPEG))
    return colour


def planes(picture: av.VideoFrame) -> list[npt.NDArray[Any]]:
    """Views H×W of the planes, uint8 or (from 10 bits on) uint16, without the padding at the end of each line."""
    deep = picture.format.components[0].bits > 8
    views = []
    for plane in picture.planes:
        flat = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # Plane has the buffer protocol
        lines = flat[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
        views.append((lines.view(np.uint16) if deep else lines)[:, : plane.width])
    return views


def upright(picture: av.VideoFrame, orientation: Orientation) -> av.VideoFrame:
    """Turns and mirrors a stored picture as players show it."""
    if not orientation:
        return picture
    width, height = orientation.size(picture.width, picture.height)
    turned = av.VideoFrame(width, height, picture.format.name)
    for source, target in zip(planes(picture), planes(turned), strict=True):
        target[:] = orientation.apply(source)
    turned.colorspace, turned.color_range = picture.colorspace, picture.color_range
    return turned


def fitted(picture: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """The whole picture in another size: scaled, and where the shape differs with black at two sides."""
    scale = min(width / picture.width, height / picture.height)
    sx, sy = SUBSAMPLING[picture.format.name]
    inner = [max(2, min(width, round(picture.width * scale))), max(2, min(height, round(picture.height * scale)))]
    inner = [
        inner[0] if inner[0] == width else inner[0] // sx * sx,
        inner[1] if inner[1] == height else inner[1] // sy * sy,
    ]
    small = VideoReformatter().reformat(picture, inner[0], inner[1], threads=1)
    left, top = (width - inner[0]) // 2 // sx * sx, (height - inner[1]) // 2 // sy * sy
    canvas = av.VideoFrame(width, height, picture.format.name)
    bits = picture.format.components[0].bits
    full = int(picture.color_range) == ColorRange.JPEG
    black = [0 if full else 16 << (bits - 8), 128 << (bits - 8), 128 << (bits - 8)]
    strides = ((1, 1), (sx, sy), (sx, sy))
    for source, target, value, (px, py) in zip(planes(small), planes(canvas), black, strides, strict=True):
        target[:] = value
        y, x = top // py, left // px
        target[y : y + source.shape[0], x : x + source.shape[1]] = source
    canvas.colorspace, canvas.color_range = picture.colorspace, picture.color_range
    return canvas


def colour_matrix(space: int, width: int, height: int) -> int:
    """The YUV matrix by its tag, and where there is none by size, as players guess it: BT.709 for HD, else BT.601."""
    if space in (1, 4, 5, 6, 7, 9):
        return 5 if space == 6 else space  # 5 and 6 are the same matrix
    return int(Colorspace.ITU709) if width >= 1280 or height > 576 else int(Colorspace.ITU601)


def to_format(picture: av.VideoFrame, pix_fmt: str, colour: Colour | None = None) -> av.VideoFrame:
    """The picture in another pixel format.

    Args:
        colour: the matrix and the range that the result is to have (its tags, unspecified as players guess them); by
            default the picture's own.
    """
    name = picture.format.name
    rgb = is_rgb(name)
    tagged = int(picture.color_range)
    full = name.startswith("yuvj") or tagged == ColorRange.JPEG
    matrix = colour_matrix(int(picture.colorspace), picture.width, picture.height)
    wanted_full, wanted_matrix = full and not rgb, matrix
    if colour is not None:
        wanted_full, wanted_matrix = (
            colour.range == ColorRange.JPEG,
            colour_matrix(colour.space, picture.width, picture.height),
        )
        if not rgb and tagged == 0 and not name.startswith("yuvj"):
            full = wanted_full  # as the others of its video
        if int(picture.colorspace) == UNSPECIFIED:
            matrix = wanted_matrix
    same = name.replace("yuvj", "yuv") == pix_fmt and full == wanted_full and matrix == wanted_matrix
    if same and name == pix_fmt:
        return picture
    if is_grey(name) and full == wanted_full:
        return _coloured_grey(picture, pix_fmt, full=full)
    if matrix != wanted_matrix and not rgb:  # in one step swscale cuts values off instead of rounding: 2 levels darker
        picture = VideoReformatter().reformat(
            picture,
            format="gbrp16le",
            src_colorspace=matrix,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            threads=1,
        )
        matrix, rgb = wanted_matrix, True
    converted = VideoReformatter().reformat(
        picture,
        format=pix_fmt,
        src_colorspace=matrix,
        dst_colorspace=wanted_matrix,
        src_color_range=ColorRange.JPEG if rgb or full else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG if wanted_full else ColorRange.MPEG,
        threads=1,
    )
    if wanted_full or rgb:
        converted.color_range = ColorRange.JPEG if wanted_full else ColorRange.MPEG
    return converted


def is_rgb(pix_fmt: str) -> bool:
    """Whether a pixel format holds red, green and blue, or a palette of them."""
    return pix_fmt == "pal8" or av.VideoFormat(pix_fmt, 16, 16).is_rgb


def is_grey(pix_fmt: str) -> bool:
    """Whether a pixel format holds brightness alone, with alpha or without."""
    return pix_fmt != "pal8" and len(av.VideoFormat(pix_fmt, 16, 16).components) < 3


def has_alpha(pix_fmt: str) -> bool:
    """Whether a pixel format has a channel of transparency. A palette may have transparent colours, too."""
    return pix_fmt == "pal8" or len(av.VideoFormat(pix_fmt, 16, 16).components) in (2, 4)


def _coloured_grey(picture: av.VideoFrame, pix_fmt: str, *, full: bool) -> av.VideoFrame:
    """Grey as YUV with chroma exactly in the middle; FFmpeg's own way takes every grey for full range."""
    grey = picture
    if picture.format.name not in ("gray", "gray10le"):
        name = "gray10le" if picture.format.components[0].bits > 8 else "gray"
        grey = VideoReformatter().reformat(picture, format=name, threads=1)
    result = av.VideoFrame(picture.width, picture.height, pix_fmt)
    have, want = grey.format.components[0].bits, result.format.components[0].bits
    luma, *chroma = planes(result)
    samples = planes(grey)[0]
    luma[:] = samples >> (have - want) if have > want else samples.astype(luma.dtype) << (want - have)
    for plane in chroma:
        plane[:] = 128 << (want - 8)
    result.colorspace, result.color_range = picture.colorspace, ColorRange.JPEG if full else picture.color_range
    result.pts, result.time_base = picture.pts, picture.time_base
    return result


def _without_colour(chroma: npt.NDArray[Any]) -> bool:
    middle, near = (128, COLOURLESS) if chroma.dtype == np.uint8 else (512, 4 * COLOURLESS)
    return chroma.size == 0 or (int(chroma.min()) >= middle - near and int(chroma.max()) <= middle + near)


def _chroma(pix_fmt: str) -> str:
    if is_rgb(pix_fmt):
        return "yuv444p"
    if is_grey(pix_fmt):
        return "yuv420p"
    layout = av.VideoFormat(pix_fmt, 64, 64)
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
    height, width = changed.shape
    blocks = np.zeros((-(-height // sy), -(-width // sx)), np.bool_)
    for y, x in itertools.product(range(sy), range(sx)):
        part = changed[y::sy, x::sx]  # the pixel at one place of each block
        blocks[: part.shape[0], : part.shape[1]] |= part
    return blocks
