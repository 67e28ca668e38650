"""Source `video`: frames taken from videos, those in which faces are best, or one every so many seconds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from facemill.errors import FacemillError, InputError
from facemill.media_files import VIDEO_SUFFIXES, stable_name
from facemill.reasons import Reason
from facemill.sources import Item, References, Source, StatedPath, Surroundings, Unit, register
from facemill.terms import Terms

if TYPE_CHECKING:
    from facemill.sources._sampling import Choice

REFERENCE_EVERY_S, REFERENCE_FRAMES = 2.0, 5
"""What a video gives as a reference: enough to know somebody by, few enough to look at by hand."""
REFERENCE_S = 300.0
"""Of a video that is a reference no more is read, from its first frame on: two hours of film would take an hour."""
REFERENCE_FACE_PX = 20
"""Smaller faces are no reference. Who stands far away in a small video is known by what there is, and the larger faces
are clearer."""


@register
@dataclass(frozen=True, kw_only=True)
class VideoSource(Source):
    """Frames of a video, or of all videos in a folder and the folders below it."""

    references: ClassVar[References] = References(suffixes=VIDEO_SUFFIXES)
    kind: Literal["video"] = "video"
    path: StatedPath
    """A video, or a folder of videos."""
    choose: Literal["face", "every"] = "face"
    """`face`: of each `every_s` the frame in which a face is clear and shows what was not taken before, none without a
    face, no near copies; `every`: the first frame of each, whatever it shows."""
    every_s: Annotated[float, Field(gt=0)] = 0.5
    """Seconds of which one frame is taken, with `face` one for each face."""
    max_frames: Annotated[int, Field(ge=1)] = 400
    """At most so many frames from each video, of all its length; with `face` those that differ most."""
    min_face_px: Annotated[int, Field(ge=12)] = 80
    """With `face`, smaller faces do not count, as for extract.min_face_px."""
    licence: str = ""
    """The licence that holds for all pictures of this source, as its text or SPDX id; empty if unknown."""
    author: str = ""
    """Who made all pictures of this source; empty if unknown."""

    @property
    def terms(self) -> tuple[Terms, ...]:
        """Those of the detector, where faces choose."""
        if self.choose == "every":
            return ()
        from facemill.detect.mtcnn import TERMS  # loads torch

        return TERMS

    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """One unit for each video: it is decoded in one go."""
        from facemill.video import list_videos  # PyAV loads 100 MB of libraries

        folder = around.place(self.path)
        files = list_videos(folder, around.tell)
        if not files:
            raise FacemillError(f"no video in {folder} (identity {identity}): put some there, or correct the path")
        options = {
            "choose": self.choose,
            "every_s": self.every_s,
            "max_frames": self.max_frames,
            "min_face_px": self.min_face_px,
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
        """Frames as JPEG; of a reference those of the first `REFERENCE_S` seconds. A video that cannot be read, or
        breaks off, ends in one item with the reason, and so does one that shows no face where faces are wanted."""
        if unit.path is None:
            raise ValueError("a unit of videos names its file")
        from facemill.video import VideoReader  # PyAV loads 100 MB of libraries
        from facemill.video.cuts import CutDetector

        stated = {"licence": unit.options["licence"], "author": unit.options["author"]}
        choice, cuts, shot = _choice(unit), CutDetector(), 0
        most_s = REFERENCE_S if unit.role == "reference" else math.inf
        start_s: float | None = None
        problem: InputError | None = None
        try:
            with VideoReader(unit.path, threads=1) as reader:
                for frame in reader:
                    start_s = frame.time_s if start_s is None else start_s
                    if frame.time_s - start_s >= most_s:
                        break
                    shot += cuts.is_cut(frame.luma)
                    choice.offer(frame, shot)
                if reader.cut:
                    problem = InputError(Reason.VIDEO_TRUNCATED, f"{reader.frames_read} frames could be read")
        except InputError as error:
            problem = error
        chosen = choice.chosen()
        for pts, name, in_shot, data in chosen:
            yield unit.item(url=f"{unit.key}#pts={name}", pts=pts, shot=in_shot, data=data, **stated)
        if not chosen and problem is None:
            problem = InputError(Reason.NO_FACE, _nobody(unit, choice.looked_at))
        if problem is not None:
            yield unit.failed(problem, **stated)

    @classmethod
    def from_reference(cls, text: str) -> VideoSource:
        """The source for a reference that is the path of a video: the frames in which the largest face is clearest."""
        return cls(path=text, every_s=REFERENCE_EVERY_S, max_frames=REFERENCE_FRAMES, min_face_px=REFERENCE_FACE_PX)


def _nobody(unit: Unit, looked_at: int) -> str:
    """What is to be said of a video in which nobody was found, and what can be done."""
    missing = f"of {unit.options['min_face_px']} px and more, in {looked_at} frames that were looked at"
    if unit.role != "reference":
        return f"{missing}; `choose: every` takes frames whatever they show"
    return (
        f"{missing}, of the first {REFERENCE_S / 60:g} minutes; take a picture, or a video, in which the face is large"
    )


def _choice(unit: Unit) -> Choice:
    """What chooses among the frames of a unit's video."""
    every_s, most = unit.options["every_s"], unit.options["max_frames"]
    if unit.options["choose"] == "every":
        from facemill.sources._sampling import EveryFrame

        return EveryFrame(every_s, most)
    from facemill.sources._best_frames import BestFrames  # torch takes seconds to load

    return BestFrames(every_s, most, unit.options["min_face_px"], reference=unit.role == "reference")
