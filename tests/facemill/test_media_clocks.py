"""All streams of a video run on one clock: what comes out is at the times that players show."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import pytest
from clips import make_clip, packets, picture, times
from media_clips import gaps, joined, remux, transcode

from facemill.video import (
    VideoReader,
    VideoWriter,
    read_frames,
)
from facemill.video.clock import Clock

HOUR_10 = 36_000


@pytest.mark.parametrize("offset_s", [0.0, 0.1086, 1.4, HOUR_10])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_broadcast_begins_at_0_whenever_its_clock_does(tmp_path: Path, offset_s: float, suffix: str) -> None:
    source = remux(make_clip(tmp_path / "in.mp4"), tmp_path / "in.ts", offset_s)
    assert transcode(source, tmp_path / f"out{suffix}") == []
    first_sound, first_picture = packets(source, "audio")[0][0], times(source)[0]
    apart = float(packets(tmp_path / f"out{suffix}", "audio")[0][0] - times(tmp_path / f"out{suffix}")[0])
    assert min(float(times(tmp_path / f"out{suffix}")[0]), 0.05) == pytest.approx(0.02, abs=0.03)
    assert apart == pytest.approx(float(first_sound - first_picture), abs=0.0011 if suffix == ".mkv" else 1e-4)
    assert gaps(tmp_path / f"out{suffix}") == pytest.approx([0.04] * 11, abs=0.0011)


@pytest.mark.parametrize("sound", ["aac", None])
@pytest.mark.parametrize("second_begins_s", [0.0, 0.3, 500.0, HOUR_10])
def test_a_clock_that_is_set_anew_runs_on(tmp_path: Path, sound: str | None, second_begins_s: float) -> None:
    clip = make_clip(tmp_path / "in.mp4", frames=25, sound=sound)
    parts = [remux(clip, tmp_path / "a.ts", 10.0), remux(clip, tmp_path / "b.ts", second_begins_s)]
    notes = transcode(joined(tmp_path / "joined.ts", *parts), tmp_path / "out.mp4")
    assert notes == ["the clock was set anew 1 times: picture and sound run on"]
    found = gaps(tmp_path / "out.mp4")
    assert len(found) == 49
    at_the_join = found.pop(24)
    assert found == [0.04] * 48
    assert 0.04 <= at_the_join <= (0.04 if sound is None else 0.1)
    if sound:  # nothing of it is lost, and it lies beside the same pictures
        heard = packets(tmp_path / "out.mp4", "audio")
        assert len(heard) == 2 * len(packets(clip, "audio"))
        second = next(at for at, data in heard[30:] if data == heard[5][1]) - heard[5][0]
        assert float(second) == pytest.approx(float(times(tmp_path / "out.mp4")[25]), abs=0.03)


def test_three_parts_run_on(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", sound=None)
    parts = [remux(clip, tmp_path / f"{number}.ts", at) for number, at in enumerate((7.0, 3.0, 90.0))]
    transcode(joined(tmp_path / "joined.ts", *parts), tmp_path / "out.mkv")
    assert gaps(tmp_path / "out.mkv") == [0.04] * 35


def test_one_wrong_stamp_is_not_a_clock_set_anew(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", sound=None, options={"movflags": "faststart"})
    with av.open(str(clip)) as before, av.open(str(tmp_path / "one.ts"), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(packet for packet in before.demux() if packet.size):
            assert packet.pts is not None
            assert packet.dts is not None
            packet.stream = stream
            packet.pts += 90_000
            packet.dts += 90_000
            if number == 6:
                packet.pts, packet.dts = packet.pts + 1, packet.dts + 1
            after.mux(packet)
    assert Clock.of(tmp_path / "one.ts").times_set_anew == 0


@pytest.mark.parametrize(("codec", "frames"), [("libx264", 30), ("mpeg4", 30)])
def test_avi_has_times_of_display_although_it_stores_none(tmp_path: Path, codec: str, frames: int) -> None:
    with av.open(str(tmp_path / "in.avi"), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.max_b_frames = 2
        stream.codec_context.options = {"crf": "10"} if codec == "libx264" else {"qscale": "3"}
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert transcode(tmp_path / "in.avi", tmp_path / "out.mp4") == []
    assert gaps(tmp_path / "out.mp4") == [0.04] * (frames - 1)
    shown = [frame.rgb for frame in read_frames(tmp_path / "out.mp4")]
    places = [np.nonzero(rgb[40, :, 0] > 200)[0].mean() for rgb in shown[:20]]  # where the square is
    assert places == sorted(places)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("first", [1, 977, 9777])
def test_a_first_stamp_that_is_no_whole_millisecond_is_exact(tmp_path: Path, suffix: str, first: int) -> None:
    pts = [first + 3003 * index for index in range(6)]
    clip = make_clip(tmp_path / "in.mkv", pts=None, frames=6)
    source = tmp_path / "late.ts"
    with av.open(str(clip)) as before, av.open(str(source), "w", options={"muxdelay": "0"}) as after:
        streams = {stream.index: after.add_stream_from_template(stream) for stream in before.streams}
        order = sorted((p for p in before.demux() if p.size), key=lambda p: p.pts * p.time_base)
        video = iter(pts)
        for packet in order:
            if packet.stream.type == "video":
                packet.time_base = Fraction(1, 90_000)
                packet.pts = packet.dts = next(video)
            packet.stream = streams[packet.stream.index]
            after.mux(packet)
    transcode(source, tmp_path / f"out{suffix}")
    assert [later - times(source)[0] for later in times(source)] == [
        at - times(tmp_path / f"out{suffix}")[0] for at in times(tmp_path / f"out{suffix}")
    ]


def test_the_last_frame_lasts_as_long_as_it_did(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=4, sound=None)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader.info) as writer:
        frames = list(reader)
        frames[-1].duration = 5000
        for frame in frames:
            writer.write(frame)
        writer.commit()
    with av.open(str(tmp_path / "out.mp4")) as container:
        durations = [packet.duration for packet in container.demux(video=0) if packet.size]
    assert max(durations) == 5000


def test_matroska_packets_without_a_time_of_decoding_are_kept(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(20):
            frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with av.open(str(source)) as container:
        assert any(packet.dts is None for packet in container.demux(video=0) if packet.size)
    assert transcode(source, tmp_path / "out.mkv") == []
    assert times(tmp_path / "out.mkv") == times(source)
