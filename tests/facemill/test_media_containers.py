"""Containers that say odd things of time, or nothing at all."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from clips import make_clip, packets, picture, times
from media_clips import gaps, remux, transcode
from PIL import Image

from facemill.media import still_kind
from facemill.video import probe

RUNS_OVER_S = 2**33 / 90_000


@pytest.mark.parametrize("before_s", [0.02, 0.2, 0.4])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_broadcast_s_clock_may_run_over_on_the_way(tmp_path: Path, before_s: float, suffix: str) -> None:
    """It has 33 bits. FFmpeg gives what came before times below 0."""
    clip = make_clip(tmp_path / "in.mp4", frames=25)
    source = remux(clip, tmp_path / "in.ts", RUNS_OVER_S - before_s)
    assert times(source)[0] < 0
    assert transcode(source, tmp_path / f"out{suffix}") == []
    assert gaps(tmp_path / f"out{suffix}") == pytest.approx([0.04] * 24, abs=0.0011)
    apart = [float(packets(path, "audio")[0][0] - times(path)[0]) for path in (source, tmp_path / f"out{suffix}")]
    assert apart[1] == pytest.approx(apart[0], abs=0.0011)


@pytest.mark.parametrize(("size", "pix_fmt", "rate"), [((720, 576), "yuv420p", 25), ((720, 480), "yuv411p", 30)])
def test_a_tape_s_raw_dv_is_read_at_its_rate(tmp_path: Path, size: tuple[int, int], pix_fmt: str, rate: int) -> None:
    """FFmpeg states its clock's ticks as the rate; with its timecode no MP4 could be closed."""
    source = tmp_path / "in.dv"
    exact = Fraction(30_000, 1001) if rate == 30 else Fraction(rate)
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("dvvideo", rate=exact)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for index in range(6):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24")
            frame.pts, frame.time_base = index, 1 / exact
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert probe(source).fps == exact
    transcode(source, tmp_path / "out.mp4")
    assert gaps(tmp_path / "out.mp4") == pytest.approx([float(1 / exact)] * 5, abs=1e-4)


def jpeg(index: int, width: int = 96, height: int = 64, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(index, width, height)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["in.mjpeg", "in.jpg", "in"])
def test_jpegs_behind_one_another_are_a_video(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"".join(jpeg(index) for index in range(6)))
    assert still_kind(tmp_path / name) is None
    transcode(tmp_path / name, tmp_path / "out.mp4")
    assert gaps(tmp_path / "out.mp4") == [0.04] * 5


@pytest.mark.parametrize(
    "behind",
    [b"", jpeg(1, 48, 32), jpeg(1, 24, 16) + b"\0\0\0\x18ftypmp42", bytes(64), b"\xff\xd8\xff"],
    ids=["nothing", "a gain map", "a depth map and a video", "zeros", "the beginning of something"],
)
def test_what_a_phone_puts_behind_a_picture_makes_no_video_of_it(tmp_path: Path, behind: bytes) -> None:
    (tmp_path / "in.jpg").write_bytes(jpeg(0) + behind)
    assert still_kind(tmp_path / "in.jpg") == "jpeg"


@pytest.mark.parametrize("timecode", ["01:00:00;02", "no timecode"])
def test_a_timecode_that_the_container_does_not_hold_is_named(tmp_path: Path, timecode: str) -> None:
    """Matroska shouts the names of its tags. MP4 holds no timecode that drops frames at 25 a second."""
    clip, source = make_clip(tmp_path / "in.mp4", sound=None), tmp_path / "in.mkv"
    with av.open(str(clip)) as before, av.open(str(source), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        stream.metadata["timecode"] = timecode
        for packet in before.demux():
            if packet.size:
                packet.stream = stream
                after.mux(packet)
    assert transcode(source, tmp_path / "out.mp4") == ["dropped the timecode"]
