"""kill -9 at random moments of a long film's conversion: what was finished stays, so do the bytes.

FACEMILL_KILLS=30 python -m pytest -m slow -s tests/tasks/test_convert_kills.py    # ten minutes of film
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from clips import make_clip

from facemill.files import file_sha256, read_json

KILLS = int(os.environ.get("FACEMILL_KILLS", "4"))
SEED = int(os.environ.get("FACEMILL_KILLS_SEED", "20261126"))
SECONDS_PER_KILL = 20
"""Of film: thirty kills meet ten minutes."""
WORKERS, RATE = 2, 5
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def film(tmp_path: Path, hopper: np.ndarray) -> Path:
    """Hopper's portrait for minutes, a key frame every other second."""
    face = cv2.resize(hopper[20:420, 60:460], (256, 256), interpolation=cv2.INTER_AREA)
    frames = [np.roll(face, shift, axis=1) for shift in range(4)] * (KILLS * SECONDS_PER_KILL * RATE // 4)
    (tmp_path / "in").mkdir()
    return make_clip(tmp_path / "in" / "film.mp4", frames=frames, rate=RATE, options={"g": str(2 * RATE)})


@pytest.fixture
def project(tmp_path: Path, model: Path) -> Path:
    """A folder with parameters, and a net that was never trained."""
    person = {"rights": {"basis": "own", "evidence": "a test's own"}, "references": ["sample:hopper"]}
    person["sources"] = [{"kind": "sample", "person": "hopper"}]
    values = {
        "identities": {"hopper": person, "collins": person},
        "archive": {"kind": "sample"},
        "convert": {"becomes": {"hopper": "collins"}, "encoder": {"preset": "ultrafast"}}
        | {"detail": "match", "occlusion": "none"},
        "cluster": {"kind": "local", "workers": WORKERS},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    return Path(shutil.copytree(model, tmp_path / "model")).parent


@pytest.mark.slow
def test_a_film_that_is_killed_again_and_again_loses_what_is_at_work_and_no_more(project: Path, film: Path) -> None:
    draw, out, told = random.Random(SEED), project / "killed", list[int]()
    finished: dict[Path, int] = {}  # file → inode, of all that was finished
    redone = rounds = 0
    while rounds < KILLS:
        rounds += 1
        process = _convert(project, out)
        enough, deadline = len(finished) + draw.choice((0, 1, 1, 2)), time.monotonic() + 300
        while process.poll() is None and len(_finished(out)) < enough:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        try:
            process.wait(draw.uniform(0, 8))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:  # it was faster than the kills
            assert process.returncode == 0, process.communicate()
            break
        time.sleep(0.5)  # until the kernel has ended them all
        now = _finished(out)
        whole = {path for path in finished if path.exists()}
        redone += sum(now[path] != finished[path] for path in whole)
        if not (out / "film.mp4").exists():  # until then parts stay where they are
            assert whole == finished.keys()
        finished = now
        told.append(len(now))
    print(f"{rounds} kills, after each so many pieces were there: {', '.join(map(str, told))}")
    assert redone == 0
    process = _convert(project, out)
    said, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, said
    assert not [path for path in out.rglob(".facemill-new-*") if path.is_file()]

    process = _convert(project, project / "undisturbed")
    said, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, said
    assert file_sha256(out / "film.mp4") == file_sha256(project / "undisturbed" / "film.mp4")
    receipts = [
        read_json(each / ".facemill/receipts/film.mp4.json")["receipt"] for each in (out, project / "undisturbed")
    ]
    assert receipts[0]["frames_swapped"] == receipts[1]["frames_swapped"] == KILLS * SECONDS_PER_KILL * RATE
    print(f"segments {receipts[1]['segments']}")


def _convert(project: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows.command_line", "convert", str(project / "in"), str(out)]
    command += ["--model", str(project / "model"), "--root", str(project)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _finished(out: Path) -> dict[Path, int]:
    """Looks of segments and parts that are whole. What the killed workers had in hand has another name."""
    pieces = [*out.glob(".facemill/tracks/pieces/*.npz"), *out.glob(".facemill/parts/*/*.json")]
    return {path: path.stat().st_ino for path in pieces if not path.name.startswith(".")}
