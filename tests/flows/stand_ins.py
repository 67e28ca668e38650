"""A project whose stages are quick stand-ins, with real git and DVC around them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from facemill.errors import FacemillError
from facemill.swap.job import ConversionJob, Made
from tasks.stages import STAGES

# What a stage does here is written in knobs.json: {STAGE: {"fail": N times, "sleep": seconds, "says": text}}.
STAGE_COMMAND = """
import json, os, sys, time
from pathlib import Path

from facemill.files import write_json
from facemill.processes import ends_with
from tasks.work.callers import callers
from tasks.work.progress import track

stage = sys.argv[1]
knobs = json.loads(Path("knobs.json").read_text())[stage]
with open("ran.txt", "a") as log:
    print(stage, os.environ.get("FACEMILL_RETRY", ""), file=log)
Path(f"{stage}.pid").write_text(str(os.getpid()))
if knobs.get("fail", 0) >= Path("ran.txt").read_text().split().count(stage):
    sys.exit(f"error: {stage}: {knobs['says']}")
with ends_with(callers()), track(stage, 4, "rows") as progress:
    for _ in range(4):
        time.sleep(knobs.get("sleep", 0) / 4)
        progress.advance()
counts = {"in": 4, "ok": 3, "rejected": 1, "failed": 0, "reasons": {"blurred": 1}}
metrics = {**counts, "seconds": 1.5, "per_worker_second": 2.67}
output = Path("data") / {"curate": "dataset", "train": "model"}.get(stage, stage)
output.mkdir(parents=True, exist_ok=True)
if stage == "curate":
    import numpy as np

    from facemill import tables
    from facemill.pictures import encode_jpeg
    from facemill.schema import DATASET

    crop = {"bytes": encode_jpeg(np.full((64, 64, 3), 90, np.uint8)), "path": None}
    rows = [
        {"face_id": str(n), "identity": "hopper", "status": "ok", "split": "train", "crop": crop}
        for n in range(knobs.get("faces", 3))
    ]
    rows.append({"face_id": "x", "identity": "hopper", "status": "rejected", "error": "blurred", "crop": crop})
    tables.write_part(output / "00000.parquet", tables.from_rows(rows, DATASET))
else:
    (output / "made.txt").write_text(json.dumps(knobs))
if stage == "collect":  # an archive without videos
    from facemill import tables
    from facemill.schema import VIDEOS

    tables.write_part(Path("data/videos/00000.parquet"), VIDEOS.arrow.empty_table())
if stage == "train":
    from facemill.landmarks import signature

    people = ["hopper", "collins"]
    about = {"name": "autoencoder", "preset": "small", "identities": people, "input_px": 64, "crop_px": 256}
    about |= {"crop_coverage": 1.6, "train_coverage": 1.1, "landmarks": signature("dlib")}
    write_json(output / "model.json", about | {"references": {name: [[0.0] * 128] for name in people}})
write_json(Path("data/metrics") / f"{stage}.json", metrics)
"""
PARAMS = {
    "identities": {
        name: {
            "rights": {"basis": "public_domain", "evidence": "ships with a wheel"},
            "references": [f"sample:{name}"],
            "sources": [{"kind": "sample", "person": name, "pictures": 4}],
        }
        for name in ("hopper", "collins")
    },
    "archive": {"kind": "sample", "seconds": 1.0},
    "convert": {"becomes": {"hopper": "collins"}},
    "cluster": {"kind": "inline"},
}
OUTPUTS = {"curate": "dataset", "train": "model"}


def make_project(root: Path) -> Path:
    """A project with one commit, in which no stage has run."""
    root.mkdir()
    (root / "stage.py").write_text(STAGE_COMMAND)
    set_knobs(root)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": dict(_stages())}))
    (root / ".gitignore").write_text("/data\n/ran.txt\n/*.pid\n/.work\n/.prefect\n")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=root, check=True)
    subprocess.run(["git", "add", "--all"], cwd=root, check=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *identity, "commit", "--quiet", "--message=first"], cwd=root, check=True)
    return root


def set_knobs(project: Path, **stages: dict[str, Any]) -> None:
    """Says how stages behave from now on."""
    (project / "knobs.json").write_text(json.dumps({stage: {} for stage in STAGES} | stages))


def stages_run(project: Path) -> list[str]:
    """The stages whose command has run, in order."""
    path = project / "ran.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def _stages() -> Iterator[tuple[str, Any]]:
    before: list[str] = []
    for stage in STAGES:
        output = f"data/{OUTPUTS.get(stage, stage)}"
        yield (
            stage,
            {
                "cmd": f"python stage.py {stage}",
                "deps": ["stage.py", *before],
                "params": [{"knobs.json": [stage]}],
                "outs": [output, *(["data/videos"] if stage == "collect" else [])],
                "metrics": [f"data/metrics/{stage}.json"],
            },
        )
        before = [output]


def latest_artifact(key: str) -> str:
    """What the Prefect page shows under a key."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        [found] = client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC, limit=1)
    return str(found.data)


def full_disk_or_wait(job: ConversionJob) -> Made:
    """In place of convert_piece, in a worker: the video `full` meets a full disk, any other takes two minutes."""
    if job.video == "full":
        raise FacemillError("the disk is full")
    time.sleep(120)
    return Made(1, "")
