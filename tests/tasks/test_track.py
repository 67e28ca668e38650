"""The stage `track` on a small archive: two people who talk, nobody, the same file twice, one that is no video."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_clip

from facemill import tables
from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256
from facemill.reasons import Reason
from facemill.schema import SEGMENTS, TRACK_POINTS, TRACKS, VIDEOS, VideoRow
from facemill.sources.sample.videos import Scene, write_sample_video
from facemill.track.pieces import read_piece
from facemill.track.table import read_looks, read_points, read_segments
from facemill.video import plan_segments
from tasks import track
from tasks.catalogue import Data
from tasks.params import Params, parse_params

IDENTITY = {
    "rights": {"basis": "own", "evidence": "a test's own"},
    "references": ["r"],
    "sources": [{"kind": "folder", "path": "p"}],
}
TALK, COPY, NOBODY, BROKEN = "talk.mp4", "b/talk again.mp4", "nobody.mp4", "broken.mp4"


def params(root: Path, cluster: str = "inline", **group: Any) -> Params:
    return parse_params(
        {
            "identities": {"anna": IDENTITY, "bert": IDENTITY},
            "archive": {"kind": "folder", "path": str(root / "footage")},
            "convert": {"becomes": {"anna": "bert"}},
            "cluster": {"kind": cluster, "workers": 2},
            "track": {"min_face_px": 80, **group},
        }
    )


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    write_sample_video(folder / TALK, Scene(people=("collins",), sound=False), 1.6, seed=2)
    (folder / "b").mkdir()
    shutil.copy(folder / TALK, folder / COPY)
    make_clip(folder / NOBODY, frames=30)
    return folder


@pytest.fixture
def project(footage: Path, tmp_path: Path) -> Path:
    shutil.copytree(footage, tmp_path / "footage")
    rows: list[VideoRow] = [
        {"video": name, "sha256": file_sha256(tmp_path / "footage" / name), "frames": frames, "status": "ok"}
        for name, frames in ((COPY, 40), (NOBODY, 30), (TALK, 40))
    ]
    rows.append({"video": BROKEN, "sha256": "0" * 64, "status": "failed", "error": "not_a_video", "detail": ""})
    tables.write_table(tmp_path / Data.VIDEOS, [tables.from_rows(rows, VIDEOS)])
    return tmp_path


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second each, so that a short clip has several."""
    monkeypatch.setattr(track, "plan_segments", partial(plan_segments, least_s=0.4, most_s=0.6))


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for table in (Data.SEGMENTS, Data.TRACKS, Data.TRACK_POINTS)
        for path in sorted((root / table).glob("*.parquet"))
    }


def test_every_video_ends_in_one_state_and_each_content_is_one_part(project: Path) -> None:
    totals = track.run(params(project), project)
    assert totals.counts == {"ok": {"": 3}, "failed": {"not_a_video": 1}}
    assert totals.rows_in == totals.rows_out == 4
    assert totals.extra == {
        "segments": 2, "frames": 70, "frames_failed": 0, "tracks": 1, "faces": 40, "bridged": 0,
    }  # fmt: skip
    for table, schema in ((Data.SEGMENTS, SEGMENTS), (Data.TRACKS, TRACKS), (Data.TRACK_POINTS, TRACK_POINTS)):
        assert len(tables.checked_parts(project / table, schema)) == 2

    talk = track.tracked_files(project, file_sha256(project / "footage" / TALK))
    [segment] = read_segments(talk)
    assert segment.frames == 40
    assert {number: len(looks) >= 2 for number, looks in read_looks(talk).items()} == {0: True}
    points = read_points(talk, segment.segment, [0])
    assert len(points) == 40
    assert all(np.isfinite(own).all() for faces in points.values() for _, own, _ in faces)

    nobody = track.tracked_files(project, file_sha256(project / "footage" / NOBODY))
    assert read_looks(nobody) == {}
    assert read_segments(nobody)[0].frames == 30


def test_what_is_known_is_taken_and_smoothing_looks_at_no_frame_again(project: Path) -> None:
    assert track.run(params(project), project).worked == 2
    before = contents(project)
    assert track.run(params(project), project).worked == 0
    assert contents(project) == before
    assert track.run(params(project, smoothing=0.0), project).worked == 0
    changed = {name for name, data in contents(project).items() if data != before[name]}
    [points] = changed
    assert points.startswith("data/track_points/")
    assert track.run(params(project, min_face_px=100), project).worked == 2


