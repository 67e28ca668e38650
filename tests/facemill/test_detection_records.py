"""Detection records: what is written is read again, what is broken is refused with its line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.detection_records import EndRecord, FaceRecord, FileRecord, FrameRecord, Record, read_records, to_line
from facemill.errors import FacemillError

POINTS = tuple((float(i), i / 2) for i in range(68))
FACE = FaceRecord(
    box=(1.0, 2.0, 30.0, 40.5),
    score=0.9876,
    track=3,
    landmarks=POINTS,
    points5=POINTS[:5],
    pose={"yaw": -3.1, "pitch": 4.0, "roll": 0.2},
    crop="a.mp4/000000-3.jpg",
)
HEAD = FileRecord(
    file="clips/a.mp4", detector="mtcnn", options={"min_face_px": 40}, sha256="0" * 64, media="video",
    width=480, height=360, fps="30000/1001", time_base="1/30000", frames=2,
)  # fmt: skip
WHOLE: list[Record] = [
    HEAD,
    FrameRecord(index=0, pts=-512, time_s=-0.017067, scene=0, faces=(FACE,)),
    FrameRecord(index=1, pts=489, time_s=0.0163, scene=0, faces=()),
    EndRecord(status="ok", frames=2, faces=1, tracks=1, warnings=("10 bits a channel became 8",)),
]


def lines(records: list[Record] = WHOLE) -> list[str]:
    return [to_line(record) for record in records]


def changed(line: int, **values: Any) -> list[str]:
    """The lines of WHOLE with other values in one of them; for a frame, keys of its face are put there."""
    written = [json.loads(text) for text in lines()]
    own = {key: value for key, value in values.items() if key in written[line]}
    written[line].update(own)
    if line == 1:
        written[1]["faces"][0].update({key: value for key, value in values.items() if key not in own})
    return [json.dumps(one) for one in written]


def test_what_is_written_is_read_again() -> None:
    assert list(read_records(lines())) == WHOLE
    assert list(read_records([line.encode() for line in lines()])) == WHOLE


def test_a_record_is_one_line_of_ascii_whatever_the_file_is_called() -> None:
    line = to_line(FileRecord(file="Ünïcode\n\\xff☺.mp4", detector="hog", options={}))
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line)["file"] == "Ünïcode\n\\xff☺.mp4"


def test_the_layout_is_frozen() -> None:
    """Whoever changes a key changes VERSION too."""
    head, frame, _, end = (json.loads(line) for line in lines())
    assert (head["schema"], head["version"]) == ("facemill.detections", 1)
    assert set(head) == {
        "kind", "schema", "version", "file", "sha256", "media", "width", "height", "fps", "time_base", "frames",
        "detector", "options",
    }  # fmt: skip
    assert set(frame) == {"kind", "index", "pts", "time_s", "scene", "error", "faces"}
    assert set(frame["faces"][0]) == {
        "track", "box", "score", "detected", "landmarks", "points5", "pose", "crop",
    }  # fmt: skip
    assert set(end) == {"kind", "status", "reason", "detail", "frames", "faces", "tracks", "warnings"}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (changed(0, version=2), "line 1: .*expected version 1, got 2"),
        (changed(0, schema="coco"), "line 1: .*expected schema"),
        (changed(0, time_base="1e999999999"), "line 1: .*positive fractions"),
        (changed(0, width=0), "line 1: .*must be positive"),
        (changed(0, sha256="abc"), "line 1: .*64 hex digits"),
        (changed(1, box=[1, 2, 1, 4]), "line 2: .*right > left"),
        (changed(1, box=[1, 2, float("inf"), 4]), "line 2: .*box: 4 numbers"),
        (changed(1, landmarks=[[0, 0]] * 67), "line 2: .*68 points"),
        (changed(1, points5=[[0, "0"]] * 5), "line 2: .*points5 must hold numbers"),
        (changed(1, pose={"yaw": 1}), "line 2: .*yaw, pitch and roll"),
        (changed(1, track=-1), "line 2: .*track must be 0 or more"),
        (changed(1, hair="grey"), "line 2: .*hair"),
        (changed(2, index=5), "line 3: .*expected index 1, got 5"),
        (changed(2, pts=-512), "line 3: .*pts does not rise"),
        (changed(3, faces=7), r"line 4: .*\(2, 7, 1\), but \(2, 1, 1\) came before"),
        (changed(3, status="failed"), "line 4: .*a reason belongs to status failed"),
        (changed(3, status="failed", reason="bored"), "line 4: .*no such reason"),
        ([*lines()[:2], '{"kind": "frame", "ind'], "line 3: not a detection record"),
        (["[" * 100_000], "line 1: not a detection record"),
        (["[]"], "line 1: .*not an object"),
        (['{"kind": "face"}'], "line 1: .*kind must be file, frame or end"),
        (['{"kind": "frame", "index": 0}'], "line 1: .*faces"),
        (lines()[1:], "line 1: .*belongs to no file"),
        (lines()[:3] + lines(), "line 4: .*clips/a.mp4 has no end"),
        (lines()[:3], "after line 3: .*the writing was interrupted"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_record_is_refused_by_its_line(broken: list[str], said: str) -> None:
    with pytest.raises(FacemillError, match=said):
        list(read_records(broken))


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    with pytest.raises(FacemillError, match="line 1"):
        list(read_records([text]))


def test_numbers_that_json_does_not_have_are_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_line(FrameRecord(index=0, faces=(FaceRecord(box=(0, 0, 1, 1), score=float("nan")),)))
