"""Sample videos: streams, truth about each frame, and the same bytes again."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from facemill.errors import InputError
from facemill.reasons import Reason
from facemill.sources.sample.videos import Scene, frame_pose, sample_archive, write_sample_video
from facemill.video import probe, read_frames

SECONDS = 0.4


def test_a_scene_becomes_h264_and_aac_with_a_truth_for_each_frame(tmp_path: Path) -> None:
    truth = write_sample_video(tmp_path / "talk.mp4", Scene(people=("hopper",)), SECONDS, 1)
    info = probe(tmp_path / "talk.mp4")
    assert (info.codec, info.frames, info.fps, info.width, info.height) == ("h264", 10, 25, 480, 480)
    assert [sound.codec for sound in info.audio] == ["aac"]
    assert abs(info.duration_s - SECONDS) < 0.05
    assert truth.frames == 10
    assert all(points.shape == (68, 2) for points in truth.landmarks["hopper"])


def test_the_same_call_writes_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for file in files:
        write_sample_video(file, Scene(people=("collins",)), SECONDS, 1)
    assert files[0].read_bytes() == files[1].read_bytes()
    write_sample_video(files[1], Scene(people=("collins",)), SECONDS, 2)
    assert files[0].read_bytes() != files[1].read_bytes()


def test_who_leaves_is_away_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "away.mp4"
    truth = write_sample_video(path, Scene(people=("hopper",), leaves=True, sound=False), SECONDS, 1)
    away = [points is None for points in truth.landmarks["hopper"]]
    assert away == [False] * 3 + [True] * 3 + [False] * 4
    frames = [frame.rgb for frame in read_frames(path)]
    empty = np.abs(frames[3].astype(int) - frames[4]).mean()
    assert empty < 1 < np.abs(frames[2].astype(int) - frames[3]).mean()


def test_two_people_stand_side_by_side_where_the_truth_says(tmp_path: Path) -> None:
    from facemill.detect import build_detector

    path = tmp_path / "both.mp4"
    truth = write_sample_video(path, Scene(people=("hopper", "collins"), sound=False), 0.04, 1)
    [frame] = read_frames(path)
    boxes = build_detector("hog", min_face_px=80).detect([frame.rgb])[0].boxes_xyxy
    centres = sorted((boxes[:, 0] + boxes[:, 2]) / 2)
    expected = [truth.landmarks[person][0][:, 0].mean() for person in ("hopper", "collins")]
    assert probe(path).audio == ()
    assert np.allclose(centres, expected, atol=30)


def test_a_cut_off_file_cannot_be_opened(tmp_path: Path) -> None:
    write_sample_video(tmp_path / "cut.mp4", Scene(people=("hopper",), cut=True), SECONDS, 1)
    with pytest.raises(InputError) as found:
        probe(tmp_path / "cut.mp4")
    assert found.value.reason is Reason.VIDEO_TRUNCATED


def test_motion_is_smooth_and_the_mouth_talks() -> None:
    poses = [frame_pose("hopper", 3, index) for index in range(250)]
    assert max(abs(a.yaw_deg - b.yaw_deg) for a, b in itertools.pairwise(poses)) < 2
    assert max(pose.mouth_open for pose in poses) > 0.25
    assert min(pose.mouth_open for pose in poses) < 0.02
    assert any(pose.blink > 0.5 for pose in poses)


def test_the_archive_has_every_case_that_a_converter_meets() -> None:
    scenes = sample_archive().values()
    assert any(scene.leaves for scene in scenes)
    assert any(not scene.sound for scene in scenes)
    assert any(len(scene.people) == 2 for scene in scenes)
    assert any(scene.cut for scene in scenes)
    assert any(not name.isascii() and " " in name for name in sample_archive())
