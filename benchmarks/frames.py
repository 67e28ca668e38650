"""What frames of videos are worth that are chosen by their faces, against as many that are taken at even distances.

    python benchmarks/frames.py talk.mp4 stage.mp4               # each clip is an identity of its own
    python benchmarks/frames.py talk.mp4 --every 1.0 --max-frames 20

Each way goes through the stages of the pipeline up to `curate`, at their defaults, in a project of its own; references
are the frames that a video gives as one, the same for each way. A row is a way: frames that were collected; those with
a face that was accepted, and how many were refused because they show what another one shows; the mean sharpness of the
accepted faces; how many of the bins of `facemill.coverage` have a face, and `readiness`, means over the clips; seconds
of processor for a minute of video, decoding and encoding included.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from facemill import tables
from facemill.detect import build_detector
from facemill.files import write_bytes
from facemill.reasons import Reason, State
from facemill.schema import DATASET, RAW
from facemill.sources import Surroundings, fetch
from facemill.sources.video import VideoSource
from facemill.video import probe
from tasks.catalogue import Data
from tasks.curating.coverage import read_coverage
from tasks.stages import run_stage
from tasks.work.cluster import one_thread

STAGES = ("inventory", "collect", "dedup", "extract", "curate")
RIGHTS = {"basis": "synthetic", "evidence": "whoever runs this benchmark states that it may be run on these clips"}
Options = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--every", type=float, default=0.5, help="seconds of which a frame is taken")
    parser.add_argument("--max-frames", type=int, default=400)
    parser.add_argument("--detector", default="hog", help="of extract")
    arguments = parser.parse_args()
    one_thread()  # as in a worker
    build_detector("mtcnn", min_face_px=80).detect([np.zeros((480, 640, 3), np.uint8)])  # loading is not measured
    clips = {clip.stem: clip.resolve() for clip in arguments.clips}
    minutes = sum(float(probe(clip).duration_s or 0) for clip in clips.values()) / 60
    by_face: Options = {"every_s": arguments.every, "max_frames": arguments.max_frames}
    plain = {name: by_face | {"choose": "every"} for name in clips}
    print(f"{'':28}{'frames':>8}{'accepted':>16}{'same look':>11}{'sharpness':>11}{'bins':>7}{'ready':>7}{'s/min':>8}")
    counts = measure("by face", clips, dict.fromkeys(clips, by_face), minutes, arguments.detector)
    lengths = {name: float(probe(clip).duration_s or 0) for name, clip in clips.items()}
    even = {
        name: {"choose": "every", "every_s": lengths[name] / max(1, counts[name]), "max_frames": max(1, counts[name])}
        for name in clips
    }
    measure("every n-th, as many", clips, even, minutes, arguments.detector)
    measure(f"every {arguments.every:g} s", clips, plain, minutes, arguments.detector)


def measure(
    way: str, clips: dict[str, Path], options: dict[str, Options], minutes: float, detector: str
) -> Counter[str]:
    """Prints the row of a way; returns how many frames each clip gave."""
    seconds = sum(seconds_of(clip, options[name]) for name, clip in clips.items())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_project(root, clips, options, detector)
        for stage in STAGES:
            run_stage(stage, root)
        collected: dict[str, str] = {}
        for row in rows(root / Data.RAW, RAW, ["sample_id", "identity", "role", "status"]):
            if (row["role"], row["status"]) == ("sample", State.OK):
                collected[row["sample_id"]] = row["identity"]
        # A frame that is a reference, too, is one picture, of which either row may stand in the dataset.
        columns = ["sample_id", "status", "error", "sharpness"]
        faces = [row for row in rows(root / Data.DATASET, DATASET, columns) if row["sample_id"] in collected]
        accepted = {row["sample_id"] for row in faces if row["status"] == State.OK}
        refused = Counter(row["error"] for row in faces if row["sample_id"] not in accepted)
        sharp = [row["sharpness"] for row in faces if row["status"] == State.OK]
        coverage = read_coverage(root, clips).values()
    frames = len(collected)
    bins = np.mean([sum(count > 0 for kind in each.counts.values() for count in kind) for each in coverage])
    ready = np.mean([each.readiness for each in coverage])
    share = share_of(len(accepted), frames)
    alike = refused[Reason.SAME_LOOK]
    measured = f"{np.mean(sharp or [np.nan]):>11.0f}{bins:>7.1f}{ready:>7.1f}{seconds / minutes:>8.1f}"
    print(f"{way:28}{frames:>8}{share:>16}{alike:>11}{measured}", flush=True)
    return Counter(collected.values())


def share_of(part: int, whole: int) -> str:
    """A count, and of how many where there are any."""
    return f"{part} ({part / whole:.0%})" if whole else f"{part}"


def seconds_of(clip: Path, options: Options) -> float:
    """Of the processor, to take the frames of a clip."""
    source = VideoSource(path=str(clip), **options)
    [unit] = source.plan("anyone", "sample", Surroundings())
    before = time.process_time()
    for _ in fetch(unit):
        pass
    return time.process_time() - before


def write_project(root: Path, clips: dict[str, Path], options: dict[str, Options], detector: str) -> None:
    identities: Options = {}
    for name, clip in clips.items():
        (root / "footage").mkdir(exist_ok=True)
        shutil.copyfile(clip, root / "footage" / clip.name)
        path = f"footage/{clip.name}"
        source = {"kind": "video", "path": path, **options[name]}
        identities[name] = {"rights": RIGHTS, "references": [path], "sources": [source]}
    first, second = (list(clips) * 2)[:2]
    params = {
        "seed": 1,
        "cluster": {"kind": "inline"},
        "identities": identities,
        "archive": {"kind": "folder", "path": "footage"},
        "collect": {},
        "dedup": {"hash_distance": 0, "confirm_distance": 0},
        "extract": {"detector": detector},
        "curate": {},
        "train": {},
        "track": {},
        "convert": {"becomes": {first: second}},
        "report": {},
    }
    write_bytes(root / "params.yaml", yaml.safe_dump(params).encode())


def rows(folder: Path, schema: Any, columns: list[str]) -> Iterable[dict[str, Any]]:
    for part in tables.iterate_parts(folder, schema, columns):
        yield from part.to_pylist()


if __name__ == "__main__":
    main()
