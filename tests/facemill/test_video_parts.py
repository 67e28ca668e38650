"""A film that was encoded in parts and joined is the film that was encoded in one go."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import make_clip, packets, picture, times
from hypothesis import given, settings
from hypothesis import strategies as st

from facemill.errors import FacemillError, InputError
from facemill.files import sweep
from facemill.reasons import Reason
from facemill.video import (
    EncoderSettings,
    Frame,
    Part,
    PartWriter,
    VideoInfo,
    VideoReader,
    VideoWriter,
    join_parts,
    plan_segments,
    probe,
)
from facemill.video.frame import planes
from facemill.video.joining import _times_of_decoding

VFR_STEPS = [512, 300, 40, 4000, 512, 1000, 13, 700]
STEPS = {"cfr": [512], "vfr": VFR_STEPS}
ENCODERS = {
    "libx264": {"crf": 20, "preset": "veryfast"},
    "libx265": {"crf": 24, "preset": "ultrafast"},
    "libsvtav1": {"crf": 30, "preset": "12"},
    "libvpx-vp9": {"crf": 30, "preset": ""},
    "mpeg4": {"preset": ""},
    "ffv1": {"preset": ""},
}


def clip_of(folder: Path, frames: int, *, steps: Sequence[int] = (512,), **more: Any) -> Path:
    pts = [0, *itertools.accumulate(itertools.islice(itertools.cycle(steps), frames - 1))]
    return make_clip(folder / "in.mp4", frames=frames, pts=pts, **more)


def read(path: Path, pix_fmt: str | None = None) -> tuple[VideoInfo, list[Frame]]:
    with VideoReader(path, threads=1, pix_fmt=pix_fmt) as reader:
        return reader.info, list(reader)


def write_part(path: Path, info: VideoInfo, frames: Sequence[Frame], encoder: EncoderSettings) -> Part:
    with PartWriter(path, info, encoder) as writer:
        for frame in frames:
            writer.write(frame)
        return writer.commit()


def write_parts(
    folder: Path,
    info: VideoInfo,
    frames: Sequence[Frame],
    lengths: Sequence[int],
    encoder: EncoderSettings,
    suffix: str,
) -> list[Part]:
    """Encodes the last part first, since no part may know of another."""
    ends = list(itertools.accumulate(lengths))
    assert ends[-1] == len(frames)
    parts = [
        write_part(folder / f"{number:03d}{suffix}", info, frames[end - length : end], encoder)
        for number, (end, length) in reversed(list(enumerate(zip(ends, lengths, strict=True))))
    ]
    return parts[::-1]


def in_one_go(
    path: Path, info: VideoInfo, frames: Sequence[Frame], encoder: EncoderSettings, source: Path
) -> tuple[Path, list[str]]:
    with VideoWriter(path, info, encoder, sound_from=source) as writer:
        for frame in frames:
            writer.write(frame)
        writer.commit()
    return path, writer.warnings


def pixels(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [np.array(planes(one)[0], np.int64) for one in container.decode(video=0)]


def worst_psnr(path: Path, frames: Sequence[Frame]) -> float:
    worst = 99.0
    for found, frame in zip(pixels(path), frames, strict=True):
        error = float(((found - np.array(planes(frame.picture)[0], np.int64)) ** 2).mean())
        peak = 255.0 if frame.picture.format.components[0].bits == 8 else 1023.0
        worst = min(worst, 99.0 if error == 0 else 10 * float(np.log10(peak**2 / error)))
    return worst


def stamps(path: Path) -> list[tuple[int | None, int | None]]:
    with av.open(str(path)) as container:
        return [(one.pts, one.dts) for one in container.demux(video=0) if one.size]


@pytest.mark.parametrize("timing", STEPS)
@pytest.mark.parametrize(
    ("encoder", "suffix"),
    [
        *itertools.product(["libx264", "libx265", "mpeg4"], [".mp4", ".mov", ".mkv"]),
        *itertools.product(["libsvtav1", "libvpx-vp9"], [".mp4", ".mkv"]),
        ("ffv1", ".mkv"),
    ],
)
def test_joined_parts_are_the_film_in_one_go(tmp_path: Path, encoder: str, suffix: str, timing: str) -> None:
    coarse = 13 if suffix == ".mkv" and timing == "vfr" else 1  # Matroska's clock is of milliseconds
    source = clip_of(tmp_path, 47, steps=[coarse * step for step in STEPS[timing]])
    info, frames = read(source)
    chosen = EncoderSettings(name=encoder, **ENCODERS[encoder])
    one, said = in_one_go(tmp_path / f"one{suffix}", info, frames, chosen, source)
    parts = write_parts(tmp_path, info, frames, [20, 1, 2, 24], chosen, suffix)
    notes = join_parts(parts, tmp_path / f"out{suffix}", info, sound_from=source)
    assert notes == said
    assert times(tmp_path / f"out{suffix}") == times(one)
    assert packets(tmp_path / f"out{suffix}", "audio") == packets(one, "audio")
    assert worst_psnr(tmp_path / f"out{suffix}", frames) > min(30, worst_psnr(one, frames) - 3)
    if suffix != ".mkv":
        assert [dts for _, dts in stamps(tmp_path / f"out{suffix}")] == [dts for _, dts in stamps(one)]
    before, after = probe(one), probe(tmp_path / f"out{suffix}")
    if timing == "vfr":  # an average, to which the packet that is decoded last adds its length
        after = replace(after, fps=before.fps, duration_s=before.duration_s)
    assert replace(after, size_bytes=before.size_bytes) == before


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1"])
def test_ten_bits_are_joined(tmp_path: Path, encoder: str) -> None:
    source = clip_of(tmp_path, 30, codec="libx265", pix_fmt="yuv420p10le")
    info, frames = read(source, pix_fmt="yuv420p10le")
    parts = write_parts(tmp_path, info, frames, [13, 17], EncoderSettings(name=encoder, **ENCODERS[encoder]), ".mp4")
    join_parts(parts, tmp_path / "out.mp4", info, sound_from=source)
    assert (probe(tmp_path / "out.mp4").bit_depth, len(times(tmp_path / "out.mp4"))) == (10, 30)
    assert worst_psnr(tmp_path / "out.mp4", frames) > 30


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_bytes_are_the_same_whoever_encodes_when(tmp_path: Path, suffix: str) -> None:
    """In other processes, in any order, on any number of cores, and through receipts in between."""
    source = clip_of(tmp_path, 150, size=(320, 240), steps=VFR_STEPS if suffix == ".mp4" else [512])
    plan = plan_segments(source, least_s=1.0, most_s=2.0)
    assert len(plan.segments) >= 3
    films = []
    for turn in range(2):
        folder = tmp_path / str(turn)
        jobs = [(source, index, folder / f"{index}{suffix}") for index in range(len(plan.segments))]
        random.Random(turn).shuffle(jobs)
        with multiprocessing.get_context("spawn").Pool(2 - turn) as pool:
            told = dict(pool.starmap(encode_segment, jobs))
        parts = [Part.from_dict(folder / f"{index}{suffix}", json.loads(told[index])) for index in sorted(told)]
        join_parts(parts, folder / f"film{suffix}", probe(source), sound_from=source, clock=plan.clock)
        films.append((folder / f"film{suffix}").read_bytes())
    assert films[0] == films[1]
    assert len(times(tmp_path / "0" / f"film{suffix}")) == 150


def encode_segment(source: Path, index: int, target: Path) -> tuple[int, str]:
    os.sched_setaffinity(0, {index % os.cpu_count()})
    segment = plan_segments(source, least_s=1.0, most_s=2.0).segments[index]
    with VideoReader(source, segment=segment, threads=1 + index) as reader, PartWriter(target, reader.info) as writer:
        for frame in reader:
            writer.write(frame)
        return index, json.dumps(writer.commit().as_dict())


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1", "libvpx-vp9"])
def test_a_part_does_not_know_the_machine(tmp_path: Path, encoder: str) -> None:
    """The same frames give the same file in a process that may use one core and in one that may use two."""
    source = clip_of(tmp_path, 24, size=(320, 240), sound=None)
    code = (
        "import sys, os; from facemill.video import *\n"
        "os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:int(sys.argv[3])]))\n"
        f"encoder = EncoderSettings(name={encoder!r}, **{ENCODERS[encoder]!r})\n"
        "with VideoReader(sys.argv[1]) as reader, PartWriter(sys.argv[2], reader.info, encoder) as writer:\n"
        "    [writer.write(frame) for frame in reader]\n"
        "    print(writer.commit().sha256)\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, str(source), str(tmp_path / "part.mp4"), cores],
            check=True,
            capture_output=True,
        ).stdout
        for cores in ("1", "2")
    }
    assert len(found) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=40), st.integers(0, 5))
def test_times_of_decoding_rise_and_never_lie_behind_those_of_display(steps: list[int], depth: int) -> None:
    pts = np.cumsum(steps)
    dts = _times_of_decoding(pts, depth)
    assert (np.diff(dts) > 0).all()
    depth = min(depth, len(pts) - 1)
    for place in range(len(pts)):  # a frame's packet comes at most so many places before it is shown
        assert dts[min(len(pts) - 1, place + depth)] <= pts[place] or place + depth >= len(pts)


@pytest.mark.parametrize("lengths", [[1], [1, 1, 1], [3, 1, 1, 2]])
def test_parts_of_one_frame_are_joined(tmp_path: Path, lengths: list[int]) -> None:
    source = clip_of(tmp_path, sum(lengths), steps=VFR_STEPS)
    info, frames = read(source)
    parts = write_parts(tmp_path, info, frames, lengths, EncoderSettings(), ".mp4")
    join_parts(parts, tmp_path / "out.mp4", info, sound_from=source)
    assert times(tmp_path / "out.mp4") == times(source)


def test_the_last_frame_of_a_part_and_of_the_film_last_as_long_as_they_did(tmp_path: Path) -> None:
    info, frames = read(clip_of(tmp_path, 6, sound=None))
    frames[-1].duration = 5000
    # MP4 keeps the length of the packet that is decoded last, which x264's last frame need not be
    for encoder, suffix in (("libx264", ".mkv"), ("libsvtav1", ".mp4"), ("ffv1", ".mkv")):
        chosen = EncoderSettings(name=encoder, **ENCODERS[encoder])
        parts = write_parts(tmp_path, info, frames, [3, 3], chosen, suffix)
        out = tmp_path / f"out{suffix}"
        join_parts(parts, out, info)
        with av.open(str(out)) as container:
            tick = container.streams.video[0].time_base
            assert tick is not None
            lengths = {one.pts: float((one.duration or 0) * tick) for one in container.demux(video=0) if one.size}
        *others, last = (lengths[at] for at in sorted(at for at in lengths if at is not None))
        assert last == pytest.approx(5000 / 12_800, abs=0.001)
        assert others == pytest.approx([0.04] * 5, abs=0.0011)


def test_fields_are_kept_through_a_join(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"x264-params": "tff=1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.flags |= 1 << 18 | 1 << 29
        for index in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")))
        container.mux(stream.encode(None))
    info, frames = read(tmp_path / "in.mp4")
    assert info.interlaced
    parts = write_parts(tmp_path, info, frames, [8, 12], EncoderSettings(), ".mp4")
    join_parts(parts, tmp_path / "out.mp4", info)
    assert probe(tmp_path / "out.mp4").interlaced
    assert times(tmp_path / "out.mp4") == times(tmp_path / "in.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_film_with_an_odd_size_and_pixels_that_are_not_square_is_joined(tmp_path: Path, suffix: str) -> None:
    tags = {
        "color_primaries": 1,
        "color_trc": 1,
        "colorspace": 1,
        "color_range": 1,
        "sample_aspect_ratio": Fraction(4, 3),
    }
    source = make_clip(tmp_path / "in.mp4", frames=6, size=(97, 63), pix_fmt="yuv444p", tags=tags)
    info, frames = read(source, pix_fmt="yuv420p")
    parts = write_parts(tmp_path, info, frames, [3, 3], EncoderSettings(name="mpeg4", preset=""), suffix)
    notes = join_parts(parts, tmp_path / f"out{suffix}", info, sound_from=source)
    found = probe(tmp_path / f"out{suffix}")
    assert any("padded" in note for note in notes)
    assert (found.width, found.height) == (98, 64)
    assert abs(float(found.sample_aspect_ratio or 1) - 4 / 3) < 0.01


# --- what must not pass ----------------------------------------------------------------------------------------------


@pytest.fixture
def two_parts(tmp_path: Path) -> tuple[VideoInfo, list[Part]]:
    info, frames = read(clip_of(tmp_path, 20))
    return info, write_parts(tmp_path, info, frames, [10, 10], EncoderSettings(), ".mp4")


def refused(parts: Sequence[Part], info: VideoInfo, output: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        join_parts(parts, output, info)
    assert caught.value.reason == Reason.CONVERSION_FAILED
    assert not output.exists()
    assert not list(output.parent.glob(".facemill-new-*"))


def test_parts_of_other_settings_are_refused(tmp_path: Path, two_parts: tuple[VideoInfo, list[Part]]) -> None:
    """Count and times would be right, and the pictures garbage: x264 writes the quality into its header."""
    info, (first, _) = two_parts
    _, frames = read(tmp_path / "in.mp4")
    other = write_part(tmp_path / "other.mp4", info, frames[10:], EncoderSettings(crf=28))
    refused([first, other], info, tmp_path / "out.mp4", r"other\.mp4 was encoded otherwise.*Delete the parts")
    # and if the record lied, the pictures would be compared
    lying = replace(other, header_sha256=first.header_sha256)
    refused([first, lying], info, tmp_path / "out.mp4", r"is not that of its part other\.mp4")


def test_a_part_that_is_cut_off_or_gone_is_named(tmp_path: Path, two_parts: tuple[VideoInfo, list[Part]]) -> None:
    info, parts = two_parts
    data = parts[1].path.read_bytes()
    for content in (data[: len(data) // 2], b"", data[:-1] + bytes([data[-1] ^ 1])):
        parts[1].path.write_bytes(content)
        refused(parts, info, tmp_path / "out.mp4", r"001\.mp4 is not as it was written. Delete the parts")
    parts[1].path.unlink()
    refused(parts, info, tmp_path / "out.mp4", r"001\.mp4 cannot be read")


def test_parts_that_do_not_follow_each_other_are_refused(
    tmp_path: Path, two_parts: tuple[VideoInfo, list[Part]]
) -> None:
    info, parts = two_parts
    refused(parts[::-1], info, tmp_path / "out.mp4", r"000\.mp4 does not follow 001\.mp4")
    refused([parts[0], *parts], info, tmp_path / "out.mp4", "does not follow")
    refused([], info, tmp_path / "out.mp4", "no parts")
    refused(parts, info, tmp_path / "out.mkv", "of another kind than mkv")


def test_a_part_without_commit_leaves_nothing(tmp_path: Path, two_parts: tuple[VideoInfo, list[Part]]) -> None:
    info, parts = two_parts
    before = sorted(path.name for path in tmp_path.iterdir())
    with VideoReader(tmp_path / "in.mp4") as reader, PartWriter(tmp_path / "new.mp4", info) as writer:
        writer.write(next(iter(reader)))
    with PartWriter(tmp_path / "empty.mp4", info) as writer, pytest.raises(InputError, match="no frames"):
        writer.commit()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert parts[0].path.exists()


JOINS_FOR_EVER = """
import sys, json, itertools
from pathlib import Path
from facemill.video import Part, join_parts, probe
source, *paths = map(Path, sys.argv[1:])
parts = [Part.from_dict(path, json.loads(path.with_suffix(".json").read_text())) for path in paths]
print("going", flush=True)
while True:
    join_parts(parts, source.with_name("out.mp4"), probe(source), sound_from=source)
