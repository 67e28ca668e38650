"""`facemill detect`: a folder in, records out, whatever lies in the folder and however many work on it."""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip
from odd_files import make_broken_links, make_no_files, make_odd_files, odd_names
from typer.testing import CliRunner

from facemill.detection_records import EndRecord, FileRecord, FrameRecord, read_records
from facemill.errors import FacemillError
from facemill.pictures import encode_jpeg
from facemill.recorder import RecordSettings
from flows.command_line.main import app
from tasks.commands.detect import DetectTotals, detect

SETTINGS = RecordSettings(detector="hog", min_face_px=80, landmarks=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, hopper: np.ndarray) -> Path:
    """Two pictures with a face, a faceless clip, a broken picture, a broken video, a file of no interest."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "sub").mkdir()
    (folder / "a.jpg").write_bytes(encode_jpeg(hopper))
    (folder / "sub" / "b.JPG").write_bytes(encode_jpeg(hopper[:, ::-1]))
    make_clip(folder / "c.mp4", frames=6)
    (folder / "d.png").write_bytes(b"broken")
    (folder / "e.mp4").write_bytes(b"broken")
    (folder / "notes.txt").write_text("nothing to see")
    return folder


def written(folder: Path, jobs: int) -> tuple[bytes, DetectTotals]:
    sink = io.BytesIO()
    totals = detect(folder, sink, SETTINGS, jobs=jobs)
    return sink.getvalue(), totals


def test_a_folder_gives_records_of_every_picture_and_video_in_order(folder: Path) -> None:
    data, totals = written(folder, 1)
    records = list(read_records(data.splitlines()))
    names = [one.file.partition("/")[2] for one in records if isinstance(one, FileRecord)]
    assert names == ["a.jpg", "c.mp4", "d.png", "e.mp4", "sub/b.JPG"]
    assert [len(one.faces) for one in records if isinstance(one, FrameRecord)] == [1, *[0] * 6, 1]
    assert (totals.files, totals.frames, totals.faces) == (5, 8, 2)
    assert [name.partition("/")[2] for name, _ in totals.failures] == ["d.png", "e.mp4"]


def test_two_workers_write_what_one_does_and_a_file_that_kills_its_worker_costs_only_itself(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for libjpeg crashing on one file: a module that workers load and that ends the process there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "real = os.open\n"
        "def open(path, *args, **options):\n"
        "    if str(path).endswith('b.JPG'): os._exit(9)\n"
        "    return real(path, *args, **options)\n"
        "os.open = open\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    data, totals = written(folder, 2)
    ends = [one for one in read_records(data.splitlines()) if isinstance(one, EndRecord)]
    assert [end.reason for end in ends] == [None, None, "not_a_picture", "not_a_video", "worker_killed"]
    assert totals.files == 5
    alone = written(folder, 1)[0]
    assert data.splitlines()[:-2] == alone.splitlines()[:-3]  # b.JPG comes last


def test_odd_names_get_records_and_close_ups_and_what_is_no_file_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "odd"
    pictures = odd_names(".jpg")
    make_odd_files(odd, pictures, (folder / "a.jpg").read_bytes())
    make_odd_files(odd, odd_names(".mp4")[:1], (folder / "c.mp4").read_bytes())
    skipped, broken = make_no_files(odd, ".jpg"), [*make_broken_links(odd, ".png"), *make_broken_links(odd, ".mp4")]
    sink = io.BytesIO()
    settings = dataclasses.replace(SETTINGS, crops=str(tmp_path / "crops"), landmarks=True, crop_px=32)
    totals = detect(odd, sink, settings)
    assert (totals.files, totals.faces, len(totals.failures)) == (len(pictures) + 1 + len(broken), len(pictures), 8)
    ends = [one for one in read_records(sink.getvalue().splitlines()) if isinstance(one, EndRecord)]
    assert {end.reason for end in ends} == {None, "unreadable"}
    assert len(list((tmp_path / "crops").rglob("0.jpg"))) == len(pictures)
    assert f"skipped {len(skipped)} that are no files" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".jpg", ".mp4", ""])
def test_a_pipe_that_is_named_itself_is_a_record_with_a_reason(tmp_path: Path, suffix: str) -> None:
    make_no_files(tmp_path, suffix)
    sink = io.BytesIO()
    assert len(detect(tmp_path / f"pipe{suffix}", sink, SETTINGS).failures) == 1
    assert b'"unreadable"' in sink.getvalue()


def test_json_goes_to_stdout_and_the_totals_to_stderr(folder: Path) -> None:
    result = CliRunner().invoke(
        app, ["detect", str(folder / "a.jpg"), "--json", "--detector", "hog", "--min-face-px", "80"]
    )
    assert result.exit_code == 0
    _, frame, _ = read_records(result.stdout.splitlines())
    assert isinstance(frame, FrameRecord)
    assert frame.faces[0].landmarks is not None
    assert "1 files, 1 frames, 1 faces" in result.stderr


def test_an_output_file_appears_whole_and_crops_beside_it(folder: Path, tmp_path: Path) -> None:
    output, crops = tmp_path / "out" / "faces.jsonl", tmp_path / "crops"
    options = ["--detector", "hog", "--min-face-px", "80", "--crop-format", "png"]
    result = CliRunner().invoke(
        app, ["detect", str(folder / "a.jpg"), "--output", str(output), "--crops", str(crops), *options]
    )
    assert result.exit_code == 0
    with output.open("rb") as lines:
        assert sum(isinstance(one, EndRecord) for one in read_records(lines)) == 1
    assert [path.relative_to(crops).as_posix() for path in crops.rglob("*.png")] == ["a.jpg/0.png"]
    assert [path.name for path in output.parent.iterdir()] == ["faces.jsonl"]


def test_a_run_in_which_nothing_could_be_used_is_an_error_that_leaves_the_records(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "faces.jsonl"
    result = CliRunner().invoke(app, ["detect", str(folder / "d.png"), "--output", str(output), "--detector", "hog"])
    assert isinstance(result.exception, FacemillError)
    assert output.exists()


def test_whoever_stops_reading_ends_the_work_quietly(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "flows.command_line",
        "detect",
        str(folder),
        "--json",
        "--detector",
        "hog",
        "--no-landmarks",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
    assert "Traceback" not in said


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_a_path_with_nothing_in_it_says_so(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / content).write_text("")
    with pytest.raises(FacemillError, match="no picture or video"):
        detect(tmp_path, io.BytesIO(), SETTINGS)
    with pytest.raises(FacemillError, match="does not exist"):
        detect(tmp_path / "gone", io.BytesIO(), SETTINGS)


def test_an_unknown_detector_is_named_before_any_record(folder: Path) -> None:
    sink = io.BytesIO()
    with pytest.raises(FacemillError, match="no detector 'eyes'"):
        detect(folder, sink, RecordSettings(detector="eyes"))
    assert sink.getvalue() == b""


def test_options_of_a_detector_reach_it_and_the_records(folder: Path, tmp_path: Path) -> None:
    """With HOG's margin above all that it gives, no face is found."""
    command = ["detect", str(folder / "a.jpg"), "--json", "--no-landmarks", "--min-face-px", "80", "--detector"]
    few = CliRunner().invoke(app, [*command, "hog", "--detector-option", "threshold=9"])
    chain = CliRunner().invoke(app, [*command, "hog,mtcnn", "--detector-option", "hog.threshold=9"])
    assert few.exit_code == chain.exit_code == 0
    head, frame, _ = read_records(few.stdout_bytes.splitlines())
    chain_head, chain_frame, _ = read_records(chain.stdout_bytes.splitlines())
    assert (head.options["threshold"], len(frame.faces)) == (9, 0)
    assert (chain_head.options["hog"], len(chain_frame.faces)) == ({"threshold": 9}, 1)
    wrong = CliRunner().invoke(app, [*command, "hog", "--detector-option", "upsample=9"])
    assert str(wrong.exception) == "detector 'hog': upsample must be 0…4 doublings, got 9"
