"""Video in and out: what goes in comes out at the same time, upright, or with a reason."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip, packets, picture, times

from facemill.errors import FacemillError, InputError
from facemill.files import sweep
from facemill.reasons import Reason
from facemill.video import EncoderSettings, Frame, VideoReader, VideoWriter, probe, read_frames, verify

VFR_PTS = [0, 512, 1500, 1600, 3700, 3800, 9000, 9512, 11111, 11200, 12000, 20000]


def transcode(source: Path, target: Path, **settings: object) -> VideoWriter:
    with VideoWriter(target, probe(source), EncoderSettings(**settings), sound_from=source) as writer:
        with VideoReader(source, pix_fmt=writer.pix_fmt) as reader:
            for frame in reader:
                writer.write(frame)
        writer.commit()
    return writer


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = float(((first.astype(float) - second) ** 2).mean())
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of 96×64 at 25 fps with a tone."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


def test_probe_tells_what_is_in_the_file(clip: Path) -> None:
    info = probe(clip)
    assert (info.codec, info.width, info.height, info.frames, info.fps) == ("h264", 96, 64, 12, 25)
    assert info.duration_s == pytest.approx(0.48)
    assert [(audio.codec, audio.sample_rate_hz) for audio in info.audio] == [("aac", 44_100)]
    assert (info.rotation, info.hdr, info.other) == (0, False, ())


def test_frames_come_in_order_with_their_times_and_pictures(clip: Path) -> None:
    frames = list(read_frames(clip))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 25 for index in range(12)])
    assert min(psnr(frame.rgb, picture(index, 96, 64)) for index, frame in enumerate(frames)) > 30


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_uneven_timestamps_are_kept_exactly(tmp_path: Path, suffix: str) -> None:
    source = make_clip(tmp_path / f"vfr{suffix}", pts=VFR_PTS)
    transcode(source, tmp_path / f"out{suffix}")
    assert times(tmp_path / f"out{suffix}") == times(source)
    assert len(times(source)) == len(VFR_PTS)


def test_sound_packets_are_the_same_bytes_at_the_same_times(clip: Path, tmp_path: Path) -> None:
    transcode(clip, tmp_path / "out.mp4")
    assert packets(tmp_path / "out.mp4", "audio") == packets(clip, "audio")


def test_sound_that_the_container_cannot_hold_becomes_aac_and_is_noted(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "pcm.mkv", sound="pcm_s16le")
    writer = transcode(source, tmp_path / "out.mp4")
    assert [audio.codec for audio in probe(tmp_path / "out.mp4").audio] == ["aac"]
    assert float(packets(tmp_path / "out.mp4", "audio")[-1][0]) == pytest.approx(0.48, abs=0.05)
    assert any("became aac" in note for note in writer.warnings)


def test_a_clip_without_sound_stays_without(tmp_path: Path) -> None:
    transcode(make_clip(tmp_path / "mute.mp4", sound=None), tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").audio == ()


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_clip_is_read_and_written_upright(tmp_path: Path, rotation: int) -> None:
    upright = picture(0, 96, 64)
    stored = np.rot90(upright, -rotation // 90)
    source = make_clip(tmp_path / "turned.mp4", frames=[stored] * 3, rotation=rotation)
    assert (probe(source).width, probe(source).height, probe(source).rotation) == (96, 64, rotation)
    assert psnr(next(read_frames(source)).rgb, upright) > 30
    transcode(source, tmp_path / "out.mp4")
    assert probe(tmp_path / "out.mp4").rotation == 0
    assert psnr(next(read_frames(tmp_path / "out.mp4")).rgb, upright) > 30


@pytest.mark.parametrize("size", [(97, 63), (96, 63), (97, 64)])
def test_an_odd_size_is_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    source = make_clip(tmp_path / "odd.mp4", size=size, pix_fmt="yuv444p")
    writer = transcode(source, tmp_path / "out.mp4")
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height) == size
    assert any("odd size" in note for note in writer.warnings)


def test_an_encoder_that_cannot_hold_an_odd_size_pads_by_one_and_says_so(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "odd.mp4", size=(97, 63), pix_fmt="yuv444p")
    writer = transcode(source, tmp_path / "out.mp4", name="mpeg4", preset="")
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.height) == (98, 64)
    assert any("padded" in note for note in writer.warnings)
    assert psnr(next(read_frames(tmp_path / "out.mp4")).rgb[:63, :97], picture(0, 97, 63)) > 25


def test_colour_tags_and_pixel_ratio_survive(tmp_path: Path) -> None:
    tags = {"color_primaries": 1, "color_trc": 1, "colorspace": 1, "color_range": 1}
    source = make_clip(tmp_path / "tagged.mp4", tags={**tags, "sample_aspect_ratio": Fraction(4, 3)})
    transcode(source, tmp_path / "out.mp4")
    before, after = probe(source), probe(tmp_path / "out.mp4")
    assert after.colour == before.colour
    assert (before.colour.space, after.sample_aspect_ratio) == (1, Fraction(4, 3))


@pytest.mark.parametrize("space", [1, 5])
def test_red_is_red_in_either_matrix(space: int) -> None:
    red = np.full((32, 32, 3), (255, 0, 0), np.uint8)
    frame = Frame.from_rgb(red, 0, Fraction(1, 25), matrix=space)
    assert np.abs(frame.rgb.astype(int) - red).max() <= 3


def test_untouched_samples_reach_the_encoder_bit_for_bit(clip: Path) -> None:
    frame = next(read_frames(clip))
    before = [np.array(plane) for plane in planes_of(frame)]
    region, (x0, y0, _, _) = frame.region((10, 10, 50, 40))
    changed = np.zeros(region.shape[:2], bool)
    changed[8:12, 8:12] = True
    frame.paste(255 - region, (x0, y0), changed)
    luma_changed = before[0] != planes_of(frame)[0]
    assert luma_changed.sum() == 16
    assert luma_changed[y0 + 8 : y0 + 12, x0 + 8 : x0 + 12].all()
    assert all((a != b).sum() <= 4 for a, b in zip(before[1:], planes_of(frame)[1:], strict=True))


def planes_of(frame: Frame) -> list[np.ndarray]:
    from facemill.video.frame import planes

    return list(planes(frame.picture))


def test_pasting_does_not_reach_frames_that_the_decoder_still_refers_to(clip: Path, tmp_path: Path) -> None:
    changed = np.ones((64, 96), bool)
    with VideoReader(clip) as reader:
        for index, frame in enumerate(reader):
            assert psnr(frame.rgb, picture(index, 96, 64)) > 30
            frame.paste(np.zeros((64, 96, 3), np.uint8), (0, 0), changed)


def test_high_dynamic_range_is_refused(tmp_path: Path) -> None:
    tags = {"color_primaries": 9, "color_trc": 16, "colorspace": 9}
    source = make_clip(tmp_path / "hdr.mp4", codec="libx265", pix_fmt="yuv420p10le", tags=tags, frames=3)
    with pytest.raises(InputError) as caught:
        list(read_frames(source))
    assert caught.value.reason == Reason.HDR_VIDEO


def test_ten_bits_without_hdr_are_read_with_a_warning(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "ten.mp4", codec="libx265", pix_fmt="yuv420p10le", frames=3)
    with VideoReader(source) as reader:
        assert len(list(reader)) == 3
    assert "10 bits a channel became 8" in reader.warnings()


def test_a_clip_cut_in_the_middle_is_reported(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4", frames=40, options={"movflags": "faststart"})
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with VideoReader(tmp_path / "cut.mp4") as reader:
        read = len(list(reader))
    assert reader.cut
    assert 0 < read < 40
    assert "cut short" in reader.warnings()[0]


def test_a_matroska_file_cut_in_the_middle_is_reported(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mkv", frames=100)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with VideoReader(tmp_path / "cut.mkv") as reader:
        assert len(list(reader)) < 100
    assert reader.cut


def test_a_whole_clip_is_not_called_cut(clip: Path) -> None:
    with VideoReader(clip) as reader:
        assert len(list(reader)) == 12
    assert (reader.cut, reader.corrupt_packets, reader.warnings()) == (False, 0, [])


def test_broken_packets_are_skipped_counted_and_bounded(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "broken.mp4", frames=60, sound=None)
    data = bytearray(source.read_bytes())
    start = len(data) // 3
    data[start : start + 1500] = np.random.default_rng(1).integers(0, 256, 1500, np.uint8).tobytes()
    source.write_bytes(data)
    with VideoReader(source) as reader:
        read = len(list(reader))
    assert 30 < read < 60
    assert reader.corrupt_packets > 0
    assert f"{60 - read} of 60 frames are lost" in reader.warnings()[0]
    with VideoReader(source, max_corrupt_packets=0) as strict, pytest.raises(InputError, match="broken packets"):
        list(strict)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", Reason.EMPTY_FILE),
        ("letter.mp4", b"Dear Sir or Madam,\n" * 200, Reason.NOT_A_VIDEO),
        ("noise.mp4", bytes(range(256)) * 64, Reason.NOT_A_VIDEO),
        ("letter.txt", b"Dear Sir or Madam,\n" * 200, Reason.NOT_A_VIDEO),
    ],
)
def test_what_is_no_video_has_a_reason(tmp_path: Path, name: str, content: bytes, reason: Reason) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        probe(tmp_path / name)
    assert caught.value.reason == reason


def test_a_picture_is_no_video(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), picture(0, 96, 64))
    with pytest.raises(InputError) as caught:
        probe((tmp_path / "a.png").rename(tmp_path / "a.mp4"))
    assert caught.value.reason == Reason.NOT_A_VIDEO


def test_a_missing_file_and_a_folder_are_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(InputError) as caught:
            probe(path)
        assert caught.value.reason == Reason.UNREADABLE


def test_an_mp4_without_its_index_was_cut_off(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[:2000])
    with pytest.raises(InputError) as caught:
        probe(tmp_path / "half.mp4")
    assert caught.value.reason == Reason.VIDEO_TRUNCATED


def test_a_file_with_sound_only_is_no_video(tmp_path: Path) -> None:
    make_clip(tmp_path / "both.mp4")
    with av.open(str(tmp_path / "both.mp4")) as source, av.open(str(tmp_path / "sound.m4a"), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with pytest.raises(InputError, match="no video stream"):
        probe(tmp_path / "sound.m4a")


def test_names_with_spaces_and_any_letters_work(tmp_path: Path) -> None:
    name = "Юля & friends – 日本 100%.mp4"
    transcode(make_clip(tmp_path / name, frames=3), tmp_path / "out put" / name)
    assert len(times(tmp_path / "out put" / name)) == 3


def test_without_commit_nothing_appears(clip: Path, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", probe(clip)) as writer:
        writer.write(next(read_frames(clip)))
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", probe(clip)):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_an_old_output_survives_a_failed_new_one(clip: Path, tmp_path: Path) -> None:
    def stop_midway(writer: VideoWriter) -> None:
        writer.write(next(read_frames(clip)))
        raise RuntimeError("midway")

    (tmp_path / "out.mp4").write_bytes(b"old")
    with pytest.raises(RuntimeError, match="midway"), VideoWriter(tmp_path / "out.mp4", probe(clip)) as writer:
        stop_midway(writer)
    assert (tmp_path / "out.mp4").read_bytes() == b"old"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_the_same_frames_give_the_same_bytes(clip: Path, tmp_path: Path, suffix: str) -> None:
    """x264's macroblock tree broke this on small clips, about one time in three."""
    outputs = [tmp_path / f"{number}{suffix}" for number in range(5)]
    for output in outputs:
        transcode(clip, output)
    assert len({output.read_bytes() for output in outputs}) == 1


