"""All of a written video against what it was made of: every frame decoded, and sound at the place where it was.

The quick check (`verify.py`) reads all packets and decodes both ends. This one decodes everything once more, which
costs about as much as reading the video did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler

from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.video.clock import Clock, StreamClock
from facemill.video.info import demux, open_input, video_stream
from facemill.video.sound import SoundKind, kind_of

RATE_HZ = 8000  # at which sound is compared: a sample is an eighth of a millisecond
WINDOW_S = 20.0  # of each stretch of sound that is compared
WINDOWS = 3  # at the beginning, in the middle and at the end
LARGEST_LAG_S = 2.0
TOLERANCE_S = Fraction(1, 1000)
LEAST_LIKENESS = 0.5  # of the correlation's peak: sound that was encoded anew is much more like itself
SILENCE = 1e-4  # root mean square below which there is nothing to compare

Samples = npt.NDArray[np.float32]


def verify_frames(
    path: Path, pts: Sequence[int], time_base: Fraction, *, size: tuple[int, int], shift: Fraction = Fraction(0)
) -> None:
    """Decodes every frame of a file: their number, times and size.

    Args:
        pts: of all frames in order of display, in ticks of `time_base` seconds.
        size: width and height in pixels.
        shift: by how much all times are later, in seconds.

    Raises:
        InputError: CONVERSION_FAILED, and what differs.
    """
    number = 0
    try:
        with open_input(path) as container:
            stream = video_stream(container)
            tick = Fraction(stream.time_base or 1)
            stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
            for picture in container.decode(stream):
                if number >= len(pts):
                    raise _wrong(f"more than {len(pts)} frames decode")
                if picture.is_corrupt:
                    raise _wrong(f"frame {number} is damaged")
                if (picture.width, picture.height) != size:
                    raise _wrong(f"frame {number} has {picture.width}×{picture.height} pixels")
                expected = pts[number] * time_base + shift
                if picture.pts is None or 2 * abs(picture.pts * tick - expected) > tick:
                    found = "no time" if picture.pts is None else f"{float(picture.pts * tick)} s"
                    raise _wrong(f"frame {number} decodes with {found}, expected {float(expected)} s")
                number += 1
    except av.error.FFmpegError as error:
        raise _wrong(f"frame {number} does not decode: {error.strerror}") from error
    if number != len(pts):
        raise _wrong(f"{number} frames decode, expected {len(pts)}")


def verify_sound(path: Path, source: Path, clock: Clock, shift: Fraction = Fraction(0)) -> list[float]:
    """Compares where each stream of sound stands with where it stood.

    Args:
        path: the written file.
        source: what its sound was taken from; `clock`: that of the source.
        shift: by how much all times are later, in seconds.

    Returns:
        By how many seconds each stream is late, as far as that can be heard: silence is left out.

    Raises:
        InputError: CONVERSION_FAILED: by more than a millisecond, or the sound is another one.
    """
    with open_input(source) as before, open_input(path) as after:
        old = [stream.index for stream in before.streams.audio if stream.codec_context is not None]
        new = [stream.index for stream in after.streams.audio]
        length_s = (after.duration or 0) / av.time_base
    if len(old) != len(new):
        raise _wrong(f"{len(new)} streams of sound, expected {len(old)}")
    lags = []
    for number, (first, second) in enumerate(zip(old, new, strict=True)):
        for start_s in _starts(length_s):
            before_s = _sound(source, first, start_s, clock)
            after_s = _sound(path, second, start_s + float(shift), None)
            lag = _lag(before_s, after_s)
            if lag is None:
                continue
            lags.append(lag)
            if abs(lag) > TOLERANCE_S:
                raise _wrong(f"sound {number} is {1000 * lag:.1f} ms late at {start_s:.0f} s")
    return lags


def _starts(length_s: float) -> list[float]:
    """At which seconds of a film of this length the windows begin in which sound is compared: first, last, between."""
    last = length_s - WINDOW_S
    if last <= 0:
        return [0.0]
    return sorted({0.0, *(float(start) for start in np.linspace(0, last, WINDOWS)[1:])})


def _sound(path: Path, index: int, start_s: float, clock: Clock | None) -> Samples:
    """The samples of a window on the file's clock, at `RATE_HZ`, mono; 0 where there are none."""
    samples = np.zeros(round(WINDOW_S * RATE_HZ), np.float32)
    first = round(start_s * RATE_HZ)
    with open_input(path) as container:
        for at, heard in _heard(container, index, clock):
            place = at - first
            if place >= len(samples):
                break
            heard = heard[max(0, -place) :]
            place = max(0, place)
            part = heard[: len(samples) - place]
            samples[place : place + len(part)] = part
    return samples


def _heard(container: Any, index: int, clock: Clock | None) -> Iterator[tuple[int, Samples]]:
    """(place, samples) of what decodes. Places are those of the stamps, each block by itself: a gap stays one."""
    stream = container.streams[index]
    own = StreamClock(clock, stream) if clock is not None else None
    resampler: AudioResampler | None = None
    expected: Fraction | None = None
    last_kind: SoundKind | None = None
    for packet in demux(container, stream):
        if packet.size and own is not None:
            own.set(packet)
        try:
            frames: list[Any] = packet.decode()
        except av.error.FFmpegError:  # a click
            continue
        for frame in frames:
            if frame.pts is None:
                continue
            begin = frame.pts * Fraction(frame.time_base)
            rounded = max(TOLERANCE_S / 4, Fraction(frame.time_base))  # Matroska's stamps are whole milliseconds
            gap = expected is None or abs(begin - expected) > rounded
            if resampler is None or gap or kind_of(frame) != last_kind:
                # begun anew at each gap, or what comes behind it would be moved to its beginning
                resampler = AudioResampler("flt", "mono", RATE_HZ)
                place, last_kind = begin, kind_of(frame)
            expected = begin + Fraction(frame.samples, frame.sample_rate)
            frame.pts = None
            for part in resampler.resample(frame):
                heard: Any = part.to_ndarray().reshape(-1)
                yield round(place * RATE_HZ), heard
                place += Fraction(len(heard), RATE_HZ)


def _lag(before: Samples, after: Samples) -> float | None:
    """By how many seconds the second is late; None where there is nothing to hear.

    Raises:
        InputError: CONVERSION_FAILED: they are not the same sound.
    """
    loud = [float(np.sqrt(np.mean(np.square(one)))) for one in (before, after)]
    if loud[0] < SILENCE:
        return None
    if loud[1] < SILENCE:
        raise _wrong("there is no sound where there was some")
    most = round(LARGEST_LAG_S * RATE_HZ)
    size = 2 * len(before)  # so that the end does not meet the beginning
    both = np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size))
    found = np.fft.irfft(both, size)
    near = np.concatenate([found[-most:], found[: most + 1]])
    peak = float(near.max())
    if peak < LEAST_LIKENESS * loud[0] * loud[1] * len(before):
        raise _wrong("the sound is not that of the source")
    # of a tone every period is as good: the nearest of those that are
    alike = np.flatnonzero(near >= 0.999 * peak) - most
    return float(alike[np.argmin(np.abs(alike))]) / RATE_HZ


def _wrong(detail: str) -> InputError:
    return InputError(Reason.CONVERSION_FAILED, f"thorough verification: {detail}")
