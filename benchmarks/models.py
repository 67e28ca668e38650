"""Every model on the same two people: trained, then measured on seconds of the clip that it never saw.

    python benchmarks/models.py WORK vasa3.mp4 vasa5.mp4                # the first becomes the second
    python benchmarks/models.py WORK vasa3.mp4 vasa5.mp4 --models autoencoder/small transform/small

The first four fifths of each clip are the footage to train on, the last fifth of the first clip is what is converted.
Every second frame is taken, less those that show what another one shows (`curate.same_look`).
All of it goes through the stages of the pipeline, in the project folder WORK, with the steps, batches and rates of
`RUNS`, which take some minutes each on two cores. A second call goes on where the first one ended: remove WORK/models
to begin again.

A row is a model: minutes of training, then medians over frames of the held-out seconds: distance of the embedding to
the new and to the replaced person before and after (one person: under 0.6), landmark error, flicker, PSNR outside the
mask (`facemill.measures`). WORK/models.jpg shows the same frames of each.
"""

from __future__ import annotations

import argparse
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml

from facemill.detect import build_detector
from facemill.files import TEMPORARY_PREFIX, read_json, write_bytes
from facemill.landmarks import build_predictor
from facemill.measures import spread
from facemill.model_folder import load_model
from facemill.pictures import RGB, encode_jpeg
from facemill.sheets import contact_sheet
from facemill.swap_meter import MeasuredFrame, SwapMeter, measure_video, summarize
from facemill.video import VideoReader
from tasks.convert import convert_folder
from tasks.params import parse_params
from tasks.stages import run_stage

RUNS: dict[str, dict[str, Any]] = {
    "autoencoder/small": {"steps": 3000, "batch": 8, "learning_rate": 1.5e-3},
    "transform/small": {"steps": 600, "batch": 8},
    "gan/small": {"steps": 900, "batch": 8, "options": {"schedule": "open"}},
    "cyclegan/small": {"steps": 1500, "batch": 4},
}
"""`train` of params.yaml."""
HELD_OUT = 0.2
MEASURED_FRAMES, SHOWN_FRAMES, SHOWN_PX = 16, 6, 160
RIGHTS = {"basis": "synthetic", "evidence": "whoever runs this benchmark states that these people do not exist"}
HEADER = ("model", "Mparam", "min", "to new", "to replaced", "landmarks", "flicker", "PSNR", "nearer to new")


def main() -> None:
    arguments = _arguments()
    if arguments.replaced.stem == arguments.new.stem:
        raise SystemExit("the two clips need names of their own, which are those of the people")
    work, clips = arguments.work.resolve(), {clip.stem: clip.resolve() for clip in (arguments.replaced, arguments.new)}
    if not (work / "data" / "dataset").is_dir():
        for name, clip in clips.items():
            archived = work / "archive" / clip.name if clip.stem == arguments.replaced.stem else None
            split_clip(clip, work / "footage" / f"{name}.mp4", archived)
        write_params(work, clips, {"model": "autoencoder"})
        for stage in ("inventory", "collect", "dedup", "extract", "curate"):
            run_stage(stage, work)
    print("{:20}{:>8}{:>6}{:>14}{:>14}{:>11}{:>9}{:>7}{:>18}".format(*HEADER))
    shown: list[list[RGB]] = []
    for name in arguments.models:
        frames = measured(work, clips, name)
        print(_row(work, name, frames), flush=True)
        faces = spread([frame for frame in frames if frame.measures], SHOWN_FRAMES)
        shown += [[one.face_in(one.before, 1.4) for one in faces]] if not shown else []
        shown.append([one.face_in(one.after, 1.4) for one in faces])
    columns = len(shown[0])
    write_bytes(
        work / "models.jpg",
        encode_jpeg(contact_sheet([face for row in shown for face in row], columns=columns, cell_px=SHOWN_PX)),
    )