"""


def test_a_join_that_is_killed_leaves_nothing_half_written(
    tmp_path: Path, two_parts: tuple[VideoInfo, list[Part]]
) -> None:
    info, parts = two_parts
    for part in parts:
        part.path.with_suffix(".json").write_text(json.dumps(part.as_dict()))
    join_parts(parts, tmp_path / "out.mp4", info, sound_from=tmp_path / "in.mp4")
    whole = (tmp_path / "out.mp4").read_bytes()
    command = [sys.executable, "-c", JOINS_FOR_EVER, str(tmp_path / "in.mp4"), *(str(part.path) for part in parts)]
    for wait_s in (0.02, 0.11, 0.23):
        (tmp_path / "out.mp4").unlink()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "going\n"
            try:
                process.wait(timeout=wait_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        sweep(tmp_path)
        assert not list(tmp_path.glob(".facemill-new-*"))
        if (tmp_path / "out.mp4").exists():
            assert (tmp_path / "out.mp4").read_bytes() == whole
        join_parts(parts, tmp_path / "out.mp4", info, sound_from=tmp_path / "in.mp4")
        assert (tmp_path / "out.mp4").read_bytes() == whole


def test_a_container_or_an_encoder_that_cannot_be_is_named(tmp_path: Path) -> None:
    info = probe(clip_of(tmp_path, 2))
    with pytest.raises(FacemillError, match=r"000\.avi"):
        PartWriter(tmp_path / "000.avi", info)
    with pytest.raises(FacemillError, match="libx999"):
        PartWriter(tmp_path / "000.mp4", info, EncoderSettings(name="libx999"))


JOINS_MANY = """
import sys, json
from array import array
from dataclasses import replace
from pathlib import Path
from facemill.video import Part, join_parts, probe
folder, times = Path(sys.argv[1]), int(sys.argv[2])
paths = [folder / "000.mp4", folder / "001.mp4"]
one = [Part.from_dict(path, json.loads(path.with_suffix(".json").read_text())) for path in paths]
length = 20 * 512
parts = [
    replace(part, pts=array("q", (at + turn * length for at in part.pts))) for turn in range(times) for part in one
]
join_parts(parts, folder / "long.mp4", probe(folder / "in.mp4"))
status = Path("/proc/self/status").read_text()
print(int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]))
"""


def test_memory_does_not_grow_with_the_number_of_parts(tmp_path: Path, two_parts: tuple[VideoInfo, list[Part]]) -> None:
    """Parts are opened one after another: 300 of them and 1,000, with a limit of 40 open files."""
    _, parts = two_parts
    for part in parts:
        part.path.with_suffix(".json").write_text(json.dumps(part.as_dict()))
    command = f'ulimit -n 40; exec "{sys.executable}" -c "$0" "$1" "$2"'
    peaks: dict[str, list[int]] = {"150": [], "500": []}
    for turns in [*peaks] * 3:  # the allocator takes more now and then, on a busy machine: what it cannot do without
        done = subprocess.run(
            ["bash", "-c", command, JOINS_MANY, str(tmp_path), turns], check=True, capture_output=True, text=True
        )
        peaks[turns].append(int(done.stdout))
    assert min(peaks["500"]) < 1.05 * min(peaks["150"]), peaks


def test_a_full_disk_at_the_join_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, two_parts: tuple[VideoInfo, list[Part]]
) -> None:
    info, parts = two_parts
    (tmp_path / "out").mkdir()
    pid = os.fork()
    if pid == 0:  # the limit stands in for the disk: the same failing write, for this process alone
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            join_parts(parts, tmp_path / "out" / "full.mp4", info, sound_from=tmp_path / "in.mp4")
        except FacemillError as error:
            os._exit(7 if "no space left" in str(error) else 8)
        except BaseException:
            os._exit(9)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert list((tmp_path / "out").iterdir()) == []
    join_parts(parts, tmp_path / "out" / "film.m4v", info, sound_from=tmp_path / "in.mp4")
    assert len(times(tmp_path / "out" / "film.m4v")) == 20


@pytest.mark.parametrize("name", ["vasa3.mp4", "face_noface.mov", "stage.mp4", "no_face.mp4"])
def test_real_clips_in_parts_are_the_clips(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "data/videos" / name
    plan, chosen = plan_segments(source, least_s=2.0, most_s=4.0), EncoderSettings(preset="ultrafast")
    parts, frames = [], []
    for segment in plan.segments:
        with VideoReader(source, segment=segment) as reader:
            read_here = list(reader)
        frames += read_here
        parts.append(write_part(tmp_path / f"{segment.index}{source.suffix}", reader.info, read_here, chosen))
    output = tmp_path / f"out{source.suffix}"
    join_parts(parts, output, reader.info, sound_from=source, clock=plan.clock)
    assert times(output) == [frame.pts * frame.time_base for frame in frames]
    assert worst_psnr(output, frames) > 30
