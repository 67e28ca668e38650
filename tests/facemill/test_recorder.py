"""From files to records: pictures and clips of two portraits, and files that are broken in every way."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip

from facemill.detection_records import EndRecord, FileRecord, FrameRecord, Record, read_records, to_line
from facemill.errors import FacemillError
from facemill.pictures import decode, encode_jpeg, encode_png
from facemill.recorder import Recorder, RecordSettings, is_picture


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """HOG, with close-ups in a folder of its own."""
    crops = tmp_path_factory.mktemp("crops")
    return Recorder(RecordSettings(detector="hog", min_face_px=80, crops=str(crops), crop_px=128))


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory, hopper: np.ndarray) -> Path:
    """Hopper drifts right through 25 frames of 321×239 whose times are uneven; from frame 20 on nobody is there."""
    face = cv2.resize(hopper[20:420, 60:460], (200, 200), interpolation=cv2.INTER_AREA)
    frames = []
    for index in range(25):
        frame = np.full((239, 321, 3), (70, 90, 110), np.uint8)
        if index < 20:
            frame[20:220, 20 + 2 * index : 220 + 2 * index] = face
        frames.append(frame)
    pts = [index * 512 + (200 if index % 3 else 0) for index in range(25)]
    path = tmp_path_factory.mktemp("talk") / "talk.mkv"
    return make_clip(path, frames=frames, pts=pts, pix_fmt="yuv444p", sound=None)


def record(recorder: Recorder, *paths: Path) -> list[Record]:
    """The records, written and read again."""
    return list(read_records(to_line(one) for one in recorder.record((path, path.name) for path in paths)))


def test_a_clip_has_a_record_for_each_frame_with_one_track(recorder: Recorder, talk: Path) -> None:
    head, *frames, end = record(recorder, talk)
    assert isinstance(head, FileRecord)
    assert (head.media, head.width, head.height) == ("video", 321, 239)
    assert isinstance(end, EndRecord)
    assert (end.status, end.frames, end.tracks) == ("ok", 25, 1)
    seen = [bool(frame.faces) for frame in frames if isinstance(frame, FrameRecord)]
    assert all(seen[:18])
    assert not any(seen[22:])


def test_times_are_those_of_the_file(recorder: Recorder, talk: Path) -> None:
    head, *frames, _ = record(recorder, talk)
    assert isinstance(head, FileRecord)
    for frame in frames:
        assert isinstance(frame, FrameRecord)
        assert frame.pts is not None
        assert head.time_base is not None
        assert frame.time_s == pytest.approx(float(frame.pts * Fraction(head.time_base)), abs=1e-6)
    gaps = np.diff([frame.time_s for frame in frames if isinstance(frame, FrameRecord) and frame.time_s is not None])
    assert gaps.max() > 1.3 * gaps.min()


def test_landmarks_move_with_the_face(recorder: Recorder, talk: Path) -> None:
    frames = [one for one in record(recorder, talk) if isinstance(one, FrameRecord)]
    points = [np.array(frame.faces[0].landmarks) for frame in frames[:16]]
    drift = [float((after - points[0]).mean(axis=0)[0]) for after in points]
    assert drift == pytest.approx([2 * index for index in range(16)], abs=2.5)
    assert abs(frames[0].faces[0].pose["yaw"]) < 30


def test_a_close_up_of_each_face_is_written(recorder: Recorder, talk: Path) -> None:
    faces = [face for one in record(recorder, talk) if isinstance(one, FrameRecord) for face in one.faces]
    folder = Path(str(recorder.settings.crops))
    for face in faces:
        assert face.crop is not None
        assert decode((folder / face.crop).read_bytes()).shape == (128, 128, 3)
    assert faces[0].crop == "talk.mkv/000000-0.jpg"
    assert not list(folder.rglob(".facemill-*"))


def test_pictures_are_one_frame_without_times(recorder: Recorder, tmp_path: Path, hopper: np.ndarray) -> None:
    path = tmp_path / "hopper.png"
    path.write_bytes(encode_png(hopper))
    head, frame, end = record(recorder, path)
    assert isinstance(head, FileRecord)
    assert isinstance(frame, FrameRecord)
    assert (head.media, head.height, head.width) == ("picture", *hopper.shape[:2])
    assert (frame.pts, frame.time_s, len(frame.faces), frame.faces[0].track) == (None, None, 1, None)
    assert isinstance(end, EndRecord)
    assert (end.status, end.tracks) == ("ok", 0)


def test_files_that_cannot_be_used_become_records_and_the_rest_goes_on(
    recorder: Recorder, tmp_path: Path, talk: Path, hopper: np.ndarray
) -> None:
    jpeg = encode_jpeg(hopper)
    contents = {
        "empty.jpg": b"",
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "text.png": b"no picture",
        "empty.mp4": b"",
        "text.mp4": b"no video" * 100,
        "picture.mp4": jpeg,
        "cut.mkv": talk.read_bytes()[: talk.stat().st_size * 2 // 3],
        "dot.png": encode_png(np.zeros((1, 1, 3), np.uint8)),
        "thin.png": encode_png(np.zeros((1, 5000, 3), np.uint8)),
        "whole.jpg": jpeg,
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in contents]
    records = record(recorder, *paths, tmp_path / "missing.mp4", tmp_path / "missing.jpg")
    names = [one.file for one in records if isinstance(one, FileRecord)]
    ends = dict(zip(names, (one for one in records if isinstance(one, EndRecord)), strict=True))
    reasons = {name: end.reason for name, end in ends.items()}
    assert reasons == {
        "empty.jpg": "empty_file",
        "cut.jpg": "truncated",
        "text.png": "not_a_picture",
        "empty.mp4": "empty_file",
        "text.mp4": "not_a_video",
        "picture.mp4": None,
        "cut.mkv": "video_truncated",
        "dot.png": None,
        "thin.png": None,
        "whole.jpg": None,
        "missing.mp4": "unreadable",
        "missing.jpg": "unreadable",
    }
    assert ends["cut.mkv"].frames > 5
    assert ends["picture.mp4"].faces == ends["whole.jpg"].faces == 1


def test_a_picture_is_told_by_its_bytes_where_its_name_does_not_say(tmp_path: Path, hopper: np.ndarray) -> None:
    (tmp_path / "photo").write_bytes(encode_jpeg(hopper))
    assert is_picture(tmp_path / "photo")
    assert is_picture(tmp_path / "gone.webp")
    assert not is_picture(tmp_path / "gone")


def test_close_ups_that_cannot_be_written_stop_the_work(tmp_path: Path, hopper: np.ndarray) -> None:
    (tmp_path / "crops").write_bytes(b"a file, not a folder")
    (tmp_path / "a.png").write_bytes(encode_png(hopper))
    recorder = Recorder(RecordSettings(detector="hog", min_face_px=80, crops=str(tmp_path / "crops")))
    with pytest.raises(FacemillError, match="close-ups cannot be written"):
        record(recorder, tmp_path / "a.png")


@pytest.mark.parametrize("wrong", [{"every": 0}, {"crop_format": "gif"}, {"crop_px": 4}, {"coverage": 9.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(FacemillError, match="got"):
        RecordSettings(**wrong)


def test_a_lying_face_is_found_in_a_picture_and_followed_in_a_clip(
    recorder: Recorder, tmp_path: Path, collins: np.ndarray
) -> None:
    lying = np.ascontiguousarray(np.rot90(cv2.resize(collins[0:300, 80:380], (240, 240))))
    (tmp_path / "lying.png").write_bytes(encode_png(lying))
    clip = make_clip(tmp_path / "lying.mkv", frames=[lying] * 12, pts=[at * 512 for at in range(12)], sound=None)
    found = [one for one in record(recorder, tmp_path / "lying.png", clip) if isinstance(one, FrameRecord)]
    assert len(found) == 13
    for one in found:
        [face] = one.faces
        assert face.pose is not None
        assert face.pose["roll"] == pytest.approx(-90 + 3, abs=8)  # 3: her own
    assert {face.track for one in found[1:] for face in one.faces} == {0}


def test_the_landmark_predictor_is_chosen_and_told(tmp_path: Path, mesh_weights: Path, collins: np.ndarray) -> None:
    (tmp_path / "collins.png").write_bytes(encode_png(collins))
    settings = RecordSettings(detector="hog", predictor="mesh", predictor_options={"weights": mesh_weights})
    head, frame, _ = record(Recorder(settings), tmp_path / "collins.png")
    assert isinstance(head, FileRecord)
    assert isinstance(frame, FrameRecord)
    assert str(head.options["landmarks"]).startswith("mesh ")
    assert frame.faces[0].landmarks is not None
    with pytest.raises(FacemillError, match="facemill weights mesh"):
        Recorder(RecordSettings(detector="hog", predictor="mesh"))
