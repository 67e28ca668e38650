"""A training of a model that swaps faces, from a dataset and settings to an engine that can start.

    settings = FaceTraining(steps=500)
    device = choose_device(settings.device, "--device")
    session = prepare_training(settings, Path("data/dataset"), ["anna", "bert"], crop_coverage=1.6, device=device)
    outcome = session.fit(Path("checkpoints"))

Each of several processes prepares the same training, with ranks of its own. Who looks on (curves, pictures, measures)
and what becomes of the model is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import torch

from facemill.device import DeviceSettings, compile_problem, keeps_busy, settings_for
from facemill.errors import FacemillError
from facemill.model_folder import load_model
from facemill.nets import SwapModel, build_model
from facemill.train.data import FaceSet, Feed, place_sets
from facemill.train.dataset import CropGeometry, load_faces, turns
from facemill.train.distributed import ALONE, Ranks
from facemill.train.engine import Evaluate, Log, Outcome, fit
from facemill.train.objectives import Objective, Published, build_objective
from facemill.train.settings import CosinePlan, FaceTraining, Pace

MIN_FACES = 2
"""Of each identity: with a single one there is nothing to learn but that picture."""


@dataclass(frozen=True)
class Session:
    """A training that can start: all of it on the device.

    Attributes:
        model: what learns; part of `objective.module`.
        objective: what it learns for.
        feed: batches of the training faces.
        plan: how long and how fast, with what `auto` stands for.
        used: device, precision and layout, likewise.
        shown: for each identity the faces to look at the model with: those held out, or where there are none the
            training faces.
        faces: how many training faces and held-out ones each identity has.
        remarks: what a person should know before it starts.
        ranks: this process among others.
    """

    model: SwapModel
    objective: Objective
    feed: Feed
    plan: CosinePlan
    used: DeviceSettings
    shown: Mapping[str, FaceSet]
    faces: Mapping[str, tuple[int, int]]
    remarks: Sequence[str]
    ranks: Ranks = ALONE

    def fit(
        self,
        checkpoints: Path,
        *,
        evaluate: Evaluate = lambda step: None,
        log: Log = lambda step, losses: None,
        rolled_back: Callable[[int], None] = lambda step: None,
        say: Callable[[str], None] = print,
    ) -> Outcome:
        """Trains once, or goes on from the checkpoints; arguments and errors are those of `facemill.train.engine.fit`.

        The feed is closed afterwards.
        """
        with closing(self.feed):
            return fit(
                self.objective, self.feed, self.plan, checkpoints, self.used,
                evaluate=evaluate, log=log, rolled_back=rolled_back, say=say, ranks=self.ranks,
            )  # fmt: skip


def prepare_training(
    settings: FaceTraining,
    dataset: Path,
    identities: Sequence[str],
    *,
    crop_coverage: float,
    device: torch.device,
    seed: int = 0,
    ranks: Ranks = ALONE,
) -> Session:
    """Reads the faces, and builds or goes on from a model; equal arguments prepare equal trainings.

    Args:
        settings: what a person says of it.
        dataset: a `dataset` table.
        identities: whom the model is to know, all of them in the dataset.
        crop_coverage: of the dataset's crops, see `facemill.align`.
        device: this process's.
        seed: of all that is drawn by chance. Torch's global generator begins with it here.
        ranks: this process among others.

    Raises:
        FacemillError: too few faces, a dataset or a model to start from that cannot be read, a batch that the
            processes cannot share.
    """
    torch.manual_seed(seed)
    model = build_model(settings.model, settings.preset, identities)
    view = CropGeometry(input_px=model.input_px, crop_coverage=crop_coverage, train_coverage=settings.coverage)
    trained, held_out = (load_faces(dataset, split, view) for split in ("train", "val"))
    _check_faces(trained, model.identities, dataset)
    remarks = _start(model, settings.start)
    objective = build_objective(settings.model, model, **settings.options)
    parameters = sum(p.numel() for p in objective.module.parameters())
    used = settings_for(device, parameters, settings, side_px=model.input_px)
    used.place(objective.module)
    sets = place_sets(trained, device)
    with used.applied():
        objective.prepare(sets)
    feed = Feed(
        sets, model.input_px, settings.batch, settings.augment, seed,
        device=device, share=(ranks.number, ranks.processes),
        turns=turns(dataset, settings.balance) if settings.balance > 1 else None,
    )  # fmt: skip
    wanted = settings.compile == "auto" and keeps_busy(device, parameters, model.input_px)
    if wanted and (problem := compile_problem(device)):
        remarks.append(f"torch.compile does not work here, so it is left out ({problem})")
    return Session(
        model=model,
        objective=objective,
        feed=feed,
        plan=plan_of(settings, objective.published, seed),
        used=used,
        shown={identity: held_out.get(identity, faces) for identity, faces in trained.items()},
        faces={identity: (len(faces), len(held_out.get(identity, ()))) for identity, faces in trained.items()},
        remarks=[*remarks, *objective.remarks],
        ranks=ranks,
    )


def plan_of(settings: FaceTraining, published: Published, seed: int) -> CosinePlan:
    """How long and how fast: as the settings say, and where they say `auto`, as the objective does."""
    return CosinePlan(
        **{one.name: getattr(settings, one.name) for one in fields(Pace)},
        learning_rate=published.learning_rate if settings.learning_rate == "auto" else settings.learning_rate,
        warmup_steps=published.warmup_steps,
        final_rate=published.final_rate,
        ema_decay=published.ema_decay if settings.ema_decay == "auto" else settings.ema_decay,
        seed=seed,
    )


def _check_faces(sets: Mapping[str, FaceSet], identities: Sequence[str], dataset: Path) -> None:
    for identity in identities:
        count = len(sets[identity]) if identity in sets else 0
        if count < MIN_FACES:
            raise FacemillError(
                f"identity {identity!r} has {count} accepted training face(s), at least {MIN_FACES} are needed: give "
                f"it more sources, or loosen the limits of `curate` ({dataset} has a reason in each rejected row)"
            )


def _start(model: SwapModel, folder: Path | None) -> list[str]:
    """Puts in what a trained model knows; what a person should know of that."""
    if folder is None:
        return []
    trained, meta = load_model(folder)
    fresh = model.start_from(trained)
    new = f"; {', '.join(fresh)} new to it" if fresh else ""
    return [f"starts from {meta['name']} {meta['preset']} of {', '.join(trained.identities)}{new}"]
