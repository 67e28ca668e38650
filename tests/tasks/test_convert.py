"""An archive in, an archive out: every video one row, nothing converted twice, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from clips import make_clip, times
from known_nets import model_folder
from odd_files import ALIKE, make_broken_links, make_no_files, make_odd_files, odd_names

from facemill import schema, tables
from facemill.errors import FacemillError, InputError
from facemill.files import file_sha256, read_json, write_json
from facemill.landmarks import signature
from facemill.reasons import Reason, State
from facemill.swap import job as swap_job
from facemill.track.models import FaceModels
from facemill.video import probe
from tasks import convert, track
from tasks.converting import plan as convert_plan
from tasks.converting.state import read_status
from tasks.converting.videos import FrameCount, convert_video
from tasks.params import ClusterParams, Params, parse_params
from tasks.work.cluster import InlinePool, Pool

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def face(hopper: np.ndarray) -> list[np.ndarray]:
    """Four frames of 256×256 with Hopper in them."""
    small = cv2.resize(hopper[20:420, 60:460], (256, 256), interpolation=cv2.INTER_AREA)
    return [np.roll(small, index, axis=1) for index in range(4)]


@pytest.fixture(scope="module")
def originals(face: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of one stem, one in a folder with a name of its own kind, one without a face, one of an odd size, one
    cut off in the middle, two that are none."""
    folder = tmp_path_factory.mktemp("originals")
    (folder / "день 1 & 2").mkdir()
    make_clip(folder / "talk.mp4", frames=face)
    make_clip(folder / "talk.avi", frames=face, codec="mpeg4", sound=None)
    make_clip(folder / "день 1 & 2" / "日本 100%.mkv", frames=face, sound=None)
    make_clip(folder / "nobody.mp4", frames=3, size=(160, 128))
    make_clip(folder / "odd.mp4", frames=2, size=(255, 257), pix_fmt="yuv444p")
    whole = make_clip(folder / "cut.mkv", frames=40, sound=None).read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    (folder / "letter.mp4").write_text("Dear Sir or Madam,\n" * 50)
    (folder / "empty.mov").write_bytes(b"")
    (folder / "notes.txt").write_text("not for us")
    return folder


@pytest.fixture
def archive(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals, tmp_path / "in"))


def parameters(tracking: dict[str, Any] | None = None, **changes: Any) -> Params:
    person = {"rights": {"basis": "own", "evidence": "a test's own"}, "references": ["sample:hopper"]}
    person["sources"] = [{"kind": "sample", "person": "hopper"}]
    group: dict[str, Any] = {"becomes": {"hopper": "collins"}, "encoder": {"preset": "ultrafast"}}
    group |= {"detail": "match", "occlusion": "none"}
    values = {"identities": {"hopper": person, "collins": person}, "archive": {"kind": "sample"}}
    values |= {"convert": group | changes, "track": tracking or {}, "cluster": {"kind": "inline"}}
    return parse_params(values)


def rows_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["video"]: row for row in tables.iterate_rows(folder, schema.CONVERSIONS)}


def stamps(folder: Path) -> dict[str, int]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".mp4", ".mkv", ".mov", ".avi")]
    # which file it is, since a converted video has the date of its source
    return {str(path.relative_to(folder)): path.stat().st_ino for path in found}


