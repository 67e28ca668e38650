"""An archive in, an archive out: every video one row, nothing converted twice, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from archives import parameters, rows_of, stamps
from clips import make_clip, times
from odd_files import ALIKE, make_broken_links, make_no_files, make_odd_files, odd_names

from facemill import schema, tables
from facemill.errors import FacemillError
from facemill.files import file_sha256, read_json, write_json
from facemill.landmarks import signature
from facemill.swap import job as swap_job
from facemill.video import probe
from tasks import convert
from tasks.converting import plan as convert_plan
from tasks.work.cluster import InlinePool

PROJECT = Path(__file__).resolve().parents[2]


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
