"""Stage `train`: table `dataset` -> `data/model` (weights, description, references), `data/train` (curves, previews).

Checkpoints, curves and previews grow in the scratch folder, keyed by parameters, code and dataset: kill the stage at
any moment and the next run goes on to the same weights, curves and pictures. They are published when the training is
done. While it runs, `.work/train/…/previews` shows how far it is.

Every identity of the dataset must be named in params.yaml, and an identity there cannot be without `rights`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import folder_sha256, sweep
from facemill.nets import SwapModel, build_model
from facemill.reasons import State
from facemill.schema import DATASET
from facemill.train.augment import Augmentation
from facemill.train.checkpoint import save_model, saved_step
from facemill.train.data import FaceSet, Feed, View, load_faces
from facemill.train.device import DeviceSettings, choose_device, settings_for
from facemill.train.engine import Outcome, Plan, StopReason, fit
from facemill.train.evaluate import validation_losses
from facemill.train.objectives import build_objective
from facemill.train.previews import preview_grid, write_preview
from tasks import shards
from tasks.curves import open_curves
from tasks.params import Params
from tasks.progress import track
from tasks.shards import Totals, Work

CODE = (
    "facemill/align.py",
    "facemill/nets",
    "facemill/pictures.py",
    "facemill/registration.py",
    "facemill/schema.py",
    "facemill/train",
    "tasks/curves.py",
    "tasks/train.py",
)
"""What decides the weights; dvc.yaml has the same list."""
MIN_FACES = 2
"""Of each identity: with a single one there is nothing to learn but that picture."""


def run(params: Params, root: Path, *, retry: bool = False) -> Totals:
    """Trains, or goes on with a training that was killed, and publishes the model.

    Raises:
        FacemillError: no dataset, fewer than two identities or too few faces, a loss that is not finite, a full disk.
        KeyboardInterrupt: told to end; the state was saved, the same command goes on from it.
    """
    start = time.monotonic()
    dataset = root / "data" / "dataset"
    fingerprint = folder_sha256(dataset)
    work = _open_work(root, params, fingerprint)
    torch.manual_seed(params.seed)
    references = load_references(dataset)
    model = build_model(params.train.model, params.train.preset, _identities(params, dataset, references))
    view = View(input_px=model.input_px, crop_coverage=params.extract.coverage, train_coverage=params.train.coverage)
    trained, held_out = (load_faces(dataset, split, view) for split in ("train", "val"))
    check_faces(trained, model.identities)
    settings = settings_for(choose_device(params.train.device), sum(p.numel() for p in model.parameters()))
    settings.place(model)
    outcome = _train(model, trained, held_out, params, settings, work)
    if outcome.reason is StopReason.SIGNAL:
        print(
            f"train: told to end; step {outcome.step} of {params.train.steps} is saved, the same command goes on",
            flush=True,
        )
        raise KeyboardInterrupt
    save_model(root / "data" / "model", model, _describe(params, model, outcome, fingerprint, references))
    _publish(work, root / "data" / "train")
    faces = sum(len(faces) for faces in (*trained.values(), *held_out.values()))
    extra = _metrics(outcome, model, held_out or trained)
    return shards.finish(root, Totals("train", faces, {State.OK: {"": faces}}, time.monotonic() - start, extra=extra))


def load_references(dataset: Path) -> dict[str, list[list[float]]]:
    """The embeddings that define each identity, in the order of the table."""
    found: dict[str, list[list[float]]] = {}
    for row in tables.iterate_rows(dataset, DATASET, ["identity", "reference", "embedding"]):
        if row["reference"] and row["embedding"] is not None:
            found.setdefault(row["identity"], []).append(row["embedding"])
    return found


def check_faces(sets: Mapping[str, FaceSet], identities: tuple[str, ...]) -> None:
    """Raises FacemillError for an identity with too few faces to train on."""
    for identity in identities:
        count = len(sets[identity]) if identity in sets else 0
        if count < MIN_FACES:
            raise FacemillError(
                f"identity {identity!r} has {count} accepted training face(s), at least {MIN_FACES} are needed: give "
                "it more sources, or loosen the limits of `curate` (data/dataset has a reason in each rejected row)"
            )


def _open_work(root: Path, params: Params, dataset: str) -> Work:
    """The scratch folder of this training. Other code than its own does not count: a new report costs no model."""
    key = shards.fingerprint(
        code=shards.code_version(*CODE),
        train=params.train.model_dump(),
        seed=params.seed,
        coverage=params.extract.coverage,
        dataset=dataset,
    )
    folder = root / shards.WORK_FOLDER / "train" / key[:16]
    sweep(folder)
    return Work("train", key, folder)


def _identities(params: Params, dataset: Path, references: Mapping[str, Any]) -> list[str]:
    """Who is in the dataset, in alphabetical order: all stated in params.yaml, at least two, with references."""
    table = tables.read_table(dataset, DATASET, ["identity", "status"])
    pairs = zip(table["identity"].to_pylist(), table["status"].to_pylist(), strict=True)
    found = sorted({identity for identity, status in pairs if status == State.OK})
    if unknown := [identity for identity in found if identity not in params.identities]:
        raise FacemillError(
            f"the dataset holds {', '.join(unknown)}, whose rights params.yaml does not state: run `curate` again"
        )
    if len(found) < 2:
        raise FacemillError(
            f"a swap needs two identities with accepted faces, the dataset has {len(found)} "
            f"({', '.join(found) or 'none'}): add one to params.yaml, or see in data/dataset why faces were rejected"
        )
    if lost := [identity for identity in found if identity not in references]:
        raise FacemillError(
            f"{', '.join(lost)}: no reference embedding in the dataset; name references and run `curate` again"
        )
    return found


def _train(
    model: SwapModel,
    trained: Mapping[str, FaceSet],
    held_out: Mapping[str, FaceSet],
    params: Params,
    settings: DeviceSettings,
    work: Work,
) -> Outcome:
    """Brings objective, feed and plan together and runs the loop, showing how far it is."""
    train = params.train
    sets = {identity: faces.to(settings.device) for identity, faces in trained.items()}
    shown = {identity: held_out.get(identity, trained[identity]).to(settings.device) for identity in trained}
    feed = Feed(sets, model.input_px, train.batch, Augmentation(), params.seed)
    plan = Plan(
        steps=train.steps,
        deadline_s=train.deadline_s,
        learning_rate=train.learning_rate,
        save_every=train.save_every,
        evaluate_every=train.preview_every,
    )
    checkpoints, previews = work.folder / "checkpoints", work.folder / "previews"
    begun = saved_step(checkpoints)
    for path in previews.glob("step-*.jpg"):
        if int(path.stem.removeprefix("step-")) > begun:
            path.unlink()
    print(f"train: {f'goes on after step {begun}, ' if begun else ''}previews in {previews}", flush=True)

    def evaluate(step: int) -> None:
        curves.log(step, {f"val_loss/{name}": value for name, value in validation_losses(model, shown).items()})
        write_preview(previews / f"step-{step:06d}.jpg", preview_grid(model, shown))

    def log(step: int, losses: Mapping[str, float]) -> None:
        curves.log(step, {f"train_loss/{name}": value for name, value in losses.items()})
        progress.advance(step - progress.done, f"loss {sum(losses.values()) / len(losses):.4f}")

    with track("train", train.steps, "steps", begun) as progress, open_curves(work.folder / "curves", begun) as curves:
        objective = build_objective(train.model, model)
        outcome = fit(objective, feed, plan, checkpoints, settings, evaluate=evaluate, log=log)
        progress.advance(outcome.step - progress.done)
    return outcome


def _describe(
    params: Params, model: SwapModel, outcome: Outcome, dataset: str, references: Mapping[str, list[list[float]]]
) -> dict[str, Any]:
    """What `model.json` says: all that conversion needs, and what the model was made of."""
    return {
        "name": params.train.model,
        "preset": params.train.preset,
        "identities": list(model.identities),
        "input_px": model.input_px,
        "crop_px": params.extract.crop_px,
        "crop_coverage": params.extract.coverage,
        "train_coverage": params.train.coverage,
        "dataset": dataset,
        "seed": params.seed,
        "steps": outcome.step,
        "references": {identity: references[identity] for identity in model.identities},
    }


def _metrics(outcome: Outcome, model: SwapModel, sets: Mapping[str, FaceSet]) -> dict[str, Any]:
    device = next(model.parameters()).device
    losses = validation_losses(model, {identity: faces.to(device) for identity, faces in sets.items()})
    rate = outcome.step / outcome.seconds if outcome.seconds else 0.0
    rounded = {f"val_loss/{name}": round(value, 5) for name, value in losses.items()}
    return {"steps": outcome.step, "steps_per_second": round(rate, 3), "stopped_by": str(outcome.reason), **rounded}


def _publish(work: Work, output: Path) -> None:
    """Curves and previews of the finished run, in place of older ones; scratch of other fingerprints is dropped."""
    shutil.rmtree(output, ignore_errors=True)
    for part in ("curves", "previews"):
        if (work.folder / part).is_dir():
            shutil.copytree(work.folder / part, output / part)
    shards.drop_other_work(work)
