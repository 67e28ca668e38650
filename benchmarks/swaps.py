"""The swap itself by landmark predictor: the same training on crops of each, the same clips converted with each.

    python benchmarks/swaps.py WORK --mesh WEIGHTS                          # the sample people of params.yaml
    python benchmarks/swaps.py WORK --mesh WEIGHTS --clips vasa3.mp4 vasa5.mp4   # the first becomes the second

Each predictor has a project of its own below WORK: the same pictures, seed, preset and steps, crops and tracks by its
own points. Clips are cut as benchmarks/models.py cuts them, and its last seconds are what is converted. A second call
measures again what is there; remove WORK to begin anew.

Who judges a predictor must not be that predictor. So the landmark error (how far the face moved by the swap, in % of
the distance of the eyes) is that of MTCNN's five points, which neither project used, and whatever needs 68 points is
told twice, as either predictor sees it. Of all frames with a swap some are measured; medians, and 95 % of the error:

    to new, to replaced     distance of the embedding (one person: under 0.6), before → after, and how many frames are
                            nearer to the new person
    landmark error          five points, before to after
    flicker, PSNR outside   as facemill.measures has them
    sharpness               variance of the Laplacian in the face, after over before (facemill.quality)
    trembling               of the tracked points that the swap is laid on: mean second difference over time, in % of
                            the distance of the eyes; of the sample people what exceeds their true motion
    processor               seconds of the stages that look for points, and of the training, all in one process

WORK/swaps.jpg shows the same frames of each: originals, then a row for each predictor.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch
import yaml
from models import RUNS, split_clip, write_params

from facemill import tables
from facemill.align import crop_affine, warp
from facemill.boxes import LANDMARK_BOXES, around
from facemill.detect import Detector, build_detector
from facemill.files import read_json, write_bytes, write_json
from facemill.landmarks import LandmarkPredictor, build_predictor
from facemill.measures import spread
from facemill.pictures import RGB, encode_jpeg
from facemill.quality import sharpness
from facemill.schema import CONVERSIONS, TRACK_POINTS, ConversionRow
from facemill.sheets import contact_sheet
from facemill.sources.sample.videos import write_archive_video
from facemill.swap_meter import MeasuredFrame, SwapMeter, measure_video, summarize
from tasks.catalogue import Data
from tasks.stages import run_stage

STAGES = ("inventory", "collect", "dedup", "extract", "curate", "train", "track", "convert")
TIMED = ("extract", "train", "track")
PROJECT = Path(__file__).resolve().parent.parent
FRAMES, SHOWN_FRAMES, SHOWN_PX = 32, 8, 160
CROP_PX, COVERAGE = 256, 1.2
LEAST_FRAMES = 20  # of a track whose trembling is measured
PREDICTORS = ("dlib", "mesh")
Points = npt.NDArray[np.float64]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(2)
    cv2.setNumThreads(1)
    work, mesh = arguments.work.resolve(), arguments.mesh.resolve()
    options: dict[str, dict[str, Any]] = {"dlib": {}, "mesh": {"weights": str(mesh)}}
    spent = {name: make(work / name, name, options[name], arguments) for name in arguments.only}
    if len(spent) < len(PREDICTORS):
        return
    judges = {name: build_predictor(name, **options[name]) for name in PREDICTORS}
    shown: list[RGB] = []
    for name in PREDICTORS:
        project = work / name
        measured = measure(project, work, judges)
        print(f"== crops, training and tracks by {name}")
        for judge, frames in measured.items():
            print(f"{judge:5s} sees  {_identity(frames)}")
        frames = measured["dlib"]
        print(_looks(frames, judges["dlib"]))
        print(f"trembling of the tracked points {np.median([*trembling(project, arguments)]):.2f} %")
        print(
            "processor " + ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in spent[name].items()), flush=True
        )
        faces = spread([frame for frame in frames if frame.measures], SHOWN_FRAMES)
        shown += [one.face_in(one.before, 1.4) for one in faces] if not shown else []
        shown += [one.face_in(one.after, 1.4) for one in faces]
    write_bytes(work / "swaps.jpg", encode_jpeg(contact_sheet(shown, columns=SHOWN_FRAMES, cell_px=SHOWN_PX)))


def make(project: Path, name: str, options: dict[str, Any], arguments: argparse.Namespace) -> dict[str, float]:
    """Runs the stages of a project that is not there yet; seconds of processor of those in `TIMED`."""
    times = project / "times.json"
    if not times.exists():
        for clip in arguments.clips:
            archived = project / "archive" / clip.name if clip == arguments.clips[0] else None
            split_clip(clip, project / "footage" / f"{clip.stem}.mp4", archived)
        params = _params(arguments, project, name, options)
        write_bytes(project / "params.yaml", yaml.safe_dump(params, sort_keys=False).encode())
        spent = {}
        for stage in STAGES:
            before = _processor_s()
            run_stage(stage, project)
            spent[stage] = _processor_s() - before
        write_json(times, {stage: spent[stage] for stage in TIMED})
    known: dict[str, float] = read_json(times)
    return known


def measure(project: Path, work: Path, judges: Mapping[str, LandmarkPredictor]) -> dict[str, list[MeasuredFrame]]:
    """The swapped frames of a project as each predictor sees them; each has references of its own, from the model that
    was trained on its points."""
    replaced, new = next(iter(_params_of(project)["convert"]["becomes"].items()))
    videos = _swapped(project)
    found: dict[str, list[MeasuredFrame]] = {}
    for name, judge in judges.items():
        references = read_json(work / name / Data.MODEL_META)["references"]
        vectors = {who: np.asarray(rows, np.float32) for who, rows in references.items()}
        meter = SwapMeter(_mtcnn(), judge, {replaced: new}, vectors, coverage=COVERAGE)
        found[name] = []
        for row in videos:
            original, converted = _archive(project) / row["video"], project / Data.CONVERTED / str(row["output"])
            found[name] += measure_video(meter, original, converted, FRAMES // len(videos), row["frames_swapped"])
    return found


def _identity(frames: list[MeasuredFrame]) -> str:
    """What depends on who aligns the face for the embedding."""
    summary = summarize(frames)
    by = summary.medians
    return (
        f"to new {by['new_before']:.3f} → {by['new_after']:.3f}  "
        f"to replaced {by['replaced_before']:.3f} → {by['replaced_after']:.3f}  "
        f"nearer to new {summary.closer_to_new} of {summary.frames}  own landmark error {by['landmark_error']:.2f} %  "
        f"without a face {summary.no_output_face}"
    )


def _looks(frames: list[MeasuredFrame], judge: LandmarkPredictor) -> str:
    """Measures that are alike whoever judges: the landmark error by MTCNN, flicker, sharpness, PSNR outside."""
    errors, sharper = [], []
    for frame in (frame for frame in frames if frame.measures and frame.box_xyxy):
        fives = [_five(picture, frame.box_xyxy or ()) for picture in (frame.before, frame.after)]
        if fives[0] is not None and fives[1] is not None:
            eyes = np.linalg.norm(fives[0][0] - fives[0][1])
            errors.append(100 * float(np.linalg.norm(fives[1] - fives[0], axis=1).mean() / eyes))
        points = judge.predict(frame.before, np.array([frame.box_xyxy]), LANDMARK_BOXES)[0]
        affine = crop_affine(points, CROP_PX, COVERAGE)
        before, after = (sharpness(warp(each, affine, CROP_PX), COVERAGE) for each in (frame.before, frame.after))
        sharper.append(after / before)
    by = summarize(frames).medians
    return (
        f"landmark error by MTCNN {np.median(errors):.2f} % (95 % {np.quantile(errors, 0.95):.2f}, "
        f"{len(errors)} frames)  flicker {by['flicker']:.2f}  "
        f"sharpness {np.median(sharper):.2f}  outside {by['psnr_outside_db']:.1f} dB"
    )


def trembling(project: Path, arguments: argparse.Namespace) -> Iterator[float]:
    """Of each track in the swapped videos, what remains of its points' motion when the true one is taken off."""
    for row in _swapped(project):
        truths = {} if arguments.clips else true_points(row["video"], arguments.seconds, _params_of(project)["seed"])
        part = tables.read_part(project / Data.TRACK_POINTS / f"{row['input_sha256'][:32]}.parquet", TRACK_POINTS)
        for track in pc.unique(part["track"]).to_pylist():
            rows = part.filter(pc.equal(part["track"], track)).sort_by("pts")
            points = tables.matrix(rows, "points", (68, 2)).astype(np.float64)
            if len(points) < LEAST_FRAMES:
                continue
            eyes = np.linalg.norm(points[:, 36] - points[:, 45], axis=1).mean()
            if truths:
                points = points - min((truth[: len(points)] for truth in truths), key=lambda one: _away(one, points))
            second = np.linalg.norm(np.diff(points[:, 17:], n=2, axis=0), axis=2).mean(axis=1)
            yield float(100 * np.median(second) / eyes)


