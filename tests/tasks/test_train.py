"""The stage `train`: from a dataset table to a model folder, through a kill; clear about what it cannot train on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from facemill import tables
from facemill.align import crop_points
from facemill.errors import FacemillError
from facemill.files import file_sha256, folder_sha256, read_json
from facemill.model_folder import EXEMPLARS_FILE, WEIGHTS_FILE, load_model, read_meta
from facemill.pictures import encode_jpeg
from facemill.schema import DATASET
from facemill.swap.detail.exemplars import read_exemplars
from facemill.terms import Use
from facemill.train.checkpoint import saved_step
from facemill.train.dataset import dataset_sha256
from tasks import train
from tasks.licences import of_model
from tasks.params import parse_params
from tasks.training.early import save_early_model
from tasks.work.curves import cut

PROJECT = Path(__file__).resolve().parents[2]
STEPS = 60
RIGHTS = {"basis": "own", "evidence": "drawn by this test"}
IDENTITY = {"rights": RIGHTS, "references": ["r"], "sources": [{"kind": "folder", "path": "p"}]}
PARAMS: dict[str, Any] = {
    "identities": {"anna": IDENTITY, "bert": IDENTITY},
    "archive": {"kind": "sample"},
    "train": {"steps": STEPS, "batch": 2, "save_every": 20, "evaluate_every": 30, "device": "cpu"},
    "convert": {"becomes": {"anna": "bert"}},
}


def project(root: Path, faces: dict[str, int], val: int = 1, **changed: Any) -> Path:
    """A project whose dataset holds so many flat-coloured faces of each identity, `val` of them held out."""
    rng = np.random.default_rng(0)
    rows = []
    for identity, count in faces.items():
        for at in range(count):
            colour = rng.integers(0, 255, 3).tolist()
            row = {
                "face_id": f"{identity}-{at}",
                "identity": identity,
                "crop": {"bytes": encode_jpeg(np.full((256, 256, 3), colour, np.uint8)), "path": None},
                "landmarks": tables.as_float32(crop_points(256, 1.6)),
                "predictor": "dlib 1",
                "affine": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                "embedding": [float(at)] * 128,
                "reference": at == 0,
                "split": "val" if at < val else "train",
                "status": "ok",
            }
            rows.append(row | changed)
    tables.write_part(root / "data" / "dataset" / "00000.parquet", tables.from_rows(rows, DATASET))
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return root


def stage(root: Path) -> subprocess.Popen[str]:
    """`facemill stage train` in a process of its own, so that signals hit nothing else; one thread, so that the bits
    are the same however many threads other tests left torch with."""
    command = [sys.executable, "-m", "flows.command_line", "stage", "train", "--root", str(root)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def published(root: Path) -> dict[str, str]:
    return {name: folder_sha256(root / "data" / name) for name in ("model", "train")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was trained without interruption."""
    root = project(tmp_path_factory.mktemp("trained"), {"anna": 4, "bert": 3})
    output, _ = stage(root).communicate(timeout=300)
    assert "loss" in output
    assert f"train: {STEPS}/{STEPS} steps" in output  # though the curves have no point there
    return root


def test_it_leaves_a_model_with_references_and_curves_and_previews(trained: Path) -> None:
    model, meta = load_model(trained / "data" / "model")
    assert model.identities == ("anna", "bert")
    assert (meta["steps"], meta["references"]) == (STEPS, {"anna": [[0.0] * 128], "bert": [[0.0] * 128]})
    assert meta["dataset"] == dataset_sha256(trained / "data" / "dataset")
    curves = trained / "data" / "train" / "curves" / "plots" / "metrics"
    lines = (curves / "train_loss" / "reconstruction" / "anna.tsv").read_text().splitlines()
    assert lines[0] == "step\tanna"
    assert [line.split("\t")[0] for line in lines[1:]] == ["25", "50"]
    assert (curves / "val_loss" / "mae" / "bert.tsv").exists()
    assert (curves / "val_psnr" / "bert.tsv").exists()
    assert (curves / "val_identity_distance" / "anna-as-bert.tsv").exists()
    previews = sorted(path.name for path in (trained / "data" / "train" / "previews").iterdir())
    assert previews == ["step-000030.jpg", "step-000060.jpg"]


