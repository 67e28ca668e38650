"""One film of its parts, packet by packet, with sound, subtitles and labels, which come once.

    join_parts(parts, film, info, sound_from=source)

Times of decoding are worked out for the film as a whole: those that encoders give fall back where a part follows whose
frames are farther apart, and x265's are wild where a part has one frame or two.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import av
import av.container
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

from facemill.errors import InputError
from facemill.files import atomic_path, file_sha256, keep_date
from facemill.reasons import Reason
from facemill.video.clock import Clock
from facemill.video.encoder import container_name, losses
from facemill.video.info import VideoInfo, open_input, video_stream
from facemill.video.labels import copy_container, copy_labels, lost_labels
from facemill.video.parts import BITEXACT, Part
from facemill.video.sound import SoundTrack
from facemill.video.thorough import verify_frames, verify_sound
from facemill.video.verify import verify, verify_joins

WORTH_SAYING_S = Fraction(1, 1000)
MOST_TICKS = 2**31 - 1  # of a second of MP4's clock


def join_parts(
    parts: Sequence[Part],
    output: Path | str,
    info: VideoInfo,
    *,
    sound_from: Path | str | None = None,
    clock: Clock | None = None,
    thorough: bool = False,
    dated_as: Path | None = None,
) -> list[str]:
    """Makes one video of its parts, beside the original sound.

    Args:
        parts: all of them, in order.
        output: has the suffix of the parts, or one of the same kind.
        info: of the film's source.
        sound_from: the file whose sound, subtitles, chapters and labels are carried over.
        clock: of that file, where it is known.
        thorough: decode every frame of the film before it is published, and compare where its sound stands.
        dated_as: the file whose date it gets, where nothing is carried over from one.

    Returns:
        What a person should know about the output.

    Raises:
        InputError: CONVERSION_FAILED: a part is not as it was written, parts do not fit together, or the written file
            is not what was put in.
        FacemillError: the disk is full.
    """
    output = Path(output)
    for part in parts:
        _check_file(part)
    with atomic_path(output) as temporary:
        sound = Path(sound_from) if sound_from is not None else None
        notes = join(parts, temporary, info, sound, clock, thorough=thorough)
        if dated_as is not None:
            keep_date(dated_as, temporary)
    return notes


def join(
    parts: Sequence[Part],
    temporary: Path,
    info: VideoInfo,
    sound_from: Path | None,
    clock: Clock | None,
    *,
    thorough: bool = False,
) -> list[str]:
    """`join_parts` into a temporary file, of parts whose files are known to be whole."""
    _check_fit(parts, temporary)
    if clock is None:
        clock = Clock.of(sound_from) if sound_from is not None else Clock()
    notes = losses(info, parts[0].pix_fmt, parts[0].encoder)
    container = container_name(temporary)
    pts = np.sort(np.fromiter(chain.from_iterable(part.pts for part in parts), np.int64))
    with ExitStack() as stack:
        options = _muxer_options(container, clock, info.time_base)
        output = stack.enter_context(av.open(f"file:{temporary}", "w", format=container, options=options))
        output.flags |= BITEXACT
        stream = _stream_like(parts[0], output, info)
        sound: SoundTrack | None = None
        if sound_from is not None:
            with open_input(sound_from) as source:
                copy_labels(source.streams[info.index], stream, output.format.name)
                notes += copy_container(source, output, clock)
            sound = SoundTrack(sound_from, output, clock)
            stack.callback(sound.close)
        dts = _times_of_decoding(pts, max(part.reorder_depth for part in parts))
        durations = _durations(parts, pts, info.usual_ticks)
        number = 0
        for part in parts:
            own = slice(number, number + part.frames)
            _mux_part(part, dts[own], durations[own], stream, output, sound)
            number += part.frames
        if sound:
            sound.finish()
            notes += sound.notes
    if sound_from is not None:
        notes += lost_labels(sound_from, temporary)
        keep_date(sound_from, temporary)
    # Matroska knows no time below 0, where the sound of an MP4 begins: it moves everything by the same amount
    may_shift = container == "matroska" and "matroska" not in info.container
    shift = verify(temporary, array("q", pts.tobytes()), info.time_base, size=parts[0].size_wh, shifted=may_shift)
    first = np.cumsum([0, *(part.frames for part in parts)])
    joins = [(part.path, part.pts[0], int(dts[place])) for part, place in zip(parts, first, strict=False)]
    verify_joins(temporary, joins, info.time_base, shift)
    if thorough:
        verify_frames(temporary, array("q", pts.tobytes()), info.time_base, size=parts[0].size_wh, shift=shift)
        if sound_from is not None:
            verify_sound(temporary, sound_from, clock, shift)
    if abs(shift) >= WORTH_SAYING_S:
        notes.append(f"all times are {float(shift) * 1000:.0f} ms later: Matroska holds none below 0")
    return notes


def _times_of_decoding(pts: npt.NDArray[np.int64], depth: int) -> npt.NDArray[np.int64]:
    """When each packet is decoded: at the time of the frame that is shown as many places before as packets come early.

    They rise, however uneven the times of the frames are, and no frame is shown before it is decoded.

    Args:
        pts: of all frames, rising.
        depth: see `Part.reorder_depth`; of the part with the largest.
    """
    depth = min(depth, len(pts) - 1)
    dts = np.empty_like(pts)
    dts[depth:] = pts[: len(pts) - depth]
    dts[:depth] = pts[:depth] - (pts[depth] - pts[0])
    return dts


def _durations(parts: Sequence[Part], pts: npt.NDArray[np.int64], usual: int) -> npt.NDArray[np.int64]:
    """How long each packet's frame is shown, in order of decoding: as stated, else until the next frame."""
    shown = np.fromiter(chain.from_iterable(part.pts for part in parts), np.int64)
    stated = np.fromiter(chain.from_iterable(part.durations for part in parts), np.int64)
    until_next = np.append(np.diff(pts), usual)[np.searchsorted(pts, shown)]
    return np.where(stated > 0, stated, until_next)


