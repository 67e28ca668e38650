"""A film read in pieces is the film read in one go: as many frames, at the same times, with the same pixels."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import picture
from hypothesis import given, settings
from hypothesis import strategies as st
from media_clips import joined, remux

from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.video import Frame, Segment, SegmentPlan, VideoReader, plan_segments
from facemill.video.frame import planes
from facemill.video.scheduling import scheduled_as_before
from facemill.video.segments import PRE_ROLL, choose_cuts

Seen = list[tuple[int, str]]
FRAMES = 150
OPEN_GOP = {"x264-params": "keyint=25:min-keyint=10:bframes=3:b-adapt=0:scenecut=0:open-gop=1"}
CLOSED_GOP = {"x264-params": "keyint=25:min-keyint=10:bframes=3:b-adapt=0:scenecut=0"}
NO_B = {"x264-params": "keyint=25:bframes=0:scenecut=0"}
HEVC = {"x265-params": "keyint=25:min-keyint=10:bframes=3:b-adapt=0:scenecut=0:open-gop=1:log-level=none"}
ODD_STEPS = [400, 200, 3000, 7, 512, 900, 1, 1500]


def encode(path: Path, codec: str, options: dict[str, str], **more: Any) -> Path:
    """A moving square, 6 s at 25 frames a second. `pts`: a function of the frame's number, in 1/12,800 s; `mux`:
    options of the container; `size` and `interlaced`."""
    at: Callable[[int], int] = more.get("pts", lambda number: 512 * number)
    size = more.get("size", (96, 64))
    with scheduled_as_before(), av.open(str(path), "w", options=more.get("mux", {})) as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = more.get("pix_fmt", "yuv420p")
        stream.codec_context.time_base = more.get("time_base", Fraction(1, 12_800))
        stream.codec_context.gop_size = 25
        if "b_frames" in more:
            stream.codec_context.max_b_frames = more["b_frames"]
        if more.get("interlaced"):
            stream.codec_context.flags |= 1 << 18 | 1 << 29  # DCT and motion of fields
        for number in range(more.get("frames", FRAMES)):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = at(number), stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def odd_times(number: int) -> int:
    cycle = sum(ODD_STEPS)
    return number // len(ODD_STEPS) * cycle + sum(ODD_STEPS[: number % len(ODD_STEPS)])


def seen(reader: VideoReader) -> Seen:
    def of(frame: Frame) -> tuple[int, str]:
        digest = hashlib.sha256()
        for plane in planes(frame.picture):
            digest.update(plane.tobytes())
        return frame.pts, digest.hexdigest()

    return [of(frame) for frame in reader]


def straight(path: Path, *, deinterlace: bool = False) -> Seen:
    with VideoReader(path, threads=1) as reader:
        reader.deinterlace = deinterlace
        return seen(reader)


def in_segments(path: Path, plan: SegmentPlan, *, deinterlace: bool = False) -> Seen:
    """Read backwards, since no segment may need another; checks what each promises."""
    pieces: list[Seen] = []
    for segment in reversed(plan.segments):
        with VideoReader(path, threads=1 if segment.whole else 2, segment=segment) as reader:
            reader.deinterlace = deinterlace
            pieces.insert(0, seen(reader))
        assert segment.frames in (None, len(pieces[0]))
        assert segment.start in (None, pieces[0][0][0])
        assert (reader.cut, reader.repaired_pts) == (False, 0) or segment.whole
    return list(itertools.chain.from_iterable(pieces))


def edited(source: Path, target: Path) -> Path:
    """The same packets from the middle of a GOP on: the container hides what only the decoder needs."""
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.size and packet.pts is not None and packet.dts is not None:
                packet.pts, packet.dts = packet.pts - 512 * 7, packet.dts - 512 * 7
                packet.stream = stream
                after.mux(packet)
    return target


def flagged(source: Path, target: Path, *, key: bool) -> Path:
    """A container that calls every packet a key frame, or none."""
    with av.open(str(source)) as before, av.open(str(target), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.size:
                packet.is_keyframe = key
                packet.stream = stream
                after.mux(packet)
    return target


def plain(suffix: str, codec: str, options: dict[str, str]) -> Callable[[Path], Path]:
    return lambda folder: encode(folder / f"in.{suffix}", codec, options)


KINDS: dict[str, Callable[[Path], Path]] = {
    **{
        f"x264 {gop}, {suffix}": plain(suffix, "libx264", options)
        for gop, options in {"closed": CLOSED_GOP, "open": OPEN_GOP, "without B": NO_B}.items()
        for suffix in ("mp4", "mov", "mkv", "ts", "m2ts")
    },
    **{f"hevc, {suffix}": plain(suffix, "libx265", HEVC) for suffix in ("mp4", "mkv", "ts")},
    "mpeg2, ts": lambda folder: encode(
        folder / "in.ts", "mpeg2video", {"b": "2M"}, b_frames=2, time_base=Fraction(1, 25), pts=lambda n: n
    ),
    "mpeg2, mxf": lambda folder: encode(
        folder / "in.mxf", "mpeg2video", {"b": "2M"}, b_frames=2, time_base=Fraction(1, 25), pts=lambda n: n
    ),
    "x264, nut": plain("nut", "libx264", OPEN_GOP),
    "wmv2, asf": plain("wmv", "wmv2", {"b": "1M"}),
    "vp8 with hidden frames, webm": lambda folder: encode(
        folder / "in.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime", "b": "1M"}
    ),
    "vp9, webm": lambda folder: encode(
        folder / "in.webm",
        "libvpx-vp9",
        {"auto-alt-ref": "1", "lag-in-frames": "16", "deadline": "realtime", "cpu-used": "8"},
    ),
    "av1, mp4": lambda folder: encode(folder / "in.mp4", "libsvtav1", {"preset": "12", "g": "25"}),
    "odd times, mp4": lambda folder: encode(folder / "in.mp4", "libx264", OPEN_GOP, pts=odd_times),
    "odd times, mkv": lambda folder: encode(folder / "in.mkv", "libx264", OPEN_GOP, pts=lambda n: 31 * odd_times(n)),
    "edit list, mp4": lambda folder: edited(encode(folder / "x.mp4", "libx264", OPEN_GOP), folder / "in.mp4"),
    "fragments, mp4": lambda folder: encode(
        folder / "in.mp4", "libx264", OPEN_GOP, mux={"movflags": "frag_keyframe+empty_moov"}
    ),
    "odd first pts, ts": lambda folder: remux(encode(folder / "x.mp4", "libx264", OPEN_GOP), folder / "in.ts", 0.1086),
    "hour 10, ts": lambda folder: remux(encode(folder / "x.mp4", "libx264", OPEN_GOP), folder / "in.ts", 36_000.0),
    "intra refresh, mp4": lambda folder: encode(
        folder / "in.mp4", "libx264", {"x264-params": "keyint=25:intra-refresh=1:bframes=0"}
    ),
    "every packet a key frame, mp4": lambda folder: flagged(
        encode(folder / "x.mp4", "libx264", NO_B), folder / "in.mp4", key=True
    ),
    "every packet a key frame, mkv": lambda folder: flagged(
        encode(folder / "x.mkv", "mpeg4", {"b": "1M"}), folder / "in.mkv", key=True
    ),
    "one key frame, mkv": lambda folder: encode(
        folder / "in.mkv", "libx264", {"x264-params": "keyint=infinite:scenecut=0:bframes=3"}
    ),
    "intra only, mov": lambda folder: encode(folder / "in.mov", "mjpeg", {}, pix_fmt="yuvj420p"),
    "ffv1, mkv": lambda folder: encode(folder / "in.mkv", "ffv1", {"g": "1"}),
    "two sizes, ts": lambda folder: joined(
        folder / "in.ts",
        remux(encode(folder / "x.mp4", "libx264", CLOSED_GOP, frames=75), folder / "x.ts", 10.0),
        remux(encode(folder / "y.mp4", "libx264", CLOSED_GOP, frames=75, size=(128, 96)), folder / "y.ts", 13.0),
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def film(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    """A film of 6 s of one kind, and all its frames read in one go."""
    path = KINDS[request.param](tmp_path_factory.mktemp("film"))
    return path, straight(path)


def test_the_segments_of_a_film_are_the_film(film: tuple[Path, Seen]) -> None:
    path, whole = film
    plan = plan_segments(path, least_s=1.0, most_s=2.0)
    assert plan.whole is None
    assert len(plan.segments) >= 2
    assert [segment.index for segment in plan.segments] == list(range(len(plan.segments)))
    assert all(before.end == after.start for before, after in itertools.pairwise(plan.segments))
    assert in_segments(path, plan) == whole
    assert sum(segment.frames or 0 for segment in plan.segments) == len(whole)


@settings(max_examples=4, deadline=None)
@given(st.data())
def test_a_cut_may_lie_on_any_frame(film: tuple[Path, Seen], data: st.DataObject) -> None:
    path, whole = film
    least_s = data.draw(st.floats(0.3, 2.0))
    plan = plan_segments(path, least_s=least_s, most_s=data.draw(st.floats(least_s, 2.5)))
    assert in_segments(path, plan) == whole


def test_a_plan_is_known_by_the_file_alone(tmp_path: Path) -> None:
    path = encode(tmp_path / "in.mp4", "libx264", OPEN_GOP)
    plan = plan_segments(path, least_s=1.0)
    (tmp_path / "other name.bin").write_bytes(path.read_bytes())
    assert plan_segments(tmp_path / "other name.bin", least_s=1.0) == plan
    told = json.loads(json.dumps([segment.as_dict() for segment in plan.segments]))
    assert tuple(Segment.from_dict(values) for values in told) == plan.segments


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_fields_that_become_frames_do_so_across_a_cut(tmp_path: Path, suffix: str) -> None:
    options = {"x264-params": "keyint=25:bframes=2:scenecut=0:tff=1"}
    path = encode(tmp_path / f"in.{suffix}", "libx264", options, interlaced=True)
    plan = plan_segments(path, least_s=1.0, most_s=2.0)
    assert len(plan.segments) >= 3
    for deinterlace in (True, False):
        assert in_segments(path, plan, deinterlace=deinterlace) == straight(path, deinterlace=deinterlace)


def without_times_of_display(folder: Path) -> Path:
    """Frames come in the order of decoding and are timed in it, as a program that knew AVI only would copy them."""
    source = encode(folder / "x.mp4", "libx264", CLOSED_GOP)
    with av.open(str(source)) as before, av.open(str(folder / "in.mp4"), "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for number, packet in enumerate(packet for packet in before.demux(video=0) if packet.size):
            packet.pts = packet.dts = 512 * number
            packet.stream = stream
            after.mux(packet)
    return folder / "in.mp4"


def cut_short(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    return path


def joined_ts(folder: Path, second_s: float) -> Path:
    clip = encode(folder / "x.mp4", "libx264", CLOSED_GOP)
    return joined(folder / "in.ts", remux(clip, folder / "a.ts", 10.0), remux(clip, folder / "b.ts", second_s))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: encode(folder / "in.avi", "mpeg4", {"b": "1M"}, b_frames=2), "kind avi"),
        (lambda folder: encode(folder / "in.avi", "libx264", OPEN_GOP), "kind avi"),
        (lambda folder: encode(folder / "in.gif", "gif", {}, pix_fmt="rgb8"), "kind gif"),
        (plain("flv", "libx264", OPEN_GOP), "kind flv"),
        (lambda folder: encode(folder / "in.h264", "libx264", CLOSED_GOP), "kind h264"),
        (
            lambda folder: encode(
                folder / "in.mpg", "mpeg2video", {"b": "2M"}, b_frames=2, time_base=Fraction(1, 25), pts=lambda n: n
            ),
            "kind mpeg",
        ),
        (lambda folder: joined_ts(folder, 0.0), "clock is set anew"),
        (lambda folder: joined_ts(folder, 5000.0), "clock is set anew"),
        (without_times_of_display, "not those of display"),
        (
            lambda folder: cut_short(
                encode(folder / "in.mp4", "libx264", CLOSED_GOP, mux={"movflags": "faststart"}),
            ),
            "cut short",
        ),
        (lambda folder: cut_short(encode(folder / "in.mkv", "libx264", CLOSED_GOP)), "cut short"),
    ],
)
def test_what_has_to_be_repaired_stays_whole(tmp_path: Path, make: Callable[[Path], Path], reason: str) -> None:
    path = make(tmp_path)
    plan = plan_segments(path, least_s=1.0, most_s=2.0)
    assert plan.segments == (Segment(),)
    assert reason in (plan.whole or "")
    assert in_segments(path, plan) == straight(path)


def test_a_short_video_is_one_segment_without_a_reason(tmp_path: Path) -> None:
    path = encode(tmp_path / "in.mp4", "libx264", CLOSED_GOP)
    plan = plan_segments(path)
    assert (plan.segments, plan.whole) == ((Segment(),), None)


def test_a_plan_of_another_file_is_an_error(tmp_path: Path) -> None:
    path = encode(tmp_path / "in.mp4", "libx264", CLOSED_GOP)
    plan = plan_segments(path, least_s=1.0)
    encode(path, "libx264", CLOSED_GOP, frames=60)
    with VideoReader(path, segment=plan.segments[-1]) as reader, pytest.raises(InputError, match="as it was planned"):
        list(reader)
    middle = replace(plan.segments[1], frames=(plan.segments[1].frames or 0) - 1)
    with VideoReader(path, segment=middle) as reader, pytest.raises(InputError, match="frames were read") as caught:
        list(reader)
    assert caught.value.reason == Reason.CONVERSION_FAILED


def test_a_segment_with_broken_packets_says_where(tmp_path: Path) -> None:
    path = encode(tmp_path / "in.mp4", "libx264", {**CLOSED_GOP, "crf": "4"})
    plan = plan_segments(path, least_s=1.0, most_s=2.0)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for pos, size in places[80:84]:
        assert pos is not None
        data[pos : pos + size] = np.random.default_rng(1).integers(0, 256, size, np.uint8).tobytes()
    path.write_bytes(data)
    notes = []
    for segment in plan.segments:
        with VideoReader(path, segment=segment) as reader:
            assert all((segment.start or 0) <= frame.pts < (segment.end or 10**9) for frame in reader)
        notes.append(reader.warnings())
    said = [note for note in notes if note]
    assert len(said) == 1
    assert "from 3 s on: " in said[0][0]
    assert "frames are lost" in said[0][0]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_damaged_film_in_segments_is_the_film_or_says_so(tmp_path: Path, suffix: str) -> None:
    """Where a key frame is broken more may be read from one place than from another, but never without a word."""
    whole = encode(tmp_path / f"whole.{suffix}", "libx264", OPEN_GOP).read_bytes()
    path, chance = tmp_path / f"in.{suffix}", np.random.default_rng(5)
    same = other = 0
    for _ in range(12):
        data, at, size = bytearray(whole), int(chance.integers(2000, len(whole))), int(chance.integers(1, 1500))
        data[at : at + size] = chance.integers(0, 256, min(size, len(data) - at), np.uint8).tobytes()
        path.write_bytes(data)
        notes, found = [], []
        try:
            expected = [pts for pts, _ in straight(path)]
            for segment in plan_segments(path, least_s=1.0, most_s=2.0).segments:
                with VideoReader(path, threads=1, segment=segment) as reader:
                    found += [pts for pts, _ in seen(reader)]
                notes += reader.warnings()
        except InputError:
            continue
        assert set(found) >= set(expected) or any("frames are lost" in note for note in notes)
        same, other = same + (found == expected), other + (found != expected)
    assert same > other


# --- where cuts lie -------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=300),
    st.sets(st.integers(0, 299), max_size=60),
    st.integers(1, 60),
    st.integers(0, 120),
)
def test_cuts_keep_their_rules(steps: list[int], key_numbers: set[int], least: int, more: int) -> None:
    pts = np.cumsum([0, *steps])
    keys = sorted(int(pts[number]) for number in key_numbers | {0} if number < len(pts))
    most, last = least + more, least // 2
    cuts = choose_cuts(pts, keys, least, most, last)
    assert set(cuts) <= set(pts.tolist())
    bounds = [0, *cuts]
    for before, cut in itertools.pairwise(bounds):
        assert cut - before >= least
        inside = [key for key in keys if before + least <= key <= before + most and key <= pts[-1] - last]
        assert (cut in inside) if inside else (cut in keys or cut - max(k for k in keys if k <= cut) <= PRE_ROLL * most)
    assert not cuts or pts[-1] - cuts[-1] >= last


def test_a_cut_prefers_the_key_frame_of_a_new_scene() -> None:
    pts = np.arange(0, 2000)
    regular = list(range(0, 2000, 50))
    assert choose_cuts(pts, regular, 250, 750, 125)[:2] == [250, 500]
    assert choose_cuts(pts, sorted({*regular, 431}), 250, 750, 125)[:2] == [431, 700]


def test_a_film_without_key_frames_is_cut_as_far_as_it_costs_little() -> None:
    pts = np.arange(0, 10_000)
    assert choose_cuts(pts, [0], 250, 750, 125) == [750, 1500]
    assert choose_cuts(pts, [0, 5000], 250, 750, 125) == [750, 1500, 5000, 5750, 6500]


# --- real footage ---------------------------------------------------------------------------------------------------


def clips_of(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.suffix != ".md")


@pytest.mark.parametrize(("folder", "most_s"), [("videos", 3.0), ("media_faults", 1.2)])
def test_real_clips_in_segments_are_the_clips(shared: Path, folder: str, most_s: float) -> None:
    """Cut much finer than a plan would be, so that short clips have cuts at all."""
    cut = 0
    for path in clips_of(shared / "data" / folder):
        plan = plan_segments(path, least_s=0.8, most_s=most_s)
        cut += len(plan.segments) > 1
        assert in_segments(path, plan) == straight(path), path.name
    assert cut >= 8