def test_a_card_says_what_the_model_is_and_on_what_ground(trained: Path) -> None:
    card = (trained / "data" / "model" / "MODEL_CARD.md").read_text()
    assert "| anna | own | drawn by this test | 3 | 1 |" in card
    assert dataset_sha256(trained / "data" / "dataset") in card
    assert "3,258,982 parameters" in card
    assert "| identity_distance/anna-as-bert |" in card
    assert "| anna | 3 | own |" in card


def test_the_model_carries_the_terms_of_what_it_was_made_with(trained: Path) -> None:
    found = {each.name: each.use for each in of_model(trained / "data" / "model") or ()}
    assert found["dlib's 68-point shape predictor"] == Use.RESEARCH
    assert (
        "- dlib's 68-point shape predictor: **research only**"
        in (trained / "data" / "model" / "MODEL_CARD.md").read_text()
    )


def test_nothing_is_trained_for_commerce_on_faces_with_research_terms(tmp_path: Path) -> None:
    root = project(tmp_path, {"anna": 4, "bert": 3})
    with pytest.raises(FacemillError, match="to be trained does not allow:\n  dlib's 68-point shape"):
        train.run(parse_params(PARAMS | {"commercial": True}), root)
    assert not (root / "data" / "model").exists()


def test_it_leaves_pictures_of_those_who_were_trained_on_and_of_none_held_out(trained: Path) -> None:
    found = read_exemplars(trained / "data" / "model" / EXEMPLARS_FILE, ["anna", "bert"])
    assert {identity: len(one) for identity, one in found.items()} == {"anna": 3, "bert": 2}
    assert "anna-0" not in found["anna"].ids


def test_its_metrics_reconcile(trained: Path) -> None:
    metrics = read_json(trained / "data" / "metrics" / "train.json")
    assert (metrics["in"], metrics["ok"], metrics["failed"]) == (7, 7, 0)
    assert (metrics["steps"], metrics["stopped_by"]) == (STEPS, "steps")


def test_terminated_and_run_again_it_ends_with_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    root = project(tmp_path, {"anna": 4, "bert": 3})
    first = stage(root)
    assert first.stdout is not None
    for line in first.stdout:
        if "train: 25/" in line:
            break
    first.terminate()
    rest, _ = first.communicate(timeout=120)
    assert first.returncode == 130
    assert f"of {STEPS} is saved, and the same command goes on from there." in rest
    assert not (root / "data" / "model").exists()
    output, _ = stage(root).communicate(timeout=300)
    assert "goes on after step" in output
    assert published(root) == published(trained)


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    root = project(tmp_path, {"anna": 4, "bert": 3})
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["train"] |= {"processes": 2, "steps": 6, "evaluate_every": 3, "save_every": 3}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    output, _ = stage(root).communicate(timeout=300)
    assert load_model(root / "data" / "model")[1]["steps"] == 6, output
    previews = sorted(path.name for path in (root / "data" / "train" / "previews").iterdir())
    assert previews == ["step-000003.jpg", "step-000006.jpg"]


@pytest.mark.slow
def test_two_processes_that_are_told_to_end_save_and_go_on(tmp_path: Path) -> None:
    root = project(tmp_path, {"anna": 4, "bert": 3})
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["train"] |= {"processes": 2, "measured_faces": 0, "save_every": 1000, "evaluate_every": 1000}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    first = stage(root)
    assert first.stdout is not None
    for line in first.stdout:
        if "train: 25/" in line:
            break
    os.killpg(first.pid, signal.SIGTERM)  # as Prefect and DVC do it: the whole group
    rest, _ = first.communicate(timeout=120)
    assert first.returncode == 130
    assert "the same command goes on" in rest
    output, _ = stage(root).communicate(timeout=300)
    assert re.search(r"goes on after step [1-9]", output)  # nothing but the end saved
    assert load_model(root / "data" / "model")[1]["steps"] == STEPS


@pytest.mark.slow
def test_processes_whose_stage_was_killed_save_and_end(tmp_path: Path) -> None:
    root = project(tmp_path, {"anna": 4, "bert": 3})
    params = yaml.safe_load((root / "params.yaml").read_text())
    endless = {"processes": 2, "measured_faces": 0, "steps": 10**6, "save_every": 10**6, "evaluate_every": 10**6}
    params["train"] |= endless
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    first = stage(root)
    assert first.stdout is not None
    for line in first.stdout:
        if "train: 25/" in line:
            break
    left = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert alive == []
    [checkpoints] = root.glob(".work/train/*/checkpoints")
    assert saved_step(checkpoints) >= 25


