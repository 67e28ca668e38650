"""WebP that moves, as a video: FFmpeg does not read it, Pillow does."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np

from facemill.errors import InputError
from facemill.media.kinds import MAX_STILL_BYTES
from facemill.media_files import read_limited
from facemill.picture_headers import webp_chunks
from facemill.pictures import DEFAULT_MAX_PIXELS, open_with_pillow, picture_size
from facemill.reasons import Reason
from facemill.video import Colour, Frame, VideoInfo
from facemill.video.clock import Clock
from facemill.video.frame import EIGHT_BITS, colour_matrix, to_format, working_colour, working_format
from facemill.video.info import Orientation

MILLISECOND = Fraction(1, 1000)
UNSTATED_MS, SHORTEST_MS = 100, 11  # browsers show a picture of at most 10 ms for 100 ms


class AnimationReader:
    """Frames one after another, as a `facemill.video.VideoReader` gives them; iterate once.

    Attributes:
        info: as of a video without sound.
        cut: never: one that is cut off is an error.
    """

    def __init__(self, path: Path | str) -> None:
        """
        Raises:
            InputError: UNREADABLE, TOO_LARGE; VIDEO_TRUNCATED, the file is shorter than it says; NOT_A_VIDEO.
        """
        self.path = Path(path)
        data = read_limited(self.path, MAX_STILL_BYTES)
        picture_size(data, max_pixels=DEFAULT_MAX_PIXELS)
        if len(data) < int.from_bytes(data[4:8], "little") + 8:
            raise InputError(Reason.VIDEO_TRUNCATED, "shorter than it says")
        try:
            picture: Any = open_with_pillow(data, "webp")
            self._picture = picture
            frames = int(picture.n_frames)
            width, height = self._picture.size
            alpha = self._picture.mode == "RGBA"
        except Exception as error:  # Pillow raises whatever it likes
            raise InputError(Reason.NOT_A_VIDEO, f"{error!s:.200}") from error
        # in the header of each frame: 24 bits of its length
        lengths = [int.from_bytes(c[12:15], "little") for name, c in webp_chunks(data) if name == b"ANMF"]
        self._lengths = [UNSTATED_MS if length < SHORTEST_MS else length for length in lengths]
        if len(lengths) != frames:
            raise InputError(Reason.NOT_A_VIDEO, f"{len(lengths)} pictures, the header says {frames}")
        self.info = VideoInfo(
            container="webp",
            size_bytes=len(data),
            index=0,
            codec="webp",
            width=width,
            height=height,
            pix_fmt="rgb24",
            bit_depth=8,
            fps=Fraction(1000 * frames, sum(self._lengths)),
            time_base=MILLISECOND,
            frames=frames,
            duration_s=sum(self._lengths) / 1000,
            orientation=Orientation(),
            skew=False,
            sample_aspect_ratio=None,
            colour=Colour(),
            interlaced=False,
            alpha=alpha,
            dolby_vision=None,
            immersive=(),
            audio=(),
            other=(),
        )
        told = [name for name in ("exif", "icc_profile", "xmp") if self._picture.info.get(name)]
        self._told = ", ".join(told)
        self.clock = Clock()
        self.cut = False
        self.deinterlace = False
        self.pix_fmt = working_format(self.info, EIGHT_BITS, odd_420=True)
        self.frames_read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._picture.close()

    def __iter__(self) -> Iterator[Frame]:
        colour = working_colour(self.info)
        matrix = colour_matrix(colour.space, self.info.width, self.info.height)
        pts = 0
        for index, length in enumerate(self._lengths):
            try:
                self._picture.seek(index)
                rgb = _on_white(self._picture)
            except Exception as error:  # Pillow raises whatever it likes
                raise InputError(Reason.VIDEO_TRUNCATED, f"picture {index} does not decode ({error!s:.100})") from error
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            yield Frame(to_format(picture, self.pix_fmt, colour), pts, MILLISECOND, length, matrix)
            self.frames_read += 1
            pts += length

    def warnings(self) -> list[str]:
        """What a person should know about the input, after the last frame."""
        notes = ["alpha dropped: what was transparent is white"] if self.info.alpha else []
        return notes + ([f"dropped its {self._told}"] if self._told else [])


def _on_white(picture: Any) -> Any:
    from PIL import Image

    if picture.mode != "RGBA":
        return np.ascontiguousarray(picture.convert("RGB"))
    white = Image.new("RGB", picture.size, (255, 255, 255))
    white.paste(picture.convert("RGB"), (0, 0), picture.getchannel("A"))
    return np.ascontiguousarray(white)
