"""Source `video`: frames taken from videos, one every so many seconds of the video's own clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError, InputError
from facemill.media_files import VIDEO_SUFFIXES, list_files, stable_name
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason
from facemill.sources import Item, Unit, register

JPEG_QUALITY = 95


@register("video")
class VideoSource:
    """Options: `path` of a video or folder, `every_s`, `max_frames` from each video, `licence`, `author`."""

    def plan(
        self,
        identity: str,
        role: str,
        *,
        root: Path,
        path: str,
        every_s: float = 0.5,
        max_frames: int = 400,
        licence: str = "",
        author: str = "",
    ) -> list[Unit]:
        """One unit for each video: it is decoded in one go."""
        folder = root / path
        files = list_files(folder, VIDEO_SUFFIXES)
        if not files:
            raise FacemillError(f"no video in {folder} (identity {identity}): put some there, or correct the path")
        options = {"every_s": every_s, "max_frames": max_frames, "licence": licence, "author": author}
        return [
            Unit(
                identity=identity,
                role=role,
                source="video",
                key=stable_name(file, folder),
                rows=max_frames,
                path=file,
                options=options,
            )
            for file in files
        ]

    def fetch(self, unit: Unit) -> Iterator[Item]:
        """Frames as JPEG. A video that cannot be read, or breaks off, ends in one item with the reason."""
        if unit.path is None:
            raise ValueError("a unit of videos names its file")
        common: dict[str, Any] = {
            "identity": unit.identity,
            "role": unit.role,
            "source": "video",
            "licence": unit.options["licence"],
            "author": unit.options["author"],
        }
        try:
            for pts, name, data in _sampled(unit.path, unit.options["every_s"], unit.options["max_frames"]):
                yield Item(url=f"{unit.key}#pts={name}", pts=pts, data=data, **common)
        except InputError as problem:
            yield Item(url=unit.key, error=problem.reason, detail=problem.detail, **common)


def _sampled(path: Path, every_s: float, max_frames: int) -> Iterator[tuple[int, str, bytes]]:
    """(pts, pts@time_base, JPEG) of the first frame at or after each multiple of `every_s`.

    Raises:
        InputError: as `facemill.video.VideoReader`, and VIDEO_TRUNCATED where it ends before its container's word.
    """
    from facemill.video import VideoReader  # PyAV loads 100 MB of libraries

    taken, next_s, start_s = 0, 0.0, None
    with VideoReader(path, threads=1) as reader:
        for frame in reader:
            start_s = frame.time_s if start_s is None else start_s
            if frame.time_s - start_s < next_s - 1e-9:
                continue
            yield frame.pts, f"{frame.pts}@{frame.time_base}", encode_jpeg(frame.rgb, JPEG_QUALITY)
            taken += 1
            next_s = (int((frame.time_s - start_s) / every_s + 1e-9) + 1) * every_s
            if taken >= max_frames:
                return
        if reader.cut:
            raise InputError(Reason.VIDEO_TRUNCATED, f"{reader.frames_read} frames could be read")