def test_verify_finds_a_missing_frame_a_moved_one_and_another_size(clip: Path) -> None:
    good = [index * 512 for index in range(12)]
    base = Fraction(1, 12_800)
    verify(clip, good, base, size=(96, 64))
    for pts, size in ((good[:-1], (96, 64)), ([*good[:-1], good[-1] + 1], (96, 64)), (good, (96, 62))):
        with pytest.raises(InputError) as caught:
            verify(clip, pts, base, size=size)
        assert caught.value.reason == Reason.CONVERSION_FAILED


def test_an_unknown_encoder_or_container_is_named(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="libx999"):
        VideoWriter(tmp_path / "out.mp4", probe(clip), EncoderSettings(name="libx999"))
    with pytest.raises(FacemillError, match=r"out\.avi"):
        VideoWriter(tmp_path / "out.avi", probe(clip))


WRITES_FOR_EVER = """
import sys, itertools
from facemill.video import VideoReader, VideoWriter, probe, read_frames
source, target = sys.argv[1:]
frame = next(read_frames(source))
with VideoWriter(target, probe(source), sound_from=source) as writer:
    for index in itertools.count():
        frame.pts = index * 512
        writer.write(frame)
        if index == 20:
            print("going", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_writer_leaves_no_output(clip: Path, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", WRITES_FOR_EVER, str(clip), str(tmp_path / "out.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        process.send_signal(number)
        process.wait(timeout=60)
    left = [path.name for path in tmp_path.iterdir()]
    assert left == [] if number == signal.SIGINT else all(name.startswith(".facemill-new-") for name in left)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 128, 128, 3), np.uint8)
    source = make_clip(tmp_path / "noise.mkv", frames=list(noise), sound=None)
    (tmp_path / "out").mkdir()
    pid = os.fork()
    if pid == 0:  # the limit stands in for the disk: the same failing write, for this process alone
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            transcode(source, tmp_path / "out" / "full.mp4")
        except FacemillError as error:
            os._exit(7 if "no space left" in str(error) else 8)
        except BaseException:
            os._exit(9)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert list((tmp_path / "out").iterdir()) == []