def true_points(video: str, seconds: float, seed: int) -> list[Points]:
    """(T, 68, 2) of each person in a video of the sample archive."""
    with TemporaryDirectory() as folder:
        truth = write_archive_video(Path(folder), video, seconds, seed)
    return [np.array(shown, np.float64) for shown in truth.landmarks.values() if all(one is not None for one in shown)]


def _away(truth: Points, points: Points) -> float:
    return float(np.abs(truth - points).mean()) if len(truth) == len(points) else np.inf


def _five(picture: RGB, box_xyxy: Iterable[float]) -> Points | None:
    """MTCNN's five points of the face in a box, from its surroundings."""
    left, top, right, bottom = around(picture.shape, [*box_xyxy], margin=2.0)
    faces = _mtcnn().detect([np.ascontiguousarray(picture[top:bottom, left:right])])[0]
    if not len(faces) or faces.points5 is None:
        return None
    largest: Points = faces.points5[int(faces.size_px.argmax())].astype(np.float64)
    return largest + [left, top]


@lru_cache(maxsize=1)
def _mtcnn() -> Detector:
    return build_detector("mtcnn", min_face_px=60)


def _swapped(project: Path) -> list[ConversionRow]:
    rows = tables.iterate_rows(project / Data.CONVERSIONS, CONVERSIONS)
    return [row for row in rows if row["status"] == "ok" and row["frames_swapped"]]


