"""One process of the stage `train`: a session prepared, its loop run and looked on at, and the model published.

Where there are several processes, `tasks.train` starts this module under torchrun; each of them does all of this, and
the first one alone evaluates, writes and speaks.

    python -m torch.distributed.run --nproc-per-node 2 -m tasks.training.process PROJECT SCRATCH PID_OF_THE_STAGE
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from facemill.device import choose_device
from facemill.errors import FacemillError
from facemill.files import read_json, write_json
from facemill.model_folder import save_model
from facemill.nets import SwapModel
from facemill.processes import ProcessId, ends_with
from facemill.swap.detail.exemplars import exemplar_table
from facemill.train.checkpoint import saved_step
from facemill.train.distributed import ALONE, Ranks, ranks_of_torchrun
from facemill.train.engine import Outcome, StopReason
from facemill.train.evaluate import in_parts, validation_losses, validation_value
from facemill.train.previews import preview_grid, write_preview
from facemill.train.session import Session, prepare_training
from tasks.catalogue import Data
from tasks.params import Params, TrainParams, load_params
from tasks.training.card import Person, model_card
from tasks.training.swap_measures import SwapMeasures
from tasks.training.weight_files import placed_options, start_folder
from tasks.work import plugin_files
from tasks.work.curves import open_curves
from tasks.work.progress import track
from tasks.work.terminal import say

OUTCOME_FILE, ERROR_FILE = "outcome.json", "error.txt"


def train_model(
    params: Params,
    root: Path,
    scratch: Path,
    meta: Mapping[str, Any],
    ranks: Ranks = ALONE,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Trains, or goes on, and writes `data/model` when it is done.

    Args:
        params: of the project.
        root: of the project; `data/dataset` is read.
        scratch: folder for checkpoints, curves and previews.
        meta: what `model.json` is to say, but for what only the model knows.
        ranks: this process among others.
        device: this process's.

    Returns:
        How it ended: step, reason, faces, metrics. Metrics only where the training is done.

    Raises:
        FacemillError: too few faces, a loss that is not finite again and again, a full disk.
    """
    train = replace(params.train, start=start_folder(params.train, root), options=placed_options(params.train, root))
    session = prepare_training(
        train, root / Data.DATASET, meta["identities"],
        crop_coverage=params.extract.coverage, seed=params.seed, ranks=ranks,
        device=device or choose_device(train.device, "train.device"),
    )  # fmt: skip
    measures = measures_of(params, root, meta["references"])
    watcher = _Watcher(session, scratch, train, measures)
    with watcher if ranks.first else ExitStack():
        for remark in session.remarks if ranks.first else ():
            watcher.say(remark)
        outcome = session.fit(
            scratch / "checkpoints",
            evaluate=watcher.evaluate, log=watcher.log, rolled_back=watcher.rolled_back, say=watcher.say,
        )  # fmt: skip
        if ranks.first:
            watcher.ended(outcome.step)
    ended = _ended(outcome) | {"faces": sum(map(sum, session.faces.values()))}
    if ranks.first and outcome.reason is not StopReason.SIGNAL:
        metrics, model = watcher.measure(), session.model
        whole = {**meta, "input_px": model.input_px, "steps": outcome.step, "training": session.objective.describe()}
        exemplars = travelling_exemplars(params, root, model, measures) if params.train.exemplars else None
        card = _card(params, session, whole, metrics, exemplars)
        save_model(root / Data.MODEL, model, whole, card, exemplars)
        ended["metrics"] = {curve(name): round(value, 5) for name, value in metrics.items()}
    return ended


def measures_of(params: Params, root: Path, references: Mapping[str, list[list[float]]]) -> SwapMeasures:
    """What swaps are measured with, by the landmarks that the faces of the dataset have.

    Args:
        references: embeddings that define each identity.
    """
    landmarks = params.extract.landmarks, plugin_files.placed_options(params.extract, root).landmarks
    return SwapMeasures(references, params.train.measured_faces, *landmarks)


def curve(metric: str) -> str:
    """`mae/anna` → `val_loss/mae/anna`, `psnr/anna` → `val_psnr/anna`: what has one scale shares a chart."""
    return f"val_loss/{metric}" if metric.startswith(("mae/", "dssim/")) else f"val_{metric}"