def _mux_part(
    part: Part,
    dts: npt.NDArray[np.int64],
    durations: npt.NDArray[np.int64],
    stream: Any,
    output: av.container.OutputContainer,
    sound: SoundTrack | None,
) -> None:
    with open_input(part.path) as container:
        number = 0
        for packet in container.demux(video_stream(container)):
            if not packet.size:
                continue
            if number == part.frames:
                break
            packet.stream, packet.time_base = stream, part.time_base
            packet.pts, packet.dts = part.pts[number], int(dts[number])
            packet.duration, packet.is_keyframe = int(durations[number]), bool(part.keys[number])
            if sound:
                sound.advance(float(packet.dts * part.time_base))
            output.mux(packet)
            number += 1
        if number != part.frames:
            raise _wrong_part(part, f"has {number} frames instead of {part.frames}")


def _stream_like(part: Part, output: av.container.OutputContainer, info: VideoInfo) -> VideoStream:
    """A stream of the output for what a part holds."""
    with open_input(part.path) as container:
        # opaque: for its packets alone; else an encoder of the decoder's name is looked for, and there is no dav1d
        stream: VideoStream = output.add_stream_from_template(video_stream(container), opaque=True)
    stream.metadata.clear()
    stream.time_base = part.time_base
    stream.codec_context.framerate = info.nominal_rate
    if info.sample_aspect_ratio:
        stream.codec_context.sample_aspect_ratio = info.sample_aspect_ratio
    return stream


def _check_file(part: Part) -> None:
    """Whether a part is as it was written. Its name is all that is said of it, so that rows are alike everywhere."""
    try:
        found = file_sha256(part.path)
    except OSError as error:
        raise _wrong_part(part, f"cannot be read ({error.strerror})") from error
    if found != part.sha256:
        raise _wrong_part(part, "is not as it was written")


def _check_fit(parts: Sequence[Part], output: Path) -> None:
    """Whether parts are of one film and one encoder. Under another's header a part decodes to garbage, silently."""
    if not parts:
        raise InputError(Reason.CONVERSION_FAILED, "there are no parts to join")
    first = parts[0]
    for part in parts:
        if container_name(part.path) != container_name(output):
            raise InputError(
                Reason.CONVERSION_FAILED, f"the part {part.path.name} is of another kind than {output.suffix[1:]}"
            )
        alike = ("encoder", "pix_fmt", "size_wh", "time_base", "header_sha256")
        other = [name for name in alike if getattr(part, name) != getattr(first, name)]
        if other:
            raise _wrong_part(
                part,
                f"was encoded otherwise than {first.path.name} ({', '.join(other)}): by other settings or by another "
                "version of the encoder",
            )
    for before, after in pairwise(parts):
        if min(after.pts) <= max(before.pts):
            raise _wrong_part(after, f"does not follow {before.path.name}")


def _wrong_part(part: Part, detail: str) -> InputError:
    return InputError(
        Reason.CONVERSION_FAILED, f"the part {part.path.name} {detail}. Delete the parts of this film and run again"
    )


def _muxer_options(container: str, clock: Clock, time_base: Fraction) -> dict[str, str]:
    if container not in ("mp4", "mov"):
        return {}
    # the index first, so that it plays while it is still arriving
    options = {"movflags": "+faststart"}
    # A stream that begins later does so on the film's own clock, of whole milliseconds unless told otherwise
    exact = math.lcm(1000, *(start.denominator for start in clock.starts_s.values()))
    if exact != 1000:
        options["movie_timescale"] = str(exact if exact <= MOST_TICKS else time_base.denominator)
    return options
