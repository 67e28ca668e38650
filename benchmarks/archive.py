"""What more workers and tracks that are kept bring for archives: the whole way, through a Dask cluster.

    python benchmarks/archive.py                    # clips of 640×360, made from sample portraits
    python benchmarks/archive.py --height 720 --frames 500

Medians of 3, in turns, each on a cluster that is warm: (1) one long clip with one worker and with two; (2) the same
frames as eight clips; (3) an archive of ten clips of which one shows the person, four somebody else and five nobody,
against one in which all ten show the person; (4) the long clip again with another model, against the first time.
The net is the small preset with random weights, which takes as long as a trained one. Work with two workers is told as
a share of what two would do at best: on a machine whose cores are busy it says nothing.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np

from facemill.landmarks import signature
from facemill.model_folder import save_model
from facemill.nets import build_model
from facemill.sources.sample import Pose, render
from facemill.track.models import FaceModels
from tasks.converting.plan import plan_folder
from tasks.converting.videos import FrameCount, convert_videos
from tasks.params import ClusterParams, Params, parse_params
from tasks.work.cluster import Pool, open_pool

CLIPS = 8
PEOPLE = ("hopper", "collins")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--frames", type=int, default=1600, help="of the long clip; a multiple of 8")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    height, frames = arguments.height, arguments.frames
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed in (0, 1):
            make_model(folder / f"model{seed}")
        make_clip(folder / "warm" / "0.mp4", "hopper", 50, height)
        make_clip(folder / "long" / "0.mp4", "hopper", frames, height)
        for number in range(CLIPS):
            make_clip(folder / "eight" / f"{number}.mp4", "hopper", frames // CLIPS, height, number)
        for number in range(10):
            make_clip(folder / "all" / f"{number}.mp4", "hopper", frames // CLIPS, height, number)
            who = "hopper" if number == 0 else "collins" if number < 5 else None
            make_clip(folder / "few" / f"{number}.mp4", who, frames // CLIPS, height, number)
        compare(folder, arguments.repeats)


def compare(folder: Path, repeats: int) -> None:
    """Times all; prints medians and ratios."""
    times: dict[str, list[float]] = defaultdict(list)
    for turn in range(repeats):
        for workers in (1, 2):
            with open_pool(ClusterParams(kind="local", workers=workers)) as pool:
                out = folder / f"out-{turn}-{workers}"
                for warm in range(workers):  # so that each worker has loaded its models, one after the other
                    convert(pool, folder / "warm", out / f"warm{warm}", folder / "model0")

                def timed(name: str, archive: str, model: int, pool: Pool = pool, out: Path = out) -> None:
                    start = time.perf_counter()
                    convert(pool, folder / archive, out / archive, folder / f"model{model}")
                    times[name].append(time.perf_counter() - start)

                for archive in ("long", "eight"):
                    timed(f"{archive}, {workers} worker(s)", archive, 0)
                if workers == 2:
                    timed("long again with another model, 2 worker(s)", "long", 1)
                    for archive in ("all", "few"):
                        timed(archive, archive, 0)
    told: dict[str, Callable[[], tuple[str, str]]] = {
        "two workers on one long clip": lambda: ("long, 1 worker(s)", "long, 2 worker(s)"),
        "two workers on eight clips": lambda: ("eight, 1 worker(s)", "eight, 2 worker(s)"),
        "again with another model": lambda: ("long, 2 worker(s)", "long again with another model, 2 worker(s)"),
        "one video in ten shows the person": lambda: ("all", "few"),
    }
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in middle.items():
        print(f"  {name:<45} {seconds:7.1f} s")
    for name, sides in told.items():
        slow, fast = sides()
        print(f"{name}: {middle[slow] / middle[fast]:.2f} × as fast")


def convert(pool: Pool, archive: Path, out: Path, model: Path) -> None:
    """All videos of a folder, from nothing to finished files; only the tables are left out."""
    plan = plan_folder(parameters(), archive, out, model)
    for job, outcome in convert_videos(pool, plan.todo, plan.tracking, FrameCount(plan.todo)):
        assert outcome["status"] == "ok", (job.video, outcome)


def parameters() -> Params:
    """Of a project that makes Collins of Hopper, otherwise as by default."""
    people: dict[str, Any] = {
        name: {
            "rights": {"basis": "public_domain", "evidence": "public domain"},
            "references": [f"sample:{name}"],
            "sources": [{"kind": "sample", "person": name}],
        }
        for name in PEOPLE
    }
    return parse_params(
        {"identities": people, "archive": {"kind": "sample"}, "convert": {"becomes": {"hopper": "collins"}}}
    )


def make_model(folder: Path) -> None:
    """An untrained small model; another one at each call."""
    tools = FaceModels("hog")
    picture, _ = render("hopper", Pose(), (640, 480))
    references = tools.embed(picture, tools.landmarks(picture, tools.search(picture, 80)[:1]))
    model = build_model("autoencoder", "small", list(PEOPLE))
    meta = {
        "name": "autoencoder",
        "preset": "small",
        "identities": list(PEOPLE),
        "input_px": model.input_px,
        "crop_px": 256,
        "crop_coverage": 1.6,
        "landmarks": signature("dlib"),
        "train_coverage": 1.1,
        "references": {"hopper": references.tolist()},
    }
    save_model(folder, model, meta)


def make_clip(path: Path, person: str | None, frames: int, height: int, seed: int = 0) -> None:
    """A sample person who talks and moves, or a pattern that moves, H.264, 25 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width = height * 16 // 9
    cloud = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    pattern = cloud.repeat(16, axis=0).repeat(16, axis=1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "18", "preset": "veryfast", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = pattern.shape[1], pattern.shape[0], "yuv420p"
        for index in range(frames):
            phase = index + 7 * seed
            if person is None:
                picture = np.roll(pattern, 2 * index, axis=1)
            else:
                pose = Pose(mouth_open=0.5 + 0.5 * math.sin(phase / 3), yaw_deg=12 * math.sin(phase / 20))
                picture, _ = render(person, pose, (pattern.shape[1], pattern.shape[0]))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
