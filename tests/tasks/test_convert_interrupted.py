"""A conversion that is killed, that fills the disk or kills its workers: what had ended stays, the rest goes on."""

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import parameters, rows_of, stamps
from clips import make_clip, times
from known_nets import model_folder

from facemill.errors import FacemillError
from facemill.files import file_sha256, read_json
from facemill.reasons import Reason
from facemill.swap import job as swap_job
from tasks import convert
from tasks.converting import plan as convert_plan
from tasks.converting.state import read_status
from tasks.converting.videos import FrameCount, convert_video
from tasks.params import ClusterParams
from tasks.work.cluster import InlinePool, Pool


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
from archives import parameters
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
    paths = [str(archive), str(out), str(model)]
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
    outcome = read_json(whole / ".facemill" / "receipts" / "film.mp4.json")
    assert (outcome["receipt"]["segments"], outcome["receipt"]["frames_swapped"]) == (3, 152)
    assert {"python", "av", "ffmpeg", "torch", "numpy"} <= set(outcome["packages"])
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