def _archive(project: Path) -> Path:
    return project / (Data.ARCHIVE if _params_of(project)["archive"]["kind"] == "sample" else "archive")


def _params_of(project: Path) -> dict[str, Any]:
    known: dict[str, Any] = yaml.safe_load((project / "params.yaml").read_text())
    return known


def _params(arguments: argparse.Namespace, project: Path, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the repository, or for two clips those of benchmarks/models.py, with the predictor's name in them."""
    if arguments.clips:
        replaced, new = arguments.clips
        train = {"model": "autoencoder", "preset": "small", "save_every": 500, "evaluate_every": 500}
        clips = {clip.stem: clip for clip in (replaced, new)}
        params: dict[str, Any] = write_params(project, clips, train | RUNS["autoencoder/small"])
    else:
        params = yaml.safe_load((PROJECT / "params.yaml").read_text())
        params["archive"]["seconds"] = arguments.seconds
    if arguments.steps:
        params["train"] |= {"steps": arguments.steps, "save_every": arguments.steps, "evaluate_every": arguments.steps}
    for group in ("extract", "track"):
        params[group] |= {"landmarks": name, "landmark_options": options}
    return params | {"cluster": {"kind": "inline"}}


def _processor_s() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder of the two projects, which are made or measured again")
    parser.add_argument("--mesh", type=Path, required=True, help="weights of the predictor `mesh`")
    parser.add_argument("--clips", type=Path, nargs=2, default=[], help="who is replaced, and who becomes it")
    parser.add_argument("--steps", type=int, help="of the training; else those of params.yaml, or of models.py")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each sample video")
    parser.add_argument("--only", nargs="+", choices=PREDICTORS, default=PREDICTORS, help="make these, measure nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