class _Watcher:
    """What looks on while a model learns: curves, previews, measures, progress. Used by the first process."""

    def __init__(self, session: Session, scratch: Path, train: TrainParams, measures: SwapMeasures) -> None:
        self._judged_by = session.objective.published.judged_by
        self._model, self._shown, self._train = session.model, session.shown, train
        self._curves_folder, self._previews = scratch / "curves", scratch / "previews"
        self._begun = saved_step(scratch / "checkpoints")
        self._measures = measures
        self._stack, self._opened = ExitStack(), ExitStack()

    def __enter__(self) -> _Watcher:
        begun = f"goes on after step {self._begun}" if self._begun else "begins"
        say(f"The training {begun}; its previews are in {self._previews}.")
        self._progress = self._stack.enter_context(track("train", self._train.steps, "steps", self._begun))
        self._open_curves(self._begun)
        return self

    def __exit__(self, *details: object) -> None:
        self._opened.close()
        self._stack.close()

    def evaluate(self, step: int) -> float:
        """A preview and a point on each validation curve; the number whose fall is looked for."""
        losses = self.measure()
        self._curves.log(step, {curve(name): value for name, value in losses.items()})
        write_preview(self._previews / f"step-{step:06d}.jpg", preview_grid(self._model, self._shown))
        return validation_value(losses, self._judged_by)

    def measure(self) -> dict[str, float]:
        """Drawn as themselves, and swapped."""
        return validation_losses(self._model, self._shown) | self._measures(self._model, self._shown)

    def log(self, step: int, losses: Mapping[str, float]) -> None:
        """A point on each training curve."""
        self._curves.log(step, {f"train_loss/{name}": value for name, value in losses.items()})
        self._progress.advance(step - self._progress.done, f"loss {sum(losses.values()) / len(losses):.4f}")

    def rolled_back(self, step: int) -> None:
        """Curves and previews go back as the weights did."""
        self._open_curves(step)
        self._progress.advance(step - self._progress.done)

    def ended(self, step: int) -> None:
        """The last line tells the last step, between two points of the curves as well."""
        self._progress.advance(step - self._progress.done)

    def say(self, line: str) -> None:
        """For the log."""
        say(f"train: {line}")

    def _open_curves(self, step: int) -> None:
        for path in self._previews.glob("step-*.jpg"):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()
        self._opened.close()
        self._curves = self._opened.enter_context(open_curves(self._curves_folder, step))


def _ended(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "reason": str(outcome.reason)}


def travelling_exemplars(params: Params, root: Path, model: SwapModel, measures: SwapMeasures) -> pa.Table:
    """Pictures of everybody whom a model draws, as many as the settings say. Where landmarks are not to be looked for
    in what it draws, since nothing is measured, nothing is said of where they lie.

    Args:
        root: of the project; `data/dataset` is read.
        model: in any mode; it is left in the mode it was in.
        measures: finds landmarks in what it draws.
    """
    device = next(model.parameters(), torch.empty(0)).device

    def draw(crops: npt.NDArray[np.uint8], identity: str) -> npt.NDArray[np.float32]:
        batch = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 255  # (N, 3, P, P)
        with torch.inference_mode():
            drawn = in_parts(partial(model, identity=identity), batch)
        return np.asarray(drawn.float().permute(0, 2, 3, 1).cpu().numpy(), np.float32)

    was_training = model.training
    model.eval()
    table = exemplar_table(
        root / Data.DATASET,
        {name: params.identities[name].rights.basis for name in model.identities},
        params.train.exemplars,
        draw,
        input_px=model.input_px,
        coverage=params.train.coverage,
        find=measures.find if params.train.measured_faces else None,
    )
    model.train(was_training)
    return table


def _card(
    params: Params, session: Session, meta: Mapping[str, Any], metrics: Mapping[str, float], exemplars: pa.Table | None
) -> str:
    model, plan, used = session.model, session.plan, session.used
    travelling = Counter[tuple[str, str]]()
    if exemplars is not None:
        travelling.update(zip(exemplars["identity"].to_pylist(), exemplars["rights"].to_pylist(), strict=True))
    people = [
        Person(
            name,
            params.identities[name].rights.basis,
            "; ".join([params.identities[name].rights.evidence, *params.identities[name].exceptions]),
            *session.faces[name],
            exemplars={rights: count for (whose, rights), count in sorted(travelling.items()) if whose == name},
        )
        for name in model.identities
    ]
    chosen = {
        "learning_rate": plan.learning_rate,
        "ema_decay": plan.ema_decay,
        "device": used.device.type,
        "precision": "fp32" if used.autocast_dtype is None else "bf16",
        "layout": "channels_last" if used.memory_format == torch.channels_last else "contiguous",
        "compile": used.compile,
    }
    settings = params.train.plain() | chosen | {"seed": params.seed}
    return model_card(meta, sum(p.numel() for p in model.parameters()), people, settings, metrics)


def main(root: Path, scratch: Path, stage: ProcessId) -> None:
    """One of several processes. The first to fail leaves its message for the one that started them all."""
    params = load_params(root)
    try:
        # GPUs are not left busy where the stage was killed too suddenly to pass a signal on
        with (
            ends_with([stage]),
            ranks_of_torchrun(choose_device(params.train.device, "train.device")) as (ranks, device),
        ):
            ended = train_model(params, root, scratch, read_json(scratch / "meta.json"), ranks, device)
    except FacemillError as error:
        (scratch / ERROR_FILE).write_text(str(error), encoding="utf-8")
        raise SystemExit(1) from error
    if ranks.first:
        write_json(scratch / OUTCOME_FILE, ended)


if __name__ == "__main__":
    started_by = ProcessId.parse(sys.argv[3])
    if started_by is None:
        raise SystemExit(f"{sys.argv[3]} is no process")
    main(Path(sys.argv[1]), Path(sys.argv[2]), started_by)
