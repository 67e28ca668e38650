"""The thorough check finds what the quick one cannot: frames that do not decode, and sound at another place."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import make_clip

from facemill.errors import InputError
from facemill.video import EncoderSettings, Part, PartWriter, VideoReader, join_parts, probe, verify
from facemill.video.clock import Clock
from facemill.video.thorough import verify_frames, verify_sound

FAST = EncoderSettings(preset="ultrafast")


def speech(seconds: float, rate_hz: int) -> np.ndarray:
    """Noise in bursts, which is like itself at one place only."""
    generator = np.random.default_rng(3)
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    noise = np.convolve(generator.normal(0, 0.3, len(times)), np.ones(6) / 6, "same")
    return (noise * (np.sin(2 * np.pi * 1.7 * times) > 0)).astype(np.float32)


def spoken(path: Path, *, sound: str = "aac", late_s: float = 0.0, rate_hz: int = 44_100, seconds: float = 2.0) -> Path:
    """A clip whose sound begins `late_s` late."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.options = {"preset": "ultrafast"}
        audio: Any = container.add_stream(sound, rate=rate_hz, layout="mono")
        for index in range(int(25 * seconds)):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 4 * index % 256, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        samples = speech(seconds, rate_hz)
        form = audio.codec_context.format.name
        resampler = av.AudioResampler(form, "mono", rate_hz, frame_size=audio.codec_context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            part.pts += round(late_s * rate_hz)
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))
    return path


def transcode(source: Path, target: Path, *, thorough: bool = True) -> tuple[Part, list[str]]:
    with VideoReader(source) as reader:
        with PartWriter(target.with_name(f"part{target.suffix}"), reader.info, FAST) as writer:
            for frame in reader:
                writer.write(frame)
            part = writer.commit()
        return part, join_parts([part], target, reader.info, sound_from=source, thorough=thorough)


@pytest.mark.parametrize(
    ("sound", "kind", "becomes"),
    [
        ("aac", ".mp4", ".mp4"),
        ("aac", ".mkv", ".mov"),
        ("pcm_s16le", ".mkv", ".mp4"),  # becomes AAC
        ("libopus", ".mkv", ".mkv"),
        ("aac", ".ts", ".mp4"),
        ("mp2", ".mkv", ".mp4"),
    ],
)
@pytest.mark.parametrize("late_s", [0.0, 0.4])
def test_sound_stays_within_a_millisecond(sound: str, kind: str, becomes: str, late_s: float, tmp_path: Path) -> None:
    rate_hz = 48_000 if sound == "libopus" else 44_100
    source = spoken(tmp_path / f"in{kind}", sound=sound, late_s=late_s, rate_hz=rate_hz)
    transcode(source, tmp_path / f"out{becomes}")
    clock = Clock.of(source)
    lags = verify_sound(tmp_path / f"out{becomes}", source, clock)
    assert lags
    assert max(map(abs, lags)) <= 0.001


@pytest.mark.parametrize("late_s", [0.004, -0.004, 0.5])
def test_sound_that_is_off_is_heard(late_s: float, tmp_path: Path) -> None:
    spoken(tmp_path / "right.mkv", late_s=0.6, sound="pcm_s16le")
    spoken(tmp_path / "wrong.mkv", late_s=0.6 + late_s, sound="pcm_s16le")
    with pytest.raises(InputError, match=f"sound 0 is {1000 * late_s:.0f}"):
        verify_sound(tmp_path / "wrong.mkv", tmp_path / "right.mkv", Clock.of(tmp_path / "right.mkv"))


def test_other_sound_and_none_at_all_are_heard(tmp_path: Path) -> None:
    right = spoken(tmp_path / "right.mp4")
    tone = make_clip(tmp_path / "tone.mp4", frames=50)
    none = make_clip(tmp_path / "none.mp4", frames=50, sound=None)
    for other, message in ((tone, "not that of the source"), (none, "0 streams of sound")):
        with pytest.raises(InputError, match=message):
            verify_sound(other, right, Clock.of(right))


def test_a_frame_that_does_not_decode_passes_the_quick_check_alone(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=60, sound=None)
    part, _ = transcode(source, tmp_path / "out.mp4")
    path, size = tmp_path / "out.mp4", part.size_wh
    verify(path, sorted(part.pts), part.time_base, size=size, tail=False)
    verify_frames(path, sorted(part.pts), part.time_base, size=size)
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][20]
        assert packet.pos is not None
        at, length = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[at + 5 : at + length] = os.urandom(length - 5)
    path.write_bytes(data)
    verify(path, sorted(part.pts), part.time_base, size=size, tail=False)
    with pytest.raises(InputError, match="thorough verification: frame"):
        verify_frames(path, sorted(part.pts), part.time_base, size=size)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda pts: pts[:-1], "more than"),
        (lambda pts: [*pts, pts[-1] + 512], "frames decode, expected"),
        (lambda pts: [*pts[:5], pts[5] + 100, *pts[6:]], "frame 5 decodes with"),
    ],
)
def test_number_and_times_are_those_that_were_put_in(
    spoil: Callable[[list[int]], list[int]], message: str, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "in.mp4", frames=12, sound=None)
    pts = [512 * index for index in range(12)]
    size = (probe(clip).width, probe(clip).height)
    verify_frames(clip, pts, Fraction(1, 12_800), size=size)
    with pytest.raises(InputError, match=message):
        verify_frames(clip, spoil(pts), Fraction(1, 12_800), size=size)
