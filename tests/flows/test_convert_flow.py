"""One Prefect task for each video, on real clips and a net that was never trained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from clips import make_clip
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.settings import PREFECT_API_URL
from stand_ins import PARAMS, full_disk_or_wait, latest_artifact

from facemill import schema, tables
from facemill.errors import FacemillError
from facemill.swap.job import ConversionJob, TrackedInput
from facemill.swap.settings import SwapSettings
from facemill.swap.swapper import ModelOrigin
from facemill.track.table import TrackedFiles
from facemill.video import read_frames
from flows.convert import _bounded, convert_folder
from tasks.converting.state import read_status
from tasks.converting.videos import FrameCount
from tasks.params import ClusterParams
from tasks.work.cluster import open_pool

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture
def root(tmp_path: Path, hopper: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: params.yaml, an archive of a video with Hopper in it, one without and one that is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    archive = tmp_path / "archive"
    archive.mkdir()
    face = cv2.resize(hopper[20:420, 60:460], (256, 256), interpolation=cv2.INTER_AREA)
    make_clip(archive / "talk {&} more.mp4", frames=[face] * 3)
    make_clip(archive / "nobody.mp4", frames=3, sound=None)
    (archive / "letter.mp4").write_text("Dear Sir or Madam,\n" * 50)
    return tmp_path


def task_states(ran: dict[str, Any]) -> dict[str, str]:
    """Name → state of the task runs of the last flow run."""
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[ran["id"]])))
    return {run.name: run.state_name or "" for run in runs}


def test_each_video_is_a_task_and_none_is_converted_twice(root: Path, model: Path) -> None:
    ran: dict[str, Any] = {}

    @flow
    def outer() -> Any:
        ran["first"] = convert_folder(root / "archive", root / "done", model, let_failures_pass=True, return_state=True)
        return None

    outer()
    state = ran["first"]
    assert state.result()["ok"] == 2
    found = task_states({"id": str(state.state_details.flow_run_id)})
    assert found == {"talk {&} more.mp4": "Completed", "nobody.mp4": "Completed", "letter.mp4": "Failed"}
    rows = tables.read_table(root / "done" / ".facemill" / "conversions", schema.CONVERSIONS).to_pylist()
    assert {row["video"]: row["frames_swapped"] for row in rows if row["status"] == "ok"} == {
        "nobody.mp4": 0,
        "talk {&} more.mp4": 3,
    }
    assert '"state": "failed", "reason": "not_a_video"' in latest_artifact("convert-videos")
    assert "data:image/jpeg;base64," in latest_artifact("convert-strips")
    before = (root / "done" / "nobody.mp4").stat().st_ino
    assert convert_folder(root / "archive", root / "done", model, let_failures_pass=True)["ok"] == 2
    with pytest.raises(FacemillError, match=r"1 of 3 videos failed, limit 0% \(letter\.mp4"):
        convert_folder(root / "archive", root / "done", model)
    assert (root / "done" / "nobody.mp4").stat().st_ino == before


def test_a_missing_model_stops_everything_with_its_remedy(root: Path) -> None:
    with pytest.raises(FacemillError, match="run the stage train first"):
        convert_folder(root / "archive", root / "done", root / "none")


def test_a_full_disk_ends_the_command_with_one_error_and_code_1(
    tmp_path: Path, model: Path, tiny_disk: Path, prefect: None
) -> None:
    """A video of noise is larger than the disk; the worker is a process of its own."""
    convert = PARAMS["convert"] | {"encoder": {"preset": "ultrafast"}, "check_space": False}
    params = PARAMS | {"convert": convert, "cluster": {"kind": "local", "workers": 1}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    noise = np.random.default_rng(7).integers(0, 256, (40, 256, 320, 3), np.uint8)
    (tmp_path / "archive").mkdir()
    make_clip(tmp_path / "archive" / "1.mp4", frames=3, sound=None)
    make_clip(tmp_path / "archive" / "2.mp4", frames=list(noise), sound=None)
    folders = ("--archive", "archive", "--output", str(tiny_disk / "out"), "--model", str(model))
    ran = subprocess.run(
        [sys.executable, "-m", "flows.command_line", "run", "convert", *folders],
        cwd=tmp_path,
        env=os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value()},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    [error] = [line for line in ran.stderr.splitlines() if line.startswith(("error", "defect"))]
    assert error == (
        f"error: no space left to write 2.mp4 in {tiny_disk / 'out'}: free some and run the same command again; what "
        "was finished is kept"
    )
    assert ran.stderr.splitlines()[-1] == error
    left = {path.name for path in (tiny_disk / "out").iterdir()}
    assert left <= {"1.mp4", ".facemill"}


def test_an_error_of_all_videos_ends_the_other_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.converting.videos.pieces_of", one_piece)
    monkeypatch.setattr("tasks.converting.videos.convert_watched", full_disk_or_wait)
    jobs = [idle_job(tmp_path, name) for name in ("long", "full")]  # as many as workers: both start at once

    @flow
    def outer() -> None:
        with open_pool(ClusterParams(kind="local", workers=2)) as pool:
            list(
                _bounded(
                    pool,
                    jobs,
                    lambda pool, job: TrackedInput("", TrackedFiles("", "", "")),
                    FrameCount(jobs),
                    lambda: None,
                )
            )

    start = time.monotonic()
    with pytest.raises(FacemillError, match="the disk is full"):
        outer()
    assert time.monotonic() - start < 60  # the other alone takes 120 s
    assert not list(tmp_path.glob("*.json"))  # it was broken off, not lost


def idle_job(folder: Path, name: str) -> ConversionJob:
    """A job whose files nobody opens."""
    paths = {"input": str(folder / name), "output": str(folder / f"{name}.mp4"), "model_dir": str(folder)}
    paths |= {"outcome": str(folder / f"{name}.json"), "parts": str(folder / name), "passed_on": paths["output"]}
    origin = ModelOrigin(becomes={"hopper": "collins"})
    return ConversionJob(video=name, origin=origin, settings=SwapSettings(), fingerprint="f", **paths)


def one_piece(job: ConversionJob, tracked: TrackedInput) -> tuple[ConversionJob, ...]:
    return (job,)


def test_the_first_ctrl_c_ends_the_flow_when_the_segments_at_work_are_done(root: Path, model: Path) -> None:
    """A film of five segments and two workers: one or two are at work when it rings, the others wait. Each
    that ends before the waiting ones are called back makes room for one more."""
    params = PARAMS | {"cluster": {"kind": "local", "workers": 2}}
    params["convert"] = PARAMS["convert"] | {"encoder": {"preset": "ultrafast"}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    for path in (root / "archive").iterdir():
        if path.name.startswith("talk"):
            face = next(read_frames(path)).rgb
        path.unlink()
    make_clip(root / "archive" / "film.mp4", frames=[face] * 102, rate=2, options={"g": "10"})
    done, begun = root / "done", list[int]()

    def ring() -> None:
        while not list(done.rglob("parts/*/.facemill-new-*.mp4")):
            time.sleep(0.05)
        begun.append(len(list(done.rglob("parts/*/*.mp4"))))
        # raised in this thread, it would reach the main one only when that has waited to the end of a segment
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    threading.Thread(target=ring, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        convert_folder(root / "archive", done, model)
    assert not list(done.rglob(".facemill-new-*"))
    assert 1 <= begun[0] <= len(list(done.rglob("parts/*/*.mp4"))) < 5
    assert read_status(done / ".facemill").videos[0].stage == "running"
    assert convert_folder(root / "archive", done, model)["ok"] == 1