def measured(work: Path, clips: dict[str, Path], name: str) -> list[MeasuredFrame]:
    """Trains (if it was not done before), converts the held-out seconds, and looks at some frames."""
    replaced, new = clips
    kind, _, preset = name.partition("/")
    model = work / "models" / name.replace("/", "-")
    settings = {"model": kind, "preset": preset, "save_every": 500, "evaluate_every": 500, **RUNS.get(name, {})}
    params = write_params(work, clips, settings)
    if not model.is_dir():
        run_stage("inventory", work)
        run_stage("train", work)
        kept = model.with_name(f"{TEMPORARY_PREFIX}{model.name}")
        shutil.copytree(work / "data" / "model", kept, dirs_exist_ok=True)
        shutil.copy(work / "data" / "metrics" / "train.json", kept)
        kept.rename(model)
    converted = work / "converted" / model.name
    convert_folder(parse_params(params), work / "archive", converted, model)
    references = read_json(model / "model.json")["references"]
    meter = SwapMeter(
        build_detector("hog", min_face_px=100),
        build_predictor("dlib"),
        {replaced: new},
        {name: np.asarray(rows, np.float32) for name, rows in references.items()},
        coverage=1.2,
    )
    original = work / "archive" / clips[replaced].name
    return measure_video(meter, original, next(converted.glob("*.mp4")), MEASURED_FRAMES)


def split_clip(clip: Path, footage: Path, archive: Path | None) -> None:
    """The first part of a clip and, where it is wanted, its last, each as a video that looks the same."""
    with VideoReader(clip) as reader:
        frames = [frame.rgb for frame in reader]
        rate = reader.info.fps or Fraction(25)
    end = round((1 - HELD_OUT) * len(frames))
    for target, part in ((footage, frames[:end]), (archive, frames[end:])):
        if target:
            _encode(target, part, rate)


def _encode(target: Path, frames: list[RGB], rate: Fraction) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_params(work: Path, clips: dict[str, Path], train: dict[str, Any]) -> dict[str, Any]:
    replaced, new = clips
    identities = {
        name: {
            "rights": RIGHTS,
            "references": [f"footage/{name}.mp4"],
            "sources": [
                {"kind": "video", "path": f"footage/{name}.mp4", "choose": "every", "every_s": 0.08, "max_frames": 200}
            ],
        }
        for name in clips
    }
    params = {
        "seed": 7,
        "identities": identities,
        "archive": {"kind": "folder", "path": "archive"},
        "collect": {},
        "dedup": {"hash_distance": 0, "confirm_distance": 0},
        "extract": {"detector": "hog", "min_face_px": 100},
        "curate": {},
        "train": train,
        "track": {"detector": "hog", "min_face_px": 100},
        "convert": {"becomes": {replaced: new}, "identity_distance": 0.5},
        "report": {},
    }
    write_bytes(work / "params.yaml", yaml.safe_dump(params).encode())
    return params


def _row(work: Path, name: str, frames: list[MeasuredFrame]) -> str:
    folder = work / "models" / name.replace("/", "-")
    model, _ = load_model(folder)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    minutes = read_json(folder / "train.json")["seconds"] / 60
    summary = summarize(frames)
    by = summary.medians
    return (
        f"{name:20}{millions:8.2f}{minutes:6.1f}"
        f"{by['new_before']:7.2f} → {by['new_after']:.2f}{by['replaced_before']:7.2f} → {by['replaced_after']:.2f}"
        f"{by['landmark_error']:9.1f} %{by['flicker']:9.2f}{by['psnr_outside_db']:7.1f}"
        f"{summary.closer_to_new:12} of {summary.frames}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="project folder that is made, or gone on with")
    parser.add_argument("replaced", type=Path, help="clip of the person who is replaced")
    parser.add_argument("new", type=Path, help="clip of the person who is put there")
    parser.add_argument("--models", nargs="+", default=list(RUNS), help="MODEL/PRESET")
    return parser.parse_args()


if __name__ == "__main__":
    main()
