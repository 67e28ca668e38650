"""Source `video`: frames taken from videos, one every so many seconds of the video's own clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from facemill.errors import FacemillError, InputError
from facemill.media_files import VIDEO_SUFFIXES, stable_name
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason
from facemill.sources import Item, References, Source, StatedPath, Surroundings, Unit, register

JPEG_QUALITY = 95
REFERENCE_EVERY_S, REFERENCE_FRAMES = 2.0, 5
"""What a video gives as a reference: enough to know somebody by, few enough to look at by hand."""


@register
@dataclass(frozen=True, kw_only=True)
class VideoSource(Source):
    """Frames of a video, or of all videos in a folder and the folders below it."""

    references: ClassVar[References] = References(suffixes=VIDEO_SUFFIXES)
    kind: Literal["video"] = "video"
    path: StatedPath
    """A video, or a folder of videos."""
    every_s: Annotated[float, Field(gt=0)] = 0.5
    """Seconds from one frame that is taken to the next."""
    max_frames: Annotated[int, Field(ge=1)] = 400
    """At most so many frames from each video."""
    licence: str = ""
    """The licence that holds for all pictures of this source, as its text or SPDX id; empty if unknown."""
    author: str = ""
    """Who made all pictures of this source; empty if unknown."""

    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """One unit for each video: it is decoded in one go."""
        from facemill.video import list_videos  # PyAV loads 100 MB of libraries

        folder = around.place(self.path)
        files = list_videos(folder, around.tell)
        if not files:
            raise FacemillError(f"no video in {folder} (identity {identity}): put some there, or correct the path")
        options = {
            "every_s": self.every_s,
            "max_frames": self.max_frames,
            "licence": self.licence,
            "author": self.author,
        }
        return [
            Unit(
                identity=identity,
                role=role,
                source=self.kind,
                key=stable_name(file, folder, PurePath(self.path).name),
                single=False,
                path=file,
                options=options,
            )
            for file in files
        ]

    @staticmethod
    def fetch(unit: Unit) -> Iterator[Item]:
        """Frames as JPEG. A video that cannot be read, or breaks off, ends in one item with the reason."""
        if unit.path is None:
            raise ValueError("a unit of videos names its file")
        stated = {"licence": unit.options["licence"], "author": unit.options["author"]}
        try:
            for pts, name, shot, data in _sampled(unit.path, unit.options["every_s"], unit.options["max_frames"]):
                yield unit.item(url=f"{unit.key}#pts={name}", pts=pts, shot=shot, data=data, **stated)
        except InputError as problem:
            yield unit.failed(problem, **stated)

    @classmethod
    def from_reference(cls, text: str) -> VideoSource:
        """The source for a reference that is the path of a video: some of its frames."""
        return cls(path=text, every_s=REFERENCE_EVERY_S, max_frames=REFERENCE_FRAMES)


def _sampled(path: Path, every_s: float, max_frames: int) -> Iterator[tuple[int, str, int, bytes]]:
    """(pts, pts@time_base, number of the shot, JPEG) of the first frame at or after each multiple of `every_s`.

    Raises:
        InputError: as `facemill.video.VideoReader`, and VIDEO_TRUNCATED where it ends before its container's word.
    """
    from facemill.video import VideoReader  # PyAV loads 100 MB of libraries
    from facemill.video.cuts import CutDetector

    cuts, shot = CutDetector(), 0
    taken, next_s, start_s = 0, 0.0, None
    with VideoReader(path, threads=1) as reader:
        for frame in reader:
            start_s = frame.time_s if start_s is None else start_s
            shot += cuts.is_cut(frame.luma)
            if frame.time_s - start_s < next_s - 1e-9:
                continue
            yield frame.pts, f"{frame.pts}@{frame.time_base}", shot, encode_jpeg(frame.square_rgb, JPEG_QUALITY)
            taken += 1
            next_s = (int((frame.time_s - start_s) / every_s + 1e-9) + 1) * every_s
            if taken >= max_frames:
                return
        if reader.cut:
            raise InputError(Reason.VIDEO_TRUNCATED, f"{reader.frames_read} frames could be read")
