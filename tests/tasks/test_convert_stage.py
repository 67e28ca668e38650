"""The stage that converts a project's archive: its rows reconcile, and what is done is not done again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import parameters, rows_of, stamps
from clips import make_clip
from known_nets import model_folder

from facemill import schema, tables
from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256
from facemill.reasons import State
from facemill.track.models import FaceModels
from facemill.video import probe
from tasks import convert, track
from tasks.converting import plan as convert_plan
from tasks.converting.state import VideoStage, read_status


def project(root: Path, archive: Path, model: Path) -> Path:
    """A project after collect, track and train."""
    data = root / "data"
    shutil.copytree(archive, data / "archive")
    shutil.copytree(model, data / "model")
    rows = []
    for path in sorted(archive.rglob("*.*")):
        if path.suffix in (".mp4", ".avi", ".mkv", ".mov"):
            row: dict[str, Any] = {"video": path.relative_to(archive).as_posix(), "sha256": file_sha256(path)}
            try:
                row |= {"codec": probe(path).codec, "status": State.OK}
            except InputError as error:
                row |= {"status": error.reason.state, "error": error.reason, "detail": error.detail}
            rows.append(row)
    tables.write_part(data / "videos" / "00000.parquet", tables.from_rows(rows, schema.VIDEOS))
    track.run(parameters(), root)
    return root


def test_the_stage_reconciles_and_its_tables_do_not_depend_on_the_run(
    archive: Path, model: Path, tmp_path: Path
) -> None:
    root = project(tmp_path / "project", archive, model)
    totals = convert.run(parameters(), root)
    assert totals.counts == {"ok": {"": 5}, "failed": {"not_a_video": 1, "empty_file": 1, "video_truncated": 1}}
    assert json.loads((root / "data" / "metrics" / "convert.json").read_text())["frames_swapped"] == 12
    stages = read_status(convert_plan.state_folder(root)).count()
    assert (stages.total(), stages[VideoStage.FAILED]) == (8, 3), "of all videos, also of those that cannot be opened"
    rows, odd = rows_of(root / "data" / "conversions"), probe(root / "data" / "converted" / "odd.mp4")
    assert (rows["cut.mkv"]["error"], rows["cut.mkv"]["output"]) == ("video_truncated", None)
    assert not (root / "data" / "converted" / "cut.mkv").exists()
    assert (odd.width, odd.height) == (255, 257)
    table, videos = root / "data" / "conversions" / "00000.parquet", root / "data" / "converted"
    before = table.read_bytes(), {name: file_sha256(videos / name) for name in stamps(videos)}
    shutil.rmtree(root / ".work")
    convert.run(parameters(), root)
    assert (table.read_bytes(), {name: file_sha256(videos / name) for name in stamps(videos)}) == before


def test_several_pairs_are_converted_at_once_and_counted_apart(
    archive: Path, hopper: np.ndarray, collins: np.ndarray, tmp_path: Path
) -> None:
    """Collins is in one of the videos; in which order the pairs are written does not matter."""
    make_clip(archive / "collins.mp4", frames=[collins[:256, 96:352]] * 3)
    tools = FaceModels("hog")
    known = {
        name: tools.embed(one, tools.landmarks(one, tools.search(one, 80)[:1]))
        for name, one in (("hopper", hopper), ("collins", collins))
    }
    model_folder(tmp_path / "model", known)
    pairs = [{"hopper": "collins", "collins": "hopper"}, {"collins": "hopper", "hopper": "collins"}]
    out = tmp_path / "out"
    convert.convert_folder(parameters(becomes=pairs[0]), archive, out, tmp_path / "model")
    rows = rows_of(out / ".facemill" / "conversions")
    who = [{"replaced": "collins", "new": "hopper"}, {"replaced": "hopper", "new": "collins"}]
    assert rows["talk.mp4"]["becomes"] == [who[0] | {"frames": 0}, who[1] | {"frames": 4}]
    assert rows["collins.mp4"]["becomes"] == [who[0] | {"frames": 3}, who[1] | {"frames": 0}]
    assert rows["letter.mp4"]["becomes"] == [one | {"frames": None} for one in who]
    assert rows["talk.mp4"]["warnings"] == ["collins was not seen"]
    everybody = "collins and hopper were not seen: the file is the source's, byte for byte"
    assert rows["nobody.mp4"]["warnings"] == [everybody]
    again, retried = (
        convert_plan.plan_folder(parameters(becomes=pairs[1]), archive, out, tmp_path / "model", retry=retry)
        for retry in (False, True)
    )
    assert not again.todo  # in which order the pairs are written does not matter
    assert {job.video for job in retried.todo} == {"cut.mkv", "letter.mp4", "empty.mov"}


def test_the_stage_takes_finished_videos_from_scratch_when_its_outputs_are_gone(
    archive: Path, model: Path, tmp_path: Path
) -> None:
    root = project(tmp_path / "project", archive, model)
    convert.run(parameters(), root)
    before = stamps(root / "data" / "converted")
    for name in ("converted", "conversions"):  # as DVC does before it runs a stage
        shutil.rmtree(root / "data" / name)
    assert convert_plan.plan_archive(parameters(), root).todo == ()
    convert.run(parameters(), root)
    assert stamps(root / "data" / "converted") == before


def test_a_video_that_changed_after_collect_is_a_row_with_a_reason(archive: Path, model: Path, tmp_path: Path) -> None:
    root = project(tmp_path / "project", archive, model)
    make_clip(root / "data" / "archive" / "talk.mp4", frames=2)
    convert.run(parameters(), root)
    row = rows_of(root / "data" / "conversions")["talk.mp4"]
    assert (row["status"], row["error"]) == ("failed", "unreadable")
    assert "has changed since it was tracked" in row["detail"]


def test_a_failure_that_lies_in_the_file_is_taken_up_again_only_with_retry(
    archive: Path, model: Path, tmp_path: Path
) -> None:
    root = project(tmp_path / "project", archive, model)
    good = (root / "data" / "archive" / "talk.mp4").read_bytes()
    (root / "data" / "archive" / "talk.mp4").unlink()
    assert convert.run(parameters(), root).counts["failed"]["unreadable"] == 1
    (root / "data" / "archive" / "talk.mp4").write_bytes(good)
    assert "unreadable" not in convert.run(parameters(), root).counts["failed"]
    todo = {
        retry: {job.video for job in convert_plan.plan_archive(parameters(), root, retry=retry).todo}
        for retry in (False, True)
    }
    assert todo == {False: set(), True: {"cut.mkv"}}


def test_too_many_failures_fail_the_stage_and_keep_the_rest(archive: Path, model: Path, tmp_path: Path) -> None:
    root = project(tmp_path / "project", archive, model)
    with pytest.raises(FacemillError, match=r"3 of 8 rows failed \(1 empty_file, 1 not_a_video, 1 video_trunc"):
        convert.run(parameters(failure_limit=0.1), root)
    assert len(stamps(root / "data" / "converted")) == 5


def test_a_persons_word_stands_above_the_looks(archive: Path, model: Path, tmp_path: Path) -> None:
    root = project(tmp_path / "project", archive, model)
    (root / "tracks.yaml").write_text("talk.mp4:\n  - {track: 0, is: nobody}\nodd.mp4:\n  - {track: 7, is: hopper}\n")
    convert.run(parameters(), root)
    rows = rows_of(root / "data" / "conversions")
    assert (rows["talk.mp4"]["passed_on"], rows["talk.avi"]["passed_on"]) == (True, False)
    assert "tracks.yaml names track 7" in rows["odd.mp4"]["detail"]
    (root / "tracks.yaml").write_text("talk.mp4:\n  - {track: 0, is: bert}\n")
    with pytest.raises(FacemillError, match=r"talk.mp4: track 0 is 'bert', whom params.yaml does not know"):
        convert.run(parameters(), root)
