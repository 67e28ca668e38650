"""A video whose faces are known, from end to end: decode, paint, encode; segment by segment, in bounded memory.

        thread 1                            this thread                                   thread 2
    segment ──► frames ──► batches ──► crops ──► net ──► colour ──► blend ──► encoder ──► part
    part, part, part, … ──► joined by packets, with the sound and everything else of the source ──► file

Who is in a frame, and where, stands in the tracks (`facemill.track`); segments know nothing of each other, so they may
be converted anywhere, in any order. Several people can be replaced at once; a frame counts as swapped if any of their
faces was. A frame without any of them goes through untouched. A face that fails is left as it is, and its frame is
counted with the reason; a video with too many such frames fails. The output appears whole and verified or not at all.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from facemill.batches import batched
from facemill.errors import InputError
from facemill.files import file_sha256
from facemill.media import join_media, open_media, part_writer
from facemill.reasons import Reason
from facemill.swap.painter import FacePainter, FacesOfFrame, WantedFace
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import ModelOrigin, Swapper
from facemill.swap.threads import ahead, behind
from facemill.track.table import TrackedSegment
from facemill.video import Part, Segment

DECODER_THREADS = 1  # segments run side by side; and how much of a damaged file can be read depends on the number
QUEUED_BYTES = 96 * 2**20  # of pictures waiting between two threads


@dataclass(frozen=True, kw_only=True)
class KnownFaces:
    """Everybody who is to be replaced in the frames of a segment, by the frames' pts.

    Attributes:
        faces: pts → the faces in that frame.
        errors: pts → why a frame could not be looked at.
    """

    faces: Mapping[int, Sequence[WantedFace]]
    errors: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stretch:
    """Neighbouring frames that ended alike: `state` is swapped, passed or failed; `time_s` that of the first."""

    state: str
    frames: int
    time_s: float


@dataclass(frozen=True, kw_only=True)
class ConvertedSegment:
    """One segment's encoded part and what happened to its frames.

    Attributes:
        part: the encoded pictures.
        stretches: all frames, in order.
        swapped: the identity that was to be replaced → frames in which its face was.
        failures: reason → frames in which a face was left as it is for it; another face in them may be replaced.
        warnings: what the reader said of the input and the encoder of the output.
        seconds: of work.
    """

    part: Part
    stretches: tuple[Stretch, ...]
    swapped: dict[str, int]
    failures: dict[str, int]
    warnings: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The segment as plain values for JSON; the path of its part is left out."""
        return asdict(self) | {"part": self.part.as_dict()}

    @classmethod
    def from_dict(cls, part: Path, values: Mapping[str, Any]) -> ConvertedSegment:
        """What `as_dict` gave, for a part that lies there.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        plain = dict(values)
        stretches = tuple(Stretch(**each) for each in plain.pop("stretches"))
        made, warnings = Part.from_dict(part, plain.pop("part")), tuple(plain.pop("warnings"))
        return cls(part=made, stretches=stretches, warnings=warnings, **plain)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What happened to one video. `frames_in = frames_swapped + frames_passed + frames_failed = frames_out`.

    Attributes:
        becomes: the identity that was to be replaced → the identity whose face was put there.
        swapped: the identity that was to be replaced → frames in which its face was.
        frames_swapped: frames in which the face of at least one of them was replaced.
        frames_passed: frames without any of them, untouched.
        frames_failed: frames in which none was replaced, because of an error.
        failures: reason → frames in which a face was left as it is for it; another face in them may be replaced.
        passed_on: whether the file is the source's, byte for byte, since nobody in it was to be replaced.
        segments: pieces in which it was converted.
        seconds: of work on it, in all workers.
    """

    input_sha256: str
    output_sha256: str
    model_sha256: str
    dataset: str
    becomes: dict[str, str]
    swapped: dict[str, int]
    frames_in: int
    frames_out: int
    frames_swapped: int
    frames_passed: int
    frames_failed: int
    failures: dict[str, int]
    warnings: tuple[str, ...]
    passed_on: bool
    segments: int
    seconds: float
    fps: float

    def as_dict(self) -> dict[str, Any]:
        """The receipt as plain values for JSON."""
        return asdict(self) | {"warnings": list(self.warnings)}


