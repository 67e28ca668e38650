"""A whole training of DSFD: a folder of annotated pictures in, a detector with its curve and its numbers out.

    output/recipe.json       what decides the weights; other settings in the same folder are refused
    output/checkpoints/      to go on from after a kill, to the same weights
    output/curve.jsonl       a line for each report (losses) and each evaluation (AP on held-out pictures)
    output/detector/         weights.safetensors and model.json, for `build_detector("dsfd", weights=…)`
    output/metrics.json      held-out numbers before and after

The held-out fifth (`facemill.detector_training.annotations.split`) is never trained on.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from facemill.detect.dsfd import DsfdDetector, load_detector, save_detector
from facemill.detector_training.annotations import AnnotatedPicture, split, survey_annotations
from facemill.detector_training.data import DetectionFeed, default_workers
from facemill.detector_training.engine import DetectionObjective, level_weights
from facemill.detector_training.evaluate import evaluate
from facemill.detector_training.settings import DetectorTraining
from facemill.device import choose_device, settings_for
from facemill.errors import FacemillError
from facemill.files import read_json, sweep, write_bytes, write_json
from facemill.nets.dsfd import Dsfd, DsfdConfig, load_vgg16
from facemill.train.checkpoint import saved_step
from facemill.train.engine import Outcome, StopReason, fit
from facemill.train.objectives import OptimizerSettings

CURVE_THRESHOLD = 0.01
"""Smallest probability of a detection in a precision-recall curve, as evaluations of the field have it."""
_FREE = ("deadline_s", "plateau", "device", "workers", "save_every", "keep_checkpoints", "log_every")
"""Fields that may change between two runs of one training: they do not decide the weights."""
_LEVEL_PICTURES = 8


@dataclass(frozen=True)
class Trained:
    """How a training ended. Without `metrics` it was told to end before it was finished, and goes on when run again."""

    outcome: Outcome
    metrics: dict[str, Any] | None
    folder: Path


def train_detector(
    folder: Path, output: Path, settings: DetectorTraining, tell: Callable[[str], None] = print
) -> Trained:
    """Trains DSFD on a folder of annotated pictures, or goes on with a training that was killed.

    Args:
        folder: see `survey_annotations` for the formats.
        output: of this training alone.
        settings: what decides the weights.
        tell: gets a line for each thing worth knowing.

    Raises:
        FacemillError: nothing usable in the folder, `output` holds a training with other settings, a loss that stays
            not finite, start weights that do not fit, a full disk.
    """
    survey = survey_annotations(folder)
    trained, held_out = split(survey.pictures)
    trained = trained[: settings.max_pictures]
    tell(f"{survey.describe()}; {len(trained)} pictures to train on, {len(held_out)} held out")
    if not trained or not held_out:
        raise FacemillError(f"{folder} has too few pictures: {len(trained)} to train on, {len(held_out)} held out")
    _claim(output, settings)
    torch.manual_seed(settings.seed)
    device = choose_device(settings.device, "--device")
    workers = default_workers(device) if settings.workers is None else settings.workers
    feed = _feed(trained, settings, workers, device)
    model, from_scratch = _fresh_model(settings, trained)
    used = settings_for(device, sum(p.numel() for p in model.parameters()), settings)
    used.place(model)
    checkpoints = output / "checkpoints"
    curve = MeasureLog(output / "curve.jsonl", saved_step(checkpoints) if checkpoints.is_dir() else None)
    some = held_out[: settings.evaluate_pictures]

    def measure(step: int, pictures: Sequence[AnnotatedPicture] = some) -> dict[str, float]:
        report = evaluate(_detector(model, device), pictures, min_side_px=settings.min_side_px, threshold=0.5)
        tell(f"step {step}, {len(pictures)} held-out pictures: {report.describe()}")
        return report.numbers

    def on_evaluate(step: int) -> float:
        numbers = measure(step)
        curve.add(step, numbers)
        return 1 - numbers["ap"]

    def on_log(step: int, losses: Mapping[str, float]) -> None:
        curve.add(step, {**losses, "loss": sum(losses.values()), "rate": settings.rate(step - 1)})
        parts = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        tell(f"step {step}/{settings.steps}: loss {sum(losses.values()):.3f} ({parts})")

    if not curve.has("ap"):
        on_evaluate(0)
    try:
        kind: Literal["adam", "sgd"] = "sgd" if settings.optimizer == "sgd" else "adam"
        optimizer = OptimizerSettings(kind=kind, weight_decay=settings.weight_decay)
        objective = DetectionObjective(model, optimizer, from_scratch=from_scratch)
        outcome = fit(objective, feed, settings, checkpoints, used, evaluate=on_evaluate, log=on_log)
    finally:
        feed.close()
    for name, why in sorted(feed.unreadable.items()):
        tell(f"unreadable, others were taken in its place: {name}: {why}")
    if outcome.reason is StopReason.SIGNAL:
        return Trained(outcome, None, output)
    metrics = {
        "steps": outcome.step,
        "seconds": round(outcome.seconds, 1),
        "stopped_by": str(outcome.reason),
        "before": curve.first("ap"),
        "after": curve.last("ap"),
        "after_on_all": measure(outcome.step, held_out),
    }
    save_detector(output / "detector", model, {"training": settings.plain(), "metrics": metrics})
    write_json(output / "metrics.json", metrics)
    return Trained(outcome, metrics, output)


class MeasureLog:
    """Numbers by step, one JSON object a line; goes on where a killed run was as if it had never stopped."""

    def __init__(self, path: Path, step: int | None) -> None:
        """step: of the checkpoint that the run goes on from, beyond which lines are cut off; None: a fresh run."""
        self._path = path
        self.rows: list[dict[str, float]] = []
        if step is not None and path.is_file():
            self.rows = [row for row in map(_row, path.read_text(encoding="utf-8").splitlines()) if row]
            self.rows = [row for row in self.rows if row["step"] <= step]

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line; what a run that went back to an earlier step had written beyond it is dropped."""
        self.rows = [row for row in self.rows if row["step"] <= step]
        self.rows.append({"step": step, **{name: round(float(value), 6) for name, value in values.items()}})
        write_bytes(self._path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())

    def has(self, name: str) -> bool:
        """Whether any step has a number of this name."""
        return any(name in row for row in self.rows)

    def first(self, name: str) -> dict[str, float]:
        """The numbers of the first step that has one of this name."""
        return next(row for row in self.rows if name in row)

    def last(self, name: str) -> dict[str, float]:
        """The numbers of the last step that has one of this name."""
        return next(row for row in reversed(self.rows) if name in row)


