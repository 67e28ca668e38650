"""A training that is prepared by the library alone: what `auto` stands for, whom it shows, that it can be repeated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facemill import tables
from facemill.align import crop_points
from facemill.errors import FacemillError
from facemill.model_folder import save_model
from facemill.pictures import encode_jpeg
from facemill.schema import DATASET
from facemill.train.engine import StopReason
from facemill.train.objectives import Published
from facemill.train.session import Session, plan_of, prepare_training
from facemill.train.settings import CosinePlan, FaceTraining

CPU = torch.device("cpu")
SETTINGS = FaceTraining(steps=2, batch=2, log_every=1, device="cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training faces of anna, who has one held out, too, and of bert."""
    rng = np.random.default_rng(0)
    splits = {"anna": ["train"] * 3 + ["val"], "bert": ["train"] * 3}
    rows = [
        {
            "face_id": f"{identity}-{at}",
            "identity": identity,
            "crop": {"bytes": encode_jpeg(rng.integers(0, 255, (160, 160, 3), dtype=np.uint8)), "path": None},
            "landmarks": tables.as_float32(crop_points(160, 1.6)),
            "affine": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            "yaw": 0.0 if at else 50.0,
            "pitch": 0.0,
            "look": bytes([128] * 256),
            "split": split,
            "status": "ok",
        }
        for identity, each in splits.items()
        for at, split in enumerate(each)
    ]
    folder = tmp_path_factory.mktemp("session") / "dataset"
    tables.write_part(folder / "00000.parquet", tables.from_rows(rows, DATASET))
    return folder


def prepared(dataset: Path, settings: FaceTraining = SETTINGS, **changed: Any) -> Session:
    return prepare_training(settings, dataset, ["anna", "bert"], **{"crop_coverage": 1.6, "device": CPU} | changed)


def weights_of(session: Session) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in session.model.state_dict().items()}


def test_it_trains_and_equal_arguments_train_alike(dataset: Path, tmp_path: Path) -> None:
    ends = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        session = prepared(dataset, seed=seed)
        before, logged = weights_of(session), []
        outcome = session.fit(tmp_path / name, log=lambda step, losses, seen=logged: seen.append(step))
        assert (outcome.reason, outcome.step, logged) == (StopReason.STEPS, 2, [1, 2])
        ends.append(weights_of(session))
        assert not all(torch.equal(before[key], ends[-1][key]) for key in before)
    first, again, other = ends
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_a_balanced_training_draws_rare_looks_more_often(dataset: Path) -> None:
    for balance, epochs_draws, expected in ((1, 3, 2), (5, 2, 2)):  # 3 and 4 faces an epoch, in batches of 2
        feed = prepared(dataset, replace(SETTINGS, balance=balance)).feed
        drawn = "; ".join(feed.describe(place + 1) for place in range(epochs_draws))
        assert drawn.count("anna-0") == drawn.count("bert-0") == expected


def test_what_is_held_out_is_shown_and_where_nothing_is_the_training_faces(dataset: Path) -> None:
    session = prepared(dataset)
    assert {name: faces.face_ids for name, faces in session.shown.items()} == {
        "anna": ("anna-3",),
        "bert": ("bert-0", "bert-1", "bert-2"),
    }
    assert session.faces == {"anna": (3, 1), "bert": (3, 0)}


def test_it_starts_from_a_trained_model_and_says_so(dataset: Path, tmp_path: Path) -> None:
    session = prepared(dataset, seed=1)
    meta = {"name": "autoencoder", "preset": "small", "identities": ["anna", "bert"], "references": {}}
    meta |= {
        "input_px": session.model.input_px,
        "crop_px": 160,
        "crop_coverage": 1.6,
        "train_coverage": 1.2,
        "landmarks": "dlib",
    }
    save_model(tmp_path / "model", session.model, meta)
    again = prepared(dataset, replace(SETTINGS, start=tmp_path / "model"), seed=2)
    assert list(again.remarks) == ["starts from autoencoder small of anna, bert"]
    assert all(torch.equal(tensor, weights_of(again)[name]) for name, tensor in weights_of(session).items())


def test_an_identity_without_enough_faces_is_named(dataset: Path) -> None:
    with pytest.raises(FacemillError, match=r"'carl' has 0 accepted training face\(s\), at least 2"):
        prepare_training(SETTINGS, dataset, ["anna", "carl"], crop_coverage=1.6, device=CPU)


def test_a_plan_is_as_the_settings_say_and_where_they_say_auto_as_the_objective_does() -> None:
    published = Published(learning_rate=3e-4, warmup_steps=7, final_rate=0.5, ema_decay=0.9)
    pace: dict[str, Any] = {
        "steps": 11, "deadline_s": 5.0, "plateau": 3, "micro_batch": 2, "save_every": 4, "keep_checkpoints": 5,
        "rollbacks": 1, "evaluate_every": 6, "log_every": 8,
    }  # fmt: skip
    settings = FaceTraining(**pace)
    wanted = CosinePlan(learning_rate=3e-4, warmup_steps=7, final_rate=0.5, ema_decay=0.9, seed=9, **pace)
    assert plan_of(settings, published, 9) == wanted
    stated = replace(settings, learning_rate=0.01, ema_decay=None)
    assert plan_of(stated, published, 9) == replace(wanted, learning_rate=0.01, ema_decay=None)
