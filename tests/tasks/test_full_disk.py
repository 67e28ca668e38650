"""A full disk ends a run with one error and code 1, under real worker processes; what was finished stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from clips import make_clip
from known_nets import model_folder

from facemill import schema, tables
from facemill.errors import FacemillError
from facemill.files import file_sha256
from facemill.pictures import encode_jpeg
from facemill.reasons import Reason, State
from tasks import convert
from tasks.params import ClusterParams, Params, parse_params
from tasks.work.cluster import InlinePool, open_pool
from tasks.work.results import Part, Rows, Shard, WorkItem, make_parts, open_store
from tasks.work.scratch import scratch_file

PROJECT = Path(__file__).resolve().parents[2]
PERSON: dict[str, Any] = {
    "rights": {"basis": "own", "evidence": "a test's own"},
    "references": ["sample:hopper"],
    "sources": [{"kind": "sample", "person": "hopper"}],
}
VALUES: dict[str, Any] = {
    "identities": {"hopper": PERSON, "collins": PERSON},
    "archive": {"kind": "sample"},
    "convert": {"becomes": {"hopper": "collins"}, "encoder": {"preset": "ultrafast"}, "check_space": False},
    "cluster": {"kind": "local", "workers": 1},
}


@pytest.fixture(scope="module")
def model(hopper: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with random weights that knows a face that nobody has."""
    folder = tmp_path_factory.mktemp("model") / "model"
    model_folder(folder, {"hopper": np.zeros((1, 128), np.float32)})
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small videos, and one of noise, which is larger than the tiny disk."""
    folder = tmp_path_factory.mktemp("archive")
    noise = np.random.default_rng(7).integers(0, 256, (40, 256, 320, 3), np.uint8)
    make_clip(folder / "1.mp4", frames=3, sound=None)
    make_clip(folder / "2.mp4", frames=list(noise), sound=None)
    make_clip(folder / "3.mp4", frames=3, sound=None)
    return folder


def facemill(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.command_line", *map(str, arguments)]
    return subprocess.run(
        command, cwd=PROJECT, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )


def one_error(ran: subprocess.CompletedProcess[str]) -> str:
    [line] = [line for line in ran.stderr.splitlines() if "rror" in line or "defect" in line]
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    return line


def parameters() -> Params:
    return parse_params(VALUES)


def noise(shard: Shard) -> list[Rows]:
    return [
        [{"sample_id": "x", "image": {"bytes": os.urandom(size), "path": None}, "status": "ok"}] for size in shard.items
    ]


def noise_parts(size: int, first: int) -> list[Part]:
    """Three parts of three items, whose rows no compression makes smaller; the first with items of `first` bytes."""
    sizes = (first, size, size)
    return [Part(f"{n:02d}", tuple(WorkItem(f"{n} {at} {own}", own) for at in range(3))) for n, own in enumerate(sizes)]


def no_row(item: Any, reason: Reason, detail: str) -> dict[str, Any]:
    raise AssertionError(f"{item} was lost: {reason}, {detail}")


def test_parts_of_a_table(tiny_disk: Path) -> None:
    store = open_store(tiny_disk, "noise", schema.RAW)
    params = ClusterParams(kind="local", workers=2)
    with open_pool(params) as pool, pytest.raises(FacemillError, match="no space left to write"):
        make_parts(store, noise_parts(150_000, first=100), noise, no_row, pool, rows_per_shard=3)
    made = make_parts(store, noise_parts(100, first=100), noise, no_row, InlinePool(), rows_per_shard=3)
    assert made.worked == 6  # as if somebody had made room: what was finished is not worked again
    assert len(made.paths) == 3


def test_what_is_put_aside_while_faces_are_compared(tiny_disk: Path) -> None:
    full = pytest.raises(FacemillError, match=r"^no space left in .*same command again$")
    with full, scratch_file(tiny_disk) as file:
        file.write(os.urandom(2**20))
    assert not list(tiny_disk.iterdir())


def test_converting_a_folder(archive: Path, model: Path, tiny_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(VALUES))
    ran = facemill("convert", archive, tiny_disk / "out", "--model", model, "--root", tmp_path)
    assert "no space left to write 2.mp4" in one_error(ran)
    assert not list(tiny_disk.rglob(".facemill-*-*"))
    assert not (tiny_disk / "out" / "2.mp4").exists()


def test_the_stage_convert(archive: Path, model: Path, tiny_disk: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    (root / "data" / "archive").symlink_to(archive)
    (root / "data" / "model").symlink_to(model)
    (root / "params.yaml").write_text(yaml.safe_dump(VALUES))
    rows = [
        {"video": path.name, "sha256": file_sha256(path), "codec": "h264", "status": State.OK}
        for path in sorted(archive.iterdir())
    ]
    tables.write_part(root / "data" / "videos" / "00000.parquet", tables.from_rows(rows, schema.VIDEOS))
    assert facemill("stage", "track", "--root", root).returncode == 0
    shutil.rmtree(root / ".work")
    (root / ".work").symlink_to(tiny_disk)
    ran = facemill("stage", "convert", "--root", root)
    assert "no space left to write" in one_error(ran)
    assert not (root / "data" / "conversions").exists()


@pytest.fixture(scope="module")
def faces(hopper: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with a face each, in two lots."""
    folder = tmp_path_factory.mktemp("faces")
    small = cv2.resize(hopper, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    for number in range(40):
        (folder / f"{number:02d}.jpg").write_bytes(encode_jpeg(np.roll(small, number, axis=1)))
    make_clip(folder / "clip.mp4", frames=3, sound=None)
    return folder


DETECT = ("--detector", "hog", "--min-face-px", "80")


def test_detecting_with_close_ups(faces: Path, tiny_disk: Path, tmp_path: Path) -> None:
    records, crops = tmp_path / "faces.jsonl", tiny_disk / "crops"
    settings = ("--crops", crops, "--crop-px", "512", "--crop-format", "png")
    ran = facemill("detect", faces, "--jobs", "2", "--output", records, *settings, *DETECT)
    assert "no space left to write" in one_error(ran)
    assert not records.exists()


def test_detecting_where_the_parts_of_the_workers_do_not_fit(faces: Path, tiny_disk: Path, tmp_path: Path) -> None:
    (tiny_disk / "filled").write_bytes(bytes(500 * 1024))
    ran = facemill("detect", faces, "--jobs", "2", "--output", tmp_path / "faces.jsonl", *DETECT, TMPDIR=str(tiny_disk))
    assert "no space left" in one_error(ran)
    assert not (tmp_path / "faces.jsonl").exists()


def test_detecting_into_a_file_that_does_not_fit(faces: Path, tiny_disk: Path) -> None:
    (tiny_disk / "filled").write_bytes(bytes(500 * 1024))
    ran = facemill("detect", faces, "--jobs", "2", "--output", tiny_disk / "faces.jsonl", *DETECT)
    assert "no space left to write faces.jsonl" in one_error(ran)
    assert [path.name for path in tiny_disk.iterdir()] == ["filled"]


def test_a_folder_is_finished_once_there_is_room(archive: Path, model: Path, tiny_disk: Path, tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match=r"no space left to write 2\.mp4"):
        convert.convert_folder(parameters(), archive, tiny_disk / "out", model)
    first = {path.name: path.stat().st_ino for path in (tiny_disk / "out").glob("*.mp4")}
    smaller = tmp_path / "smaller"
    smaller.mkdir()
    for name in ("1.mp4", "3.mp4"):
        (smaller / name).write_bytes((archive / name).read_bytes())
    make_clip(smaller / "2.mp4", frames=3, sound=None)
    assert convert.convert_folder(parameters(), smaller, tiny_disk / "out", model).counts["ok"] == {"": 3}
    assert first.items() <= {path.name: path.stat().st_ino for path in (tiny_disk / "out").glob("*.mp4")}.items()
