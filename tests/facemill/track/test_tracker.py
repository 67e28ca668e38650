"""All faces of a video: the same as in frame-by-frame detection, under the same id, and seldom detected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from patches import BLUE, GREEN, RED, HueDetector, Place, frames, picture

from facemill.boxes import iou
from facemill.detect import Detector, build_detector
from facemill.track.tracker import FaceTracker, TrackedFrame, TrackSettings, whole_frames
from facemill.video import Frame, read_frames


def track(given: list[Frame], detector: Detector | None = None, **settings: float) -> list[TrackedFrame]:
    options = {"every": 8, "every_s": 10.0} | settings
    return list(FaceTracker(whole_frames(detector or HueDetector()), TrackSettings(**options)).follow(given))


def ids(followed: list[TrackedFrame]) -> list[set[int]]:
    return [{face.track for face in frame.faces} for frame in followed]


def test_two_faces_that_move_apart_keep_their_boxes_and_ids() -> None:
    truth: list[dict[int, Place]] = [
        {RED: (60 + 3 * i, 40 + i, 60), BLUE: (200 - 2 * i, 150, 50 + i / 2)} for i in range(33)
    ]
    detector = HueDetector()
    followed = track(frames(truth), detector)
    assert ids(followed) == [{0, 1}] * 33
    assert sum(detector.calls) == 5  # 0, 8, 16, 24, 32
    exact = [detector.detect([picture(faces)])[0].boxes_xyxy for faces in truth]
    for frame, boxes in zip(followed, exact, strict=True):
        assert iou(np.stack([face.box_xyxy for face in frame.faces]), boxes).diagonal().min() > 0.9


def test_every_frame_comes_back_once_in_order_and_few_are_held() -> None:
    asked = [0]

    def source() -> Iterator[Frame]:
        for frame in frames([{RED: (60, 40, 60)}] * 70):
            asked[0] += 1
            yield frame

    ahead = []
    settings = TrackSettings(every=5, every_s=10, key_batch=3)
    for index, one in enumerate(FaceTracker(whole_frames(HueDetector()), settings).follow(source())):
        assert one.frame.pts == index
        ahead.append(asked[0] - index)
    assert len(ahead) == 70
    assert max(ahead) <= 5 * 3 + 1


def test_key_frames_reach_the_detector_in_batches() -> None:
    detector = HueDetector()
    track(frames([{RED: (60, 40, 60)}] * 41), detector, every=5, key_batch=3)
    assert detector.calls == [3, 3, 3]


@pytest.mark.parametrize("start", range(9))
def test_a_face_that_appears_or_leaves_is_right_to_half_a_key_interval(start: int) -> None:
    there = range(start, start + 20)
    followed = track(frames([{RED: (60, 40, 60)} if i in there else {} for i in range(40)]))
    wrong = [i for i, frame in enumerate(followed) if bool(frame.faces) != (i in there)]
    assert len(wrong) <= 2 * 4
    assert len(set.union(*ids(followed))) == 1


def test_a_cut_ends_all_tracks_even_at_the_same_place() -> None:
    before, after = picture({RED: (60, 40, 60)}), picture({RED: (60, 40, 60)}, ground=20)
    clip = [Frame.from_rgb(before if i < 11 else after, i, frames([{}])[0].time_base) for i in range(20)]
    followed = track(clip)
    assert ids(followed) == [{0}] * 11 + [{1}] * 9
    assert [frame.scene for frame in followed] == [0] * 11 + [1] * 9
    assert followed[10].key
    assert followed[11].key


def test_a_face_that_the_detector_overlooks_for_a_while_keeps_its_id() -> None:
    detector = HueDetector()
    detector.blind = {2}
    followed = track(frames([{RED: (60 + i, 40, 60)} for i in range(41)]), detector)
    assert set.union(*ids(followed)) == {0}
    assert [bool(frame.faces) for frame in followed].count(False) <= 8


def test_a_face_unseen_for_longer_than_it_is_remembered_is_another() -> None:
    there = [i < 9 or i > 60 for i in range(80)]
    followed = track(frames([{RED: (60, 40, 60)} if face else {} for face in there]), remember_s=1.0)
    assert ids(followed)[0] == {0}
    assert ids(followed)[-1] == {1}


def test_at_a_low_rate_key_frames_go_by_the_clock() -> None:
    detector = HueDetector()
    track(frames([{RED: (60, 40, 60)}] * 21, rate=5), detector, every=10, every_s=0.4)
    assert sum(detector.calls) == 11


def test_uneven_times_are_kept_in_mind_between_key_frames() -> None:
    """The face moves 4 px a tick, frames come at ticks 0 1 2 3 10: drift is spread by time, not by number."""
    pts = [0, 1, 2, 3, 10]
    truth: list[dict[int, Place]] = [{RED: (60 + 4.0 * at, 40, 60)} for at in pts]
    followed = track(frames(truth, pts=pts), every=4, every_s=100)
    assert [frame.faces[0].box_xyxy[0] for frame in followed] == pytest.approx([60 + 4 * at for at in pts], abs=2)


def test_a_frame_that_the_detector_cannot_bear_costs_that_frame_alone() -> None:
    detector = HueDetector()
    detector.broken = {1}
    followed = track(frames([{RED: (60, 40, 60)}] * 33), detector)
    assert [frame.error for frame in followed if frame.error] == ["RuntimeError"]
    assert set.union(*ids(followed)) == {0}
    assert all(followed[i].faces for i in (0, 16, 24, 32))


def test_detecting_in_every_frame_gives_the_detectors_own_boxes() -> None:
    truth: list[dict[int, Place]] = [{GREEN: (60 + 5 * i, 40, 60)} for i in range(12)]
    followed = track(frames(truth), every=1)
    for frame, faces in zip(followed, truth, strict=True):
        assert frame.faces[0].detected
        assert frame.faces[0].box_xyxy.tolist() == HueDetector().detect([picture(faces)])[0].boxes_xyxy[0].tolist()


def test_no_frame_and_one_frame_are_videos_too() -> None:
    assert track([]) == []
    [alone] = track(frames([{RED: (60, 40, 60)}]))
    assert len(alone.faces) == 1
    assert track(frames([{}] * 20))[-1].faces == ()


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        TrackSettings(every=0)


def test_a_real_face_is_followed_as_detection_would_find_it(shared: Path) -> None:
    clip = [frame for frame, _ in zip(read_frames(shared / "data/videos/vasa3.mp4"), range(31), strict=False)]
    detector = build_detector("mtcnn", min_face_px=80)
    followed = track(clip, detector, every=10)
    exact = detector.detect([frame.rgb for frame in clip[5:30:5]])
    boxes = np.stack([followed[5 + 5 * at].faces[0].box_xyxy for at in range(len(exact))])
    overlaps = iou(boxes, np.stack([faces.boxes_xyxy[0] for faces in exact])).diagonal()
    assert min(overlaps) > 0.85
    assert np.median(overlaps) > 0.9
    assert all(face.points5 is not None for frame in followed for face in frame.faces)


def test_a_clip_that_turns_faceless_has_faces_only_before(shared: Path) -> None:
    clip = [frame for frame, _ in zip(read_frames(shared / "data/videos/face_noface.mov"), range(100), strict=False)]
    followed = track(clip, build_detector("hog", min_face_px=80), every=12)
    assert all(frame.faces for frame in followed[:72])
    assert not any(frame.faces for frame in followed[73:])