@pytest.mark.slow
def test_what_one_of_two_processes_cannot_do_is_said_once(tmp_path: Path) -> None:
    root = project(tmp_path, {"anna": 4, "bert": 2})
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["train"] |= {"processes": 2}
    with pytest.raises(FacemillError, match="'bert' has 1 accepted training face"):
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        train.run(parse_params(params), root)


def test_a_finished_training_is_published_again_without_a_step(trained: Path) -> None:
    before = published(trained)
    output, _ = stage(trained).communicate(timeout=120)
    assert f"goes on after step {STEPS}" in output
    assert published(trained) == before


@pytest.mark.parametrize("decay", [None, 0.8])
def test_a_training_can_be_looked_at_before_it_ends(tmp_path: Path, decay: float | None) -> None:
    """The model of a checkpoint is the one that a training that ends there publishes, averaged weights included."""
    root = project(tmp_path, {"anna": 3, "bert": 3})
    settings = {"steps": 4, "batch": 2, "save_every": 2, "evaluate_every": 4, "device": "cpu", "ema_decay": decay}
    params = parse_params(PARAMS | {"train": settings})
    with pytest.raises(FacemillError, match="has written a checkpoint yet"):
        save_early_model(params, root, tmp_path / "early")
    train.run(params, root)
    assert save_early_model(params, root, tmp_path / "early") == 4
    early, published = tmp_path / "early", root / "data" / "model"
    assert file_sha256(early / WEIGHTS_FILE) == file_sha256(published / WEIGHTS_FILE)
    one, other = (read_exemplars(folder / EXEMPLARS_FILE, ["anna"])["anna"] for folder in (early, published))
    assert one.ids == other.ids
    # a model that trained lies in memory otherwise than one that was read, and rounds otherwise
    assert np.abs(one.drawn.astype(int) - other.drawn).max() <= 1
    assert read_meta(early)["references"] == read_meta(published)["references"]


@pytest.mark.parametrize(
    ("faces", "says"),
    [
        ({"anna": 4}, r"needs two identities with accepted faces, the dataset has 1 \(anna\)"),
        ({}, r"has 0 \(none\)"),
        ({"anna": 4, "bert": 2}, "'bert' has 1 accepted training face"),
        ({"anna": 4, "bert": 1}, "'bert' has 0 accepted training face"),
        ({"anna": 4, "carl": 4}, "holds carl, whose rights params.yaml does not state"),
    ],
)
def test_what_cannot_be_trained_on_is_said(tmp_path: Path, faces: dict[str, int], says: str) -> None:
    root = project(tmp_path, faces)
    with pytest.raises(FacemillError, match=says):
        train.run(parse_params(PARAMS), root)
    assert not (root / "data" / "model").exists()


def test_an_identity_without_references_is_named(tmp_path: Path) -> None:
    root = project(tmp_path, {"anna": 3, "bert": 3}, reference=False)
    with pytest.raises(FacemillError, match="anna, bert: no reference embedding"):
        train.run(parse_params(PARAMS), root)


def test_faces_with_the_landmarks_of_two_predictors_are_not_trained_on_together(tmp_path: Path) -> None:
    root = project(tmp_path, {"anna": 3, "bert": 3})
    path = root / "data" / "dataset" / "00000.parquet"
    rows = list(tables.iterate_rows(path.parent, DATASET))
    rows[0]["predictor"] = "mesh 2"
    tables.write_part(path, tables.from_rows(rows, DATASET))
    with pytest.raises(FacemillError, match=r"landmarks of dlib 1 and of mesh 2.*extract and curate again"):
        train.run(parse_params(PARAMS), root)


def test_curves_are_cut_where_the_checkpoint_is(tmp_path: Path) -> None:
    curve = tmp_path / "train_loss" / "anna.tsv"
    curve.parent.mkdir()
    curve.write_text("step\tanna\n25\t0.5\n50\t0.4\n75\t0.3\n10")
    cut(tmp_path, 50)
    assert curve.read_text() == "step\tanna\n25\t0.5\n50\t0.4\n"
