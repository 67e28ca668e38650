"""Sound whose rate and channels change within a stream, as broadcasts have it, is heard as it was."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import picture
from media_clips import joined, remux, transcode

from facemill.video.clock import Clock
from facemill.video.thorough import verify_sound

SECONDS = 1.0


def sounding(path: Path, codec: str, rate: int, layout: str) -> Path:
    """A second of noise that gets higher, beside a picture that moves."""
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio: Any = container.add_stream(codec, rate=rate, layout=layout)
        for index in range(round(25 * SECONDS)):
            frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        at = np.arange(round(rate * SECONDS)) / rate
        noise = np.repeat(np.random.default_rng(1).normal(0, 0.1, len(at) // 8 + 1), 8)[: len(at)]
        heard = (0.2 * np.sin(2 * np.pi * 300 * (1 + at) * at) + noise).astype(np.float32)
        channels = 2 if layout == "stereo" else 1
        sound = av.AudioFrame.from_ndarray(np.stack([heard] * channels), format="fltp", layout=layout)
        sound.sample_rate, sound.pts, sound.time_base = rate, 0, Fraction(1, rate)
        context = audio.codec_context
        resampler = av.AudioResampler(context.format.name, layout, rate, frame_size=context.frame_size or 1024)
        for part in [*resampler.resample(sound), *resampler.resample(None)]:
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("codec", ["mp2", "aac"])
@pytest.mark.parametrize("second", [(44_100, "mono"), (32_000, "stereo"), (48_000, "mono")])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_that_changes_in_the_middle_is_all_heard(
    tmp_path: Path, codec: str, second: tuple[int, str], suffix: str
) -> None:
    """Carried as it was, AAC of another rate would be played at a wrong speed in MP4; the resampler that MP2 went
    through took one kind only."""
    first = sounding(tmp_path / "a.ts", codec, 48_000, "stereo")
    late = remux(sounding(tmp_path / "b.ts", codec, *second), tmp_path / "late.ts", 1.0)
    source = joined(tmp_path / "in.ts", first, late)
    notes = transcode(source, tmp_path / f"out{suffix}")
    lags = verify_sound(tmp_path / f"out{suffix}", source, Clock.of(source))
    assert lags == pytest.approx([0.0], abs=1e-3)
    if suffix == ".mp4" or codec == "aac":
        assert any("changes its kind" in note and "stereo at 48000 Hz" in note for note in notes)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_that_does_not_change_is_carried_and_found_where_it_was(tmp_path: Path, suffix: str) -> None:
    """Matroska rounds each stamp to a millisecond, which is no gap."""
    source = sounding(tmp_path / "in.ts", "aac", 48_000, "stereo")
    assert transcode(source, tmp_path / f"out{suffix}") == []
    assert verify_sound(tmp_path / f"out{suffix}", source, Clock.of(source)) == pytest.approx([0.0], abs=1e-3)