def test_every_video_of_a_folder_becomes_one_row(archive: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    totals = convert.convert_folder(parameters(), archive, out, model)
    assert totals.counts == {"ok": {"": 5}, "failed": {"not_a_video": 1, "empty_file": 1, "video_truncated": 1}}
    rows = rows_of(out / ".facemill" / "conversions")
    assert rows["talk.avi"]["output"] == "talk.avi.mp4"
    assert rows["letter.mp4"]["output"] is None
    assert [rows[name]["frames_swapped"] for name in ("talk.mp4", "talk.avi", "день 1 & 2/日本 100%.mkv")] == [4, 4, 4]
    assert rows["nobody.mp4"]["warnings"] == ["hopper was not seen: the file is the source's, byte for byte"]
    assert (out / "nobody.mp4").read_bytes() == (archive / "nobody.mp4").read_bytes()
    assert [rows[name]["passed_on"] for name in ("talk.mp4", "nobody.mp4")] == [False, True]
    assert set(stamps(out)) == {"talk.mp4", "talk.avi.mp4", "день 1 & 2/日本 100%.mkv", "nobody.mp4", "odd.mp4"}
    assert (rows["cut.mkv"]["error"], rows["cut.mkv"]["output"]) == ("video_truncated", None)
    info = probe(out / "odd.mp4")
    assert (info.width, info.height) == (255, 257)
    for name in ("talk.mp4", "nobody.mp4"):
        assert times(out / name) == times(archive / name)
        assert file_sha256(out / name) == rows[name]["output_sha256"]


def test_a_name_that_is_no_valid_text_is_converted_all_the_same(archive: Path, model: Path, tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.mkdir()
    shutil.copy(archive / "talk.mp4", os.fsdecode(os.fsencode(names) + b"/caf\xe9.mp4"))
    out = tmp_path / "out"
    assert convert.convert_folder(parameters(), names, out, model).counts == {"ok": {"": 1}}
    assert os.listdir(os.fsencode(out)).count(b"caf\xe9.mp4") == 1
    [row] = rows_of(out / ".facemill" / "conversions").values()
    assert (row["video"], row["output"]) == ("caf\\xe9.mp4", "caf\\xe9.mp4")


def test_odd_names_are_converted_and_what_is_no_file_is_told(
    archive: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, out = tmp_path / "odd", tmp_path / "out"
    clips = [*odd_names(".mp4"), *odd_names(".avi")[-5:]]
    make_odd_files(odd, clips, (archive / "nobody.mp4").read_bytes())
    skipped, broken = make_no_files(odd, ".mp4"), make_broken_links(odd, ".mkv")
    totals = convert.convert_folder(parameters(), odd, out, model)
    assert totals.counts == {"ok": {"": len(clips)}, "failed": {"unreadable": len(broken)}}
    said = capsys.readouterr().out
    assert f"skipped {len(skipped)} that are no files" in said
    assert len(rows_of(out / ".facemill" / "conversions")) == len(clips) + len(broken)
    assert len(stamps(out)) == len(clips)
    assert [job.video for job in convert_plan.plan_folder(parameters(), odd, out, model).todo] == sorted(broken)


def test_the_command_fails_when_every_video_failed(model: Path, tmp_path: Path) -> None:
    letters = tmp_path / "letters"
    letters.mkdir()
    (letters / "letter.mp4").write_text("dear all " * 40)
    command = [
        sys.executable,
        "-m",
        "flows.command_line",
        "convert",
        str(letters),
        str(tmp_path / "out"),
        "--model",
        str(model),
    ]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    assert "1 of 1 videos failed, limit 0% (letter.mp4: " in result.stderr
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_run_again_converts_only_what_is_new_changed_or_damaged(archive: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert.convert_folder(parameters(), archive, out, model)
    first = stamps(out)
    convert.convert_folder(parameters(), archive, out, model)
    assert stamps(out) == first
    shutil.copy(archive / "talk.mp4", archive / "new.mp4")
    make_clip(archive / "nobody.mp4", frames=5)
    (out / "talk.avi.mp4").write_bytes(b"damaged")
    convert.convert_folder(parameters(), archive, out, model)
    second = stamps(out)
    assert {name for name in second if second[name] != first.get(name)} == {"new.mp4", "nobody.mp4", "talk.avi.mp4"}
    assert len(times(out / "nobody.mp4")) == 5
    assert len(times(out / "talk.avi.mp4")) == 4


def test_tracks_of_videos_that_are_gone_do_not_pile_up(archive: Path, model: Path, tmp_path: Path) -> None:
    """Those of the run before are kept, as those of the stage are: somebody may have looked elsewhere for a moment."""
    out = tmp_path / "out"
    kept = []
    for gone in ("talk.avi", "nobody.mp4", "odd.mp4"):
        convert.convert_folder(parameters(), archive, out, model)
        kept.append(len(list((out / ".facemill" / "tracks" / "videos").glob("*.json"))))
        (archive / gone).unlink()
    assert kept == [5, 5, 4]


def test_other_settings_convert_again_and_a_moved_archive_does_not(archive: Path, model: Path, tmp_path: Path) -> None:
    for name in ("talk.avi", "letter.mp4", "empty.mov", "nobody.mp4", "odd.mp4", "cut.mkv"):
        (archive / name).unlink()
    out = tmp_path / "out"
    convert.convert_folder(parameters(), archive, out, model)
    first = stamps(out)
    moved = Path(shutil.copytree(archive, tmp_path / "elsewhere"))
    convert.convert_folder(parameters(), moved, out, model)
    assert stamps(out) == first
    convert.convert_folder(parameters(encoder={"preset": "ultrafast", "crf": 30}), moved, out, model)
    assert all(stamps(out)[name] != first[name] for name in first)


def test_options_of_the_detector_decide_about_every_job(archive: Path, model: Path, tmp_path: Path) -> None:
    plain, finer = (
        convert_plan.plan_folder(parameters({"detector_options": options}), archive, tmp_path / "out", model)
        for options in ({}, {"upsample": 1})
    )
    assert {job.fingerprint for job in plain.jobs}.isdisjoint(job.fingerprint for job in finer.jobs)


def test_a_net_that_finds_what_is_in_front_decides_by_what_it_holds(archive: Path, model: Path, tmp_path: Path) -> None:
    fingerprints, net = [], tmp_path / "net.onnx"
    for text in ("one net", "another", "one net"):
        net.write_text(text)
        given = parameters(occlusion="segments", occlusion_options={"weights": "net.onnx"})
        plan = convert_plan.plan_folder(given, archive, tmp_path / "out", model, root=tmp_path)
        fingerprints.append(plan.jobs[0].fingerprint)
        assert plan.jobs[0].settings.occlusion_options == {"weights": str(net)}
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]
    net.unlink()
    with pytest.raises(FacemillError, match=r"there is no file or folder .*net\.onnx"):
        convert_plan.plan_folder(given, archive, tmp_path / "out", model, root=tmp_path)


def test_folders_that_overlap_are_refused(archive: Path, model: Path) -> None:
    for output in (archive, archive / "out", archive.parent):
        with pytest.raises(FacemillError, match="lie in each other"):
            convert.convert_folder(parameters(), archive, output, model)


def test_two_runs_into_one_folder_are_refused(archive: Path, model: Path, tmp_path: Path) -> None:
    with convert.alone_in(tmp_path / "out"), pytest.raises(FacemillError, match="another conversion"):
        convert.convert_folder(parameters(), archive, tmp_path / "out", model)


def test_a_missing_model_and_an_empty_archive_say_what_to_do(archive: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="run the stage train first"):
        convert.convert_folder(parameters(), archive, tmp_path / "out", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FacemillError, match="no video in"):
        convert.convert_folder(parameters(), tmp_path / "empty", tmp_path / "out", model)


def test_files_of_somebody_else_in_the_output_folder_stay(archive: Path, model: Path, tmp_path: Path) -> None:
    """One has the name under which a video would be passed on, one that of a video which cannot be converted."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("talk.avi", "letter.mp4"):
        (out / name).write_text("mine")
    convert.convert_folder(parameters(), archive, out, model)
    assert {name: (out / name).read_text() for name in ("talk.avi", "letter.mp4")} == {
        "talk.avi": "mine",
        "letter.mp4": "mine",
    }
    assert (out / "talk.avi.mp4").exists()


def test_output_names_never_meet() -> None:
    videos = ["a.mp4", "a.avi", "a.avi.mp4", "b/c.webm", "d.MOV"]
    names = convert_plan.output_names(videos)
    assert names == ["a.mp4", "a.avi.2.mp4", "a.avi.mp4", "b/c.webm.mp4", "d.MOV"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("alike", [ALIKE[:2], ALIKE[2:]])
@pytest.mark.parametrize("place", ["{}.mp4", "a/{}/b.mp4"])
def test_names_that_are_one_on_the_output_s_file_system_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike: tuple[str, str], place: str
) -> None:
    names = [place.format(stem) for stem in alike]
    convert_plan.check_alike(["other.mp4", *names, *names], tmp_path)  # this one tells them apart
    assert not list(tmp_path.iterdir())
    exists = Path.exists

    def by_spelling(path: Path) -> bool:
        """As on a disk that has letters without case, and accents in one form."""
        spelling = [unicodedata.normalize("NFC", each.name).casefold() for each in path.parent.iterdir()]
        return exists(path) or unicodedata.normalize("NFC", path.name).casefold() in spelling

    monkeypatch.setattr(Path, "exists", by_spelling)
    with pytest.raises(FacemillError, match=f"{names[0]} and {names[1]} are one name for the file system"):
        convert_plan.check_alike(["other.mp4", *names, *names], tmp_path)


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


def test_too_many_failures_fail_a_folder_too_and_name_its_videos(archive: Path, model: Path, tmp_path: Path) -> None:
    for path in (archive / "talk.avi", archive / "odd.mp4", archive / "nobody.mp4", archive / "cut.mkv"):
        path.unlink()
    for number in range(5):
        (archive / f"page {number}.mp4").write_text("not a video " * 40)
    out = tmp_path / "out"
    with pytest.raises(FacemillError, match="7 of 9 videos failed, limit 50%") as raised:
        convert.convert_folder(parameters(), archive, out, model)
    rows = rows_of(out / ".facemill" / "conversions")
    message = str(raised.value)
    assert f"letter.mp4: {rows['letter.mp4']['detail']}" in message
    assert [f"page {number}.mp4" in message for number in range(5)] == [True, True, True, False, False]
    assert "and 2 more" in message
    assert set(stamps(out)) == {"talk.mp4", "день 1 & 2/日本 100%.mkv"}
    assert len(rows) == 9


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond `size` bytes, as a full disk or quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_the_run_and_costs_nothing_that_was_finished(model: Path, tmp_path: Path) -> None:
    archive, out = tmp_path / "three", tmp_path / "out"
    archive.mkdir()
    noise = np.random.default_rng(7).integers(0, 256, (12, 128, 160, 3), np.uint8)
    make_clip(archive / "1.mp4", frames=3, sound=None)
    convert.convert_folder(parameters(), archive, out, model)
    make_clip(archive / "2.mp4", frames=list(noise), sound=None)
    make_clip(archive / "3.mp4", frames=3, sound=None)
    with largest_file(100_000), pytest.raises(FacemillError, match=r"no space left to write 2\.mp4"):
        convert.convert_folder(parameters(), archive, out, model)
    first = stamps(out)
    assert set(first) == {"1.mp4"}
    assert not list(out.rglob(".facemill-new-*"))
    assert convert.convert_folder(parameters(), archive, out, model).counts["ok"] == {"": 3}
    assert stamps(out)["1.mp4"] == first["1.mp4"]


@pytest.mark.parametrize("every_s", [0, 1e6])
def test_the_table_grows_with_each_video_and_an_interrupted_run_leaves_all_that_ended(
    archive: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: float
) -> None:
    out = tmp_path / "out"
    last = convert_plan.plan_folder(parameters(), archive, out, model).todo[-1].video

    def up_to_the_last(pool: Pool, job: swap_job.ConversionJob, *rest: Any) -> Any:
        if job.video == last:
            raise FacemillError("broken off")
        return convert_video(pool, job, *rest)

    monkeypatch.setattr("tasks.converting.rows._EVERY_S", every_s)
    monkeypatch.setattr("tasks.converting.rows._MOST_SHARE", 1e9)
    monkeypatch.setattr("tasks.converting.videos.convert_video", up_to_the_last)
    with pytest.raises(FacemillError, match="broken off"):
        convert.convert_folder(parameters(), archive, out, model)
    grown = rows_of(out / ".facemill" / "conversions")
    monkeypatch.undo()
    convert.convert_folder(parameters(), archive, out, model)
    whole = rows_of(out / ".facemill" / "conversions")
    assert len(whole) == 8
    assert grown == {video: row for video, row in whole.items() if video != last}


def test_a_job_is_plain_data_and_its_outcome_says_why(archive: Path, model: Path, tmp_path: Path) -> None:
    plan = convert_plan.plan_folder(parameters(), archive, tmp_path / "out", model)
    job = next(job for job in pickle.loads(pickle.dumps(plan.todo)) if job.video == "letter.mp4")
    outcome = convert_video(InlinePool(), job, plan.tracking, FrameCount([job]))
    assert (outcome["status"], outcome["error"]) == ("failed", Reason.NOT_A_VIDEO)
    assert json.loads(Path(job.outcome).read_text())["error"] == "not_a_video"


def test_a_job_that_kills_its_worker_costs_that_video_alone(
    archive: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for FFmpeg crashing on one file: a module that workers load and that ends the process there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "real = os.open\n"
        "def open(path, *args, **options):\n"
        "    if str(path).endswith('talk.avi'): os._exit(9)\n"
        "    return real(path, *args, **options)\n"
        "os.open = open\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    params = parameters().model_copy(update={"cluster": ClusterParams(kind="local", workers=2)})
    totals = convert.convert_folder(params, archive, tmp_path / "out", model)
    assert totals.counts["failed"]["worker_killed"] == 1
    assert totals.counts["ok"] == {"": 4}


INTERRUPTED = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts the tests in the background ignores it
sys.path.insert(0, sys.argv[4])
from test_convert import parameters
from tasks.convert import convert_folder
convert_folder(parameters(), *map(Path, sys.argv[1:4]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(
    archive: Path, model: Path, tmp_path: Path, face: list[np.ndarray], number: signal.Signals
) -> None:
    shutil.rmtree(archive / "день 1 & 2")
    for name in ("talk.avi", "nobody.mp4", "odd.mp4", "cut.mkv"):
        (archive / name).unlink()
    make_clip(archive / "zz long.mp4", frames=face * 20)  # the first one, since it is the longest
    out, here = tmp_path / "out", Path(__file__)
    paths = [str(archive), str(out), str(model), str(here.parent)]
    environment = {"PYTHONPATH": f"{here.parent.parent}:{here.parent.parent.parent}"}
    with subprocess.Popen([sys.executable, "-c", INTERRUPTED, *paths], env=environment) as process:
        deadline = time.monotonic() + 60
        while not list(out.rglob("parts/*/.facemill-new-*.mp4")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
    assert process.returncode == -number
    assert not (out / "zz long.mp4").exists()
    if number == signal.SIGINT:
        assert not list(out.rglob(".facemill-new-*"))
        assert len(list(out.rglob("parts/*/*.mp4"))) == 1  # what was at work was done first
    first = {name: which for name, which in stamps(out).items() if not name.startswith(".facemill/parts/")}
    totals = convert.convert_folder(parameters(), archive, out, model)
    assert totals.counts["ok"] == {"": 2}
    assert not list(out.rglob(".facemill-new-*"))
    assert {name: stamps(out)[name] for name in first if ".facemill-new-" not in name} == {
        name: stamp for name, stamp in first.items() if ".facemill-new-" not in name
    }


def test_a_long_film_is_converted_in_segments_to_the_same_bytes_however_it_is_interrupted(
    model: Path, tmp_path: Path, face: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a minute in three segments, by one process at once; by two workers, after somebody has taken a part away and
    damaged another one."""
    archive = tmp_path / "in"
    archive.mkdir()
    make_clip(archive / "film.mp4", frames=face * 38, rate=5, options={"g": "25"})  # 152 frames at 5 a second
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    convert.convert_folder(parameters(), archive, whole, model)
    receipt = read_json(whole / ".facemill" / "receipts" / "film.mp4.json")["receipt"]
    assert (receipt["segments"], receipt["frames_swapped"]) == (3, 152)
    assert times(whole / "film.mp4") == times(archive / "film.mp4")

    monkeypatch.setattr("tasks.converting.videos.conclude", _broken_off)
    with pytest.raises(FacemillError, match="broken off"):
        convert.convert_folder(parameters(), archive, parts, model)
    made = sorted(parts.rglob("parts/*/*.mp4"))
    assert len(made) == 3
    state = read_status(parts / ".facemill")
    assert [(video.stage, video.frames_done) for video in state.videos] == [("running", 152)]
    made[0].unlink()
    made[1].write_bytes(b"damaged")
    monkeypatch.undo()
    two = parameters().model_copy(update={"cluster": ClusterParams(kind="local", workers=2)})
    convert.convert_folder(two, archive, parts, model)
    assert file_sha256(parts / "film.mp4") == file_sha256(whole / "film.mp4")
    assert not list(parts.rglob("parts/*/*"))
    assert [video.stage for video in read_status(parts / ".facemill").videos] == ["converted"]


def _broken_off(ending: Any) -> None:
    raise FacemillError("broken off")


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


def test_a_worker_that_lives_on_sees_that_another_model_lies_in_the_folder(
    archive: Path, model: Path, tmp_path: Path
) -> None:
    for name in ("talk.avi", "nobody.mp4", "odd.mp4", "cut.mkv", "letter.mp4", "empty.mov"):
        (archive / name).unlink()
    own = Path(shutil.copytree(model, tmp_path / "model"))
    convert.convert_folder(parameters(), archive, tmp_path / "first", own)
    references = read_json(own / "model.json")["references"]
    shutil.rmtree(own)
    model_folder(own, {name: np.asarray(rows, np.float32) for name, rows in references.items()})  # other random weights
    convert.convert_folder(parameters(), archive, tmp_path / "again", own)
    swap_job._swapper.cache_clear()
    swap_job._references.cache_clear()
    convert.convert_folder(parameters(), archive, tmp_path / "fresh", own)
    first, again, fresh = (file_sha256(tmp_path / out / "talk.mp4") for out in ("first", "again", "fresh"))
    assert first != again == fresh


def test_workers_of_a_real_cluster_convert_too(archive: Path, model: Path, tmp_path: Path) -> None:
    params = parameters().model_copy(update={"cluster": ClusterParams(kind="local", workers=1)})
    assert convert.convert_folder(params, archive, tmp_path / "out", model).counts["ok"] == {"": 5}


def test_a_model_of_unknown_terms_is_refused_for_commerce_before_any_video(
    archive: Path, model: Path, tmp_path: Path
) -> None:
    params = parameters().model_copy(update={"commercial": True})
    with pytest.raises(FacemillError, match=r"commercial: true.*\n.*\n  the model: terms unknown; its folder does not"):
        convert.convert_folder(params, archive, tmp_path / "out", model)
    assert not stamps(tmp_path / "out")


def test_tracks_with_the_landmarks_of_another_predictor_are_refused(archive: Path, model: Path, tmp_path: Path) -> None:
    """Tables can be older than params.yaml, which may name the model's predictor by now."""
    plan = convert_plan.plan_folder(parameters(), archive, tmp_path / "out", model)
    job = next(each for each in plan.jobs if each.video == "talk.mp4")
    tracked = plan.tracking(InlinePool(), job)
    assert swap_job.pieces_of(job, tracked)
    path = Path(tracked.files.tracks)
    rows = [row | {"predictor": "mesh 2"} for row in tables.part_rows(path, schema.TRACKS)]
    tables.write_part(path, tables.from_rows(rows, schema.TRACKS))
    with pytest.raises(FacemillError, match=r"talk.mp4 was tracked with the landmarks of mesh 2, the model in .* dlib"):
        swap_job.pieces_of(job, tracked)


def test_a_model_of_another_predictors_landmarks_is_refused_before_any_video(
    archive: Path, model: Path, tmp_path: Path, mesh_weights: Path
) -> None:
    own = shutil.copytree(model, tmp_path / "model")
    meta = read_json(own / "model.json")
    write_json(own / "model.json", meta | {"landmarks": signature("mesh")})
    with pytest.raises(FacemillError, match=r"trained on the landmarks of mesh .*: set track.landmarks"):
        convert.convert_folder(parameters(), archive, tmp_path / "out", own)
    named = {"landmarks": "mesh", "landmark_options": {"weights": str(mesh_weights)}}
    with pytest.raises(FacemillError, match=r"trained on the landmarks of dlib .*landmarks: mesh"):
        convert.convert_folder(parameters(named), archive, tmp_path / "out", model)
    assert not stamps(tmp_path / "out")
    (archive / "only").mkdir()
    shutil.move(archive / "talk.mp4", archive / "only")
    totals = convert.convert_folder(parameters(named), archive / "only", tmp_path / "out", own)
    assert totals.counts == {"ok": {"": 1}}
    assert rows_of(tmp_path / "out" / ".facemill" / "conversions")["talk.mp4"]["frames_swapped"] == 4
