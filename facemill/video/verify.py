"""Re-opens a written video: that the file exists proves nothing."""

from __future__ import annotations

import hashlib
import itertools
import math
from array import array
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.video.stream
import numpy as np

from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.video.frame import planes
from facemill.video.info import open_input, video_stream


def verify(
    path: Path,
    pts: Sequence[int],
    time_base: Fraction,
    *,
    size: tuple[int, int],
    shifted: bool = False,
    tail: bool = True,
) -> Fraction:
    """Checks a file against the frames that were put into it: their number and times, its size, both ends decodable.

    Args:
        pts: of every frame in order of display, in ticks of `time_base` seconds.
        size: width and height in pixels.
        tail: whether everything from the last key frame on is decoded, too; that may be all of a short file.
        shifted: all times may be later by one and the same amount, as Matroska makes them where sound starts below 0.

    Returns:
        That amount in seconds.

    Raises:
        InputError: CONVERSION_FAILED and what differs.
    """
    try:
        with open_input(path) as container:
            stream = video_stream(container)
            found_size = (stream.width, stream.height)
            if found_size != size:
                raise _wrong(f"size {found_size}, expected {size}")
            found, found_base = _packet_times(container, stream), Fraction(stream.time_base or 1)
            shift = found[0] * found_base - pts[0] * time_base if shifted and len(found) and len(pts) else Fraction(0)
            _compare_times(found, pts, time_base, found_base, shift)
        _decode_ends(path, found[-1] if tail else None)
        return shift
    except av.error.FFmpegError as error:
        raise _wrong(error.strerror or "") from error
    except InputError as error:
        raise error if error.reason == Reason.CONVERSION_FAILED else _wrong(str(error)) from error


def verify_joins(
    path: Path, parts: Sequence[tuple[Path, int, int]], time_base: Fraction, shift: Fraction = Fraction(0)
) -> None:
    """Checks that the first frame of each part is the same in the film as in the part alone, pixel for pixel.

    Number and times of frames would not tell: under a wrong header packets decode to garbage without an error.

    Args:
        parts: the file of each part, the pts of its first frame and when that is decoded, in ticks of `time_base`
            seconds.
        shift: what all times of the film are later, see `verify`.

    Raises:
        InputError: CONVERSION_FAILED.
    """
    try:
        with open_input(path) as container:
            for part, pts, dts in parts:
                with open_input(part) as alone:
                    first = next(alone.decode(video_stream(alone)), None)
                found = _frame_at(container, pts * time_base + shift, dts * time_base + shift)
                if found is None or first is None or _pixels(found) != _pixels(first):
                    raise _wrong(f"the frame at {float(pts * time_base)} s is not that of its part {part.name}")
    except av.error.FFmpegError as error:
        raise _wrong(error.strerror or "") from error


def _frame_at(container: av.container.InputContainer, shown_s: Fraction, decoded_s: Fraction) -> av.VideoFrame | None:
    """The frame that is shown at a time. Some containers are searched by that, others by the time of decoding."""
    stream = video_stream(container)
    tick = Fraction(stream.time_base or 1)
    for time_s in (shown_s, decoded_s):
        container.seek(math.ceil(time_s / tick), stream=stream)  # the nearest tick may lie before the frame's
        for picture in container.decode(stream):
            apart = (picture.pts or 0) * tick - shown_s
            if 2 * abs(apart) <= tick:
                return picture
            if apart > 0:
                break
    return None


def _pixels(picture: av.VideoFrame) -> bytes:
    digest = hashlib.sha256()
    for plane in planes(picture):
        digest.update(plane.tobytes())
    return digest.digest()


def _packet_times(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> array[int]:
    times = array("q")
    for packet in container.demux(stream):
        if packet.size and packet.pts is None:
            raise _wrong("a packet without a timestamp")
        if packet.size and packet.pts is not None:
            times.append(packet.pts)
    np.frombuffer(times, np.int64).sort()  # in place: packets come in order of decoding
    return times


def _compare_times(
    found: array[int], pts: Sequence[int], time_base: Fraction, found_base: Fraction, shift: Fraction
) -> None:
    if len(found) != len(pts):
        raise _wrong(f"{len(found)} frames, expected {len(pts)}")
    if not len(pts):
        raise _wrong("no frames")
    for index, (written, expected) in enumerate(zip(found, pts, strict=True)):
        # Equal on the output's own clock: exact wherever that is as fine as the source's.
        if 2 * abs(written * found_base - expected * time_base - shift) > found_base:
            raise _wrong(f"frame {index} at {float(written * found_base)} s, expected {float(expected * time_base)} s")
    if any(later <= earlier for earlier, later in itertools.pairwise(found)):
        raise _wrong("timestamps do not rise")


def _decode_ends(path: Path, last: int | None) -> None:
    """Decodes the first frame, then everything from the last key frame before a time on."""
    with open_input(path) as container:
        stream = video_stream(container)
        if next(container.decode(stream), None) is None:
            raise _wrong("the first frame does not decode")
        if last is None:
            return
        container.seek(last, stream=stream)
        if sum(1 for _ in container.decode(stream)) == 0:
            raise _wrong("the last frames do not decode")


def _wrong(detail: str) -> InputError:
    return InputError(Reason.CONVERSION_FAILED, f"verification: {detail}")
