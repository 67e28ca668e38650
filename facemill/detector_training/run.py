"""A whole training of DSFD: a folder of annotated pictures in, a detector with its curve and its numbers out.

    output/recipe.json       what decides the weights; another recipe in the same folder is refused
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from facemill.detect.dsfd import DsfdDetector, load_detector, save_detector
from facemill.detector_training.annotations import Annotated, split, survey_annotations
from facemill.detector_training.augment import Sampling
from facemill.detector_training.data import DetectionFeed, default_workers
from facemill.detector_training.engine import (
    PAPER_SCHEDULE,
    DetectionObjective,
    DetectionPlan,
    Schedule,
    level_weights,
)
from facemill.detector_training.evaluate import evaluate
from facemill.device import choose_device, settings_for
from facemill.errors import FacemillError
from facemill.files import read_json, sweep, write_bytes, write_json
from facemill.nets.dsfd import Dsfd, DsfdConfig, load_vgg16
from facemill.train.checkpoint import saved_step
from facemill.train.engine import Outcome, StopReason, fit
from facemill.train.objectives import OptimizerSettings

CURVE_THRESHOLD = 0.01
"""Smallest probability of a detection in a precision-recall curve, as evaluations of the field have it."""
DOWNLOAD = "download"
_FREE = ("deadline_s", "device", "workers", "save_every", "log_every")
"""Keys that may change between two runs of one training: they do not decide the weights."""
_LEVEL_PICTURES = 8


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training; the defaults are the paper's, for one GPU."""

    steps: int = 60_000
    batch: int = 16
    input_px: int = 640
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 1e-3
    weight_decay: float = 5e-4
    warmup_steps: int = 500
    schedule: Schedule = PAPER_SCHEDULE
    clip_norm: float | None = 10.0
    recoveries: int = 5
    """How often a loss that is not finite leads back to the last checkpoint, at half the rate."""
    width: float = 1.0
    aspect: float = 1.5
    match_iou: float = 0.4
    vgg16: str | None = None
    """Start weights of the backbone: a file, or "download" for torch's own. None trains from scratch."""
    vgg16_sha256: str | None = None
    start: str | None = None
    """A detector folder or file to go on training from, in place of fresh weights; its own width and priors count."""
    sampling: Sampling = field(default_factory=Sampling)
    max_pictures: int | None = None
    """Train on the first so many of the training pictures only."""
    evaluate_every: int = 2000
    evaluate_pictures: int | None = 200
    """Held-out pictures of the evaluations on the way; the last evaluation takes them all."""
    min_side_px: float = 16
    """Smaller faces are neither right nor wrong in the evaluation."""
    seed: int = 0
    deadline_s: float | None = None
    """Of training, over all runs."""
    device: str = "auto"
    workers: int | None = None
    """Processes that make training pictures; None chooses by device."""
    save_every: int = 500
    log_every: int = 20


@dataclass(frozen=True)
class Trained:
    """How a training ended. Without `metrics` it was told to end before it was finished, and goes on when run again."""

    outcome: Outcome
    metrics: dict[str, Any] | None
    folder: Path


