"""The model of a training that is still going on, as its newest checkpoint has it: to look at, and to decide by.

A net of few pixels looks worse in the previews of its training than in a video, where its drawing is brought to the
face's own colours and edges and gets the detail of real pictures. `facemill preview --training` shows that, from the
first checkpoint on. The training itself knows nothing of it: what decides about videos decides about no weight.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from facemill.errors import FacemillError
from facemill.model_folder import save_model
from facemill.nets import build_model
from facemill.train.checkpoint import load_checkpoint, load_weights
from facemill.train.dataset import dataset_sha256
from facemill.train.ema import Ema
from facemill.train.objectives import build_objective
from facemill.train.session import plan_of
from tasks.catalogue import Data
from tasks.params import Params
from tasks.train import describe_model, training_scratch
from tasks.training.process import measures_of, travelling_exemplars
from tasks.training.weight_files import placed_options, start_folder


def save_early_model(params: Params, root: Path, folder: Path) -> int:
    """Writes the model folder that a training would publish if it ended now.

    Args:
        params: those that the training goes on with.
        folder: its name and place.

    Returns:
        The step that it is at.

    Raises:
        FacemillError: nothing is trained with these parameters on this dataset, or no checkpoint has been written yet.
    """
    fingerprint = dataset_sha256(root / Data.DATASET)
    checkpoints = training_scratch(root, params, fingerprint) / "checkpoints"
    found = load_checkpoint(checkpoints, torch.device("cpu"))
    if found is None:
        raise FacemillError(
            "no training with these parameters on this dataset has written a checkpoint yet: start `facemill stage "
            f"train`, whose first one comes after {params.train.save_every} steps (train.save_every), and leave "
            "params.yaml as it is meanwhile"
        )
    train = replace(params.train, start=start_folder(params.train, root), options=placed_options(params.train, root))
    meta = describe_model(params, root, fingerprint)
    model = build_model(train.model, train.preset, meta["identities"])
    objective = build_objective(train.model, model, **train.options)
    load_weights(objective.module, found.tensors, "weights", checkpoints)
    decay = plan_of(train, objective.published, params.seed).ema_decay
    if decay is not None:
        averages = Ema(objective.module, decay)
        averages.restore("ema", found.tensors)
        averages.adopt()
    step = int(found.values["state"]["step"])
    measures = measures_of(params, root, meta["references"])
    exemplars = travelling_exemplars(params, root, model, measures) if params.train.exemplars else None
    save_model(folder, model, {**meta, "input_px": model.input_px, "steps": step}, exemplars=exemplars)
    return step