def convert_segment(
    video: Path,
    part: Path,
    segment: Segment,
    known: KnownFaces,
    swapper: Swapper,
    settings: SwapSettings,
    on_frame: Callable[[], None] = lambda: None,
) -> ConvertedSegment:
    """Encodes the frames of one segment with the known faces replaced.

    Args:
        video: what is converted.
        part: where the encoded part goes.
        on_frame: called with every frame that goes to the encoder.

    Raises:
        InputError: the segment cannot be read or encoded.
        FacemillError: a full disk.
    """
    start = time.monotonic()
    painter = FacePainter(swapper, settings)
    states: list[tuple[str, float]] = []
    swapped: Counter[str] = Counter(dict.fromkeys(swapper.becomes, 0))
    failures: Counter[str] = Counter()
    with open_media(video, threads=DECODER_THREADS, segment=segment, hdr=settings.hdr) as reader:
        info = reader.info
        queued = max(2, min(2 * settings.batch, QUEUED_BYTES // (info.width * info.height * 2)))
        with part_writer(reader, part, settings.encoder) as writer:
            reader.pix_fmt = writer.pix_fmt
            reader.deinterlace = info.interlaced and not writer.keeps_fields
            with ahead(reader, queued) as frames, behind(writer.write, queued) as write:
                for pictures in batched(frames, min(settings.batch, queued)):
                    batch = [
                        FacesOfFrame(frame, tuple(known.faces.get(frame.pts, ())), known.errors.get(frame.pts))
                        for frame in pictures
                    ]
                    for each, painted in zip(batch, painter.paint(batch), strict=True):
                        states.append((painted.state, each.frame.time_s))
                        swapped.update(painted.swapped)
                        failures.update([painted.failure] if painted.failure else [])
                        write(each.frame)
                        on_frame()
            if reader.cut and not settings.accept_cut:
                raise InputError(Reason.VIDEO_TRUNCATED, reader.warnings()[0])
            made = writer.commit()
            warnings = (*reader.warnings(), *writer.warnings, *painter.notes())
    return ConvertedSegment(
        part=made,
        stretches=_stretches(states),
        swapped=dict(swapped),
        failures=dict(failures),
        warnings=warnings,
        seconds=time.monotonic() - start,
    )


def join_segments(
    video: Path,
    output: Path,
    segments: Sequence[ConvertedSegment],
    origin: ModelOrigin,
    settings: SwapSettings,
    *,
    input_sha256: str,
) -> Receipt:
    """Makes the finished file of all its segments, with the sound and all else of the source.

    Args:
        origin: with what the segments were converted.

    Raises:
        InputError: too many frames failed, or the parts do not fit together; nothing was written.
        FacemillError: a full disk.
    """
    start = time.monotonic()
    stretches = [stretch for segment in segments for stretch in segment.stretches]
    counts: Counter[str] = Counter()
    for stretch in stretches:
        counts[stretch.state] += stretch.frames
    frames = counts.total()
    failures: Counter[str] = Counter()
    for segment in segments:
        failures.update(segment.failures)
    check_failures(frames, failures, settings)
    joined = join_media(
        [segment.part for segment in segments], output, video, thorough=settings.verify == "thorough", hdr=settings.hdr
    )
    said = [warning for segment in segments for warning in segment.warnings]
    seconds = sum(segment.seconds for segment in segments) + time.monotonic() - start
    return Receipt(
        input_sha256=input_sha256,
        output_sha256=file_sha256(output),
        model_sha256=origin.model_sha256,
        dataset=origin.dataset,
        becomes=dict(origin.becomes),
        swapped={identity: sum(each.swapped[identity] for each in segments) for identity in origin.becomes},
        frames_in=frames,
        frames_out=sum(segment.part.frames for segment in segments),
        frames_swapped=counts["swapped"],
        frames_passed=counts["passed"],
        frames_failed=counts["failed"],
        failures=dict(sorted(failures.items())),
        warnings=tuple(dict.fromkeys([*said, *joined, *_notes(stretches)])),
        passed_on=False,
        segments=len(segments),
        seconds=round(seconds, 3),
        fps=round(frames / seconds, 2),
    )


def receipt_of_untouched(sha256: str, origin: ModelOrigin, frames: int, failures: Counter[str]) -> Receipt:
    """Of a video that was passed on byte for byte, since none of its faces is to be replaced.

    Args:
        sha256: of the video.
        frames: that were looked at; `failures`: reason → frames of them that could not be.
    """
    return Receipt(
        input_sha256=sha256,
        output_sha256=sha256,
        model_sha256=origin.model_sha256,
        dataset=origin.dataset,
        becomes=dict(origin.becomes),
        swapped=dict.fromkeys(origin.becomes, 0),
        frames_in=frames,
        frames_out=frames,
        frames_swapped=0,
        frames_passed=frames - failures.total(),
        frames_failed=failures.total(),
        failures=dict(sorted(failures.items())),
        warnings=(),
        passed_on=True,
        segments=0,
        seconds=0.0,
        fps=0.0,
    )


def _stretches(states: Iterable[tuple[str, float]]) -> tuple[Stretch, ...]:
    grouped = ((state, list(group)) for state, group in groupby(states, key=lambda each: each[0]))
    return tuple(Stretch(state, len(group), group[0][1]) for state, group in grouped)


def _notes(stretches: Sequence[Stretch]) -> list[str]:
    """What a person should know of frames without anybody to replace that lie between or behind frames with somebody:
    in those a face may have been missed, and the video shows two people in turn."""
    places = [index for index, stretch in enumerate(stretches) if stretch.state == "swapped"]
    if not places:
        return []
    notes = []
    between = _merged(stretches[places[0] : places[-1]])
    if between:
        longest = max(between, key=lambda stretch: stretch.frames)
        where = f"from {longest.time_s:.2f} s"
        if len(between) > 1:
            where = f"in {len(between)} places; the longest has {longest.frames} frames {where}"
        frames = sum(stretch.frames for stretch in between)
        notes.append(f"{frames} frames between swapped ones are as they were, {where}")
    if behind_them := _merged(stretches[places[-1] + 1 :]):
        notes.append(
            f"the last {sum(stretch.frames for stretch in behind_them)} frames are as they were, from "
            f"{behind_them[0].time_s:.2f} s"
        )
    return notes


def _merged(stretches: Iterable[Stretch]) -> list[Stretch]:
    """Runs of frames that were not swapped: passed and failed ones, and those of neighbouring segments, as one."""
    runs = []
    for swapped, group in groupby(stretches, key=lambda stretch: stretch.state == "swapped"):
        if not swapped:
            run = list(group)
            runs.append(Stretch("passed", sum(stretch.frames for stretch in run), run[0].time_s))
    return runs


def count_errors(segments: Iterable[TrackedSegment]) -> Counter[str]:
    """Reason → frames of a tracked video that could not be looked at."""
    return Counter(reason for each in segments for reason in each.errors.values())


def check_failures(frames: int, failures: Counter[str], settings: SwapSettings) -> None:
    """Whether a video may be published of which so many frames failed, by reason.

    Raises:
        InputError: it has no frames, or too many of them failed.
    """
    if frames == 0:
        raise InputError(Reason.NOT_A_VIDEO, "no frames")
    failed = failures.total()  # a frame has one reason
    if failed > settings.frame_failure_limit * frames:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(failures.items()))
        raise InputError(Reason.CONVERSION_FAILED, f"{failed} of {frames} frames failed ({reasons})")