def _claim(output: Path, settings: DetectorTraining) -> None:
    """Writes the settings down, or checks that they are those that the folder was begun with."""
    output.mkdir(parents=True, exist_ok=True)
    sweep(output)
    path = output / "recipe.json"
    wanted = settings.plain()
    if path.is_file():
        begun = read_json(path)
        other = [key for key in wanted if key not in _FREE and wanted[key] != begun.get(key)]
        if other:
            told = ", ".join(f"{key} was {begun.get(key)!r} and is {wanted[key]!r}" for key in other)
            raise FacemillError(f"{output} holds a training with other settings ({told}): name another output folder")
    write_json(path, wanted)


def _feed(
    pictures: Sequence[AnnotatedPicture], settings: DetectorTraining, workers: int, device: torch.device
) -> DetectionFeed:
    return DetectionFeed(
        pictures,
        settings.input_px,
        settings.batch,
        settings.sampling,
        seed=settings.seed,
        workers=workers,
        device=device,
    )


def _fresh_model(settings: DetectorTraining, pictures: Sequence[AnnotatedPicture]) -> tuple[Dsfd, bool]:
    """The net before its first step, on the CPU, and whether it starts from nothing."""
    if settings.start is not None:
        return load_detector(settings.start), False
    model = Dsfd(DsfdConfig(aspect=settings.aspect, match_iou=settings.match_iou, width=settings.width))
    if settings.vgg16 is not None:
        path = settings.vgg16 if isinstance(settings.vgg16, Path) else None
        load_vgg16(model, path, sha256=settings.vgg16_sha256)
    few = DetectionFeed(pictures, settings.input_px, _LEVEL_PICTURES, settings.sampling, seed=settings.seed)
    level_weights(model, few.draw().pictures, backbone=settings.vgg16 is None)
    return model, settings.vgg16 is None


def _detector(model: Dsfd, device: torch.device) -> DsfdDetector:
    """A detector with a copy of the net: evaluation changes its precision, layout and mode."""
    return DsfdDetector(copy.deepcopy(model), device=str(device), threshold=CURVE_THRESHOLD)


def _row(line: str) -> dict[str, float] | None:
    """A line of the curve; None for one that a full disk cut short."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and "step" in row else None