def test_segments_give_the_same_bytes_each_time(project: Path, short_segments: None) -> None:
    track.run(params(project), project)
    alone = contents(project)
    shutil.rmtree(project / ".work")
    shutil.rmtree(project / Data.SEGMENTS)
    again = track.run(params(project), project)
    assert again.worked >= 4
    assert contents(project) == alone


def test_a_cluster_gives_the_bytes_of_this_process(project: Path) -> None:
    track.run(params(project), project)
    alone = contents(project)
    shutil.rmtree(project / ".work")
    assert track.run(params(project, cluster="local"), project).worked == 2
    assert contents(project) == alone


def test_an_interrupted_run_goes_on_with_the_segments_that_are_missing(project: Path, short_segments: None) -> None:
    whole = track.run(params(project), project)
    assert whole.worked >= 4
    before = contents(project)
    work = project / ".work" / "track"
    shutil.rmtree(work / "videos")
    next(iter(sorted((work / "pieces").iterdir()))).unlink()
    assert track.run(params(project), project).worked == 1
    assert contents(project) == before


def test_a_damaged_piece_is_made_again(project: Path, short_segments: None) -> None:
    track.run(params(project), project)
    before = contents(project)
    work = project / ".work" / "track"
    shutil.rmtree(work / "videos")
    largest = max((work / "pieces").iterdir(), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-2000])
    with pytest.raises(FacemillError, match="was damaged and is removed: run the same command again"):
        track.run(params(project), project)
    assert track.run(params(project), project).worked == 1
    assert contents(project) == before


def test_a_video_that_changed_is_a_row_and_the_others_go_on(project: Path) -> None:
    changed = project / "footage" / NOBODY
    before = changed.read_bytes()
    changed.write_bytes(before + b"0")
    totals = track.run(params(project), project)
    assert totals.counts == {"ok": {"": 2}, "failed": {"not_a_video": 1, "unreadable": 1}}
    [row] = [row for row in tables.iterate_rows(project / Data.SEGMENTS, SEGMENTS) if row["status"] == "failed"]
    assert row["detail"] == "the file has changed since it was collected: run collect again"
    with pytest.raises(InputError) as raised:
        read_segments(track.tracked_files(project, row["video_sha256"]))
    assert raised.value.reason == Reason.UNREADABLE

    changed.write_bytes(before)
    assert track.run(params(project), project).counts["failed"]["unreadable"] == 1  # taken up only when asked
    assert track.run(params(project), project, retry=True).counts == {"ok": {"": 3}, "failed": {"not_a_video": 1}}


def test_a_file_that_is_not_as_its_packets_said_is_tracked_whole(
    project: Path, short_segments: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = track.track_segment

    def refuses(path: Any, segment: Any, *others: Any, **more: Any) -> Any:
        if segment.index == 1:
            raise InputError(Reason.CONVERSION_FAILED, "segment 1 is not as it was planned: 3 frames")
        return seen(path, segment, *others, **more)

    monkeypatch.setattr(track, "track_segment", refuses)
    assert track.run(params(project), project).counts["ok"] == {"": 3}
    files = track.tracked_files(project, file_sha256(project / "footage" / TALK))
    [segment] = read_segments(files)
    assert segment.segment.whole
    assert segment.frames == 40


def test_too_many_failures_fail_the_stage_and_what_was_tracked_stays(project: Path) -> None:
    with pytest.raises(FacemillError, match=r"track: 1 of 4 rows failed .*limit 10%"):
        track.run(params(project, failure_limit=0.1), project)
    assert len(tables.parts(project / Data.TRACKS)) == 2


def test_results_of_other_settings_are_kept_for_one_run_more(project: Path) -> None:
    work = project / ".work" / "track" / "pieces"
    for size in (80, 90, 100):
        track.run(params(project, min_face_px=size), project)
    assert len(list(work.iterdir())) == 4  # two videos, the last two settings
    assert all(len(read_piece(path).pts) in (30, 40) for path in work.iterdir())