def train_detector(folder: Path, output: Path, recipe: Recipe, tell: Callable[[str], None] = print) -> Trained:
    """Trains DSFD on a folder of annotated pictures, or goes on with a training that was killed.

    Args:
        folder: see `survey_annotations` for the formats.
        output: of this training alone.
        recipe: what decides the weights.
        tell: gets a line for each thing worth knowing.

    Raises:
        FacemillError: nothing usable in the folder, `output` holds a training with another recipe, a loss that stays
            not finite, start weights that do not fit, a full disk.
    """
    survey = survey_annotations(folder)
    trained, held_out = split(survey.pictures)
    trained = trained[: recipe.max_pictures]
    tell(f"{survey.describe()}; {len(trained)} pictures to train on, {len(held_out)} held out")
    if not trained or not held_out:
        raise FacemillError(f"{folder} has too few pictures: {len(trained)} to train on, {len(held_out)} held out")
    _claim(output, recipe)
    torch.manual_seed(recipe.seed)
    device = choose_device(recipe.device, "--device")
    workers = default_workers(device) if recipe.workers is None else recipe.workers
    feed = _feed(trained, recipe, workers, device)
    model, from_scratch = _fresh_model(recipe, trained)
    settings = settings_for(device, sum(p.numel() for p in model.parameters()))
    settings.place(model)
    checkpoints = output / "checkpoints"
    curve = MeasureLog(output / "curve.jsonl", saved_step(checkpoints) if checkpoints.is_dir() else None)
    some = held_out[: recipe.evaluate_pictures]

    def measure(step: int, pictures: Sequence[Annotated] = some) -> dict[str, float]:
        report = evaluate(_detector(model, device), pictures, min_side_px=recipe.min_side_px, threshold=0.5)
        tell(f"step {step}, {len(pictures)} held-out pictures: {report.describe()}")
        return report.numbers

    def on_evaluate(step: int) -> None:
        curve.add(step, measure(step))

    def on_log(step: int, losses: Mapping[str, float]) -> None:
        curve.add(step, {**losses, "loss": sum(losses.values()), "rate": plan.rate(step - 1)})
        parts = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        tell(f"step {step}/{recipe.steps}: loss {sum(losses.values()):.3f} ({parts})")

    plan = _plan(recipe)
    if not curve.has("ap"):
        on_evaluate(0)
    try:
        kind: Literal["adam", "sgd"] = "sgd" if recipe.optimizer == "sgd" else "adam"
        optimizer = OptimizerSettings(kind=kind, weight_decay=recipe.weight_decay)
        objective = DetectionObjective(model, optimizer, from_scratch=from_scratch)
        outcome = fit(objective, feed, plan, checkpoints, settings, evaluate=on_evaluate, log=on_log)
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
    save_detector(output / "detector", model, {"recipe": asdict(recipe), "metrics": metrics})
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


def _claim(output: Path, recipe: Recipe) -> None:
    """Writes down the recipe, or checks that it is the one that the folder was begun with."""
    output.mkdir(parents=True, exist_ok=True)
    sweep(output)
    path = output / "recipe.json"
    wanted = json.loads(json.dumps(asdict(recipe)))
    if path.is_file():
        begun = read_json(path)
        other = [key for key in wanted if key not in _FREE and wanted[key] != begun.get(key)]
        if other:
            told = ", ".join(f"{key} was {begun.get(key)!r} and is {wanted[key]!r}" for key in other)
            raise FacemillError(f"{output} holds a training with another recipe ({told}): name another output folder")
    write_json(path, wanted)


def _plan(recipe: Recipe) -> DetectionPlan:
    return DetectionPlan(
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        deadline_s=recipe.deadline_s,
        warmup_steps=recipe.warmup_steps,
        schedule=recipe.schedule,
        clip_norm=recipe.clip_norm,
        rollbacks=recipe.recoveries,
        save_every=recipe.save_every,
        evaluate_every=recipe.evaluate_every,
        log_every=recipe.log_every,
    )


def _feed(pictures: Sequence[Annotated], recipe: Recipe, workers: int, device: torch.device) -> DetectionFeed:
    return DetectionFeed(
        pictures, recipe.input_px, recipe.batch, recipe.sampling, seed=recipe.seed, workers=workers, device=device
    )


def _fresh_model(recipe: Recipe, pictures: Sequence[Annotated]) -> tuple[Dsfd, bool]:
    """The net before its first step, on the CPU, and whether it starts from nothing."""
    if recipe.start is not None:
        if recipe.vgg16 is not None:
            raise FacemillError("a training starts from a detector or from VGG16's weights, not from both")
        return load_detector(Path(recipe.start)), False
    model = Dsfd(DsfdConfig(aspect=recipe.aspect, match_iou=recipe.match_iou, width=recipe.width))
    if recipe.vgg16 is not None:
        path = None if recipe.vgg16 == DOWNLOAD else Path(recipe.vgg16)
        load_vgg16(model, path, sha256=recipe.vgg16_sha256)
    few = DetectionFeed(pictures, recipe.input_px, _LEVEL_PICTURES, recipe.sampling, seed=recipe.seed)
    level_weights(model, few.draw().pictures, backbone=recipe.vgg16 is None)
    return model, recipe.vgg16 is None


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
