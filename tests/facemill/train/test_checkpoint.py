"""Model folders and checkpoints: whole or not there, never a pickle, and clear about what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from facemill.errors import FacemillError
from facemill.landmarks import signature
from facemill.model_folder import load_model, save_model
from facemill.nets import SwapModel, build_model
from facemill.train.checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
    saved_step,
)

CPU = torch.device("cpu")
IDENTITIES = ["anna", "bert"]
META: dict[str, Any] = {
    "name": "autoencoder",
    "preset": "small",
    "identities": IDENTITIES,
    "input_px": 64,
    "crop_px": 256,
    "crop_coverage": 1.6,
    "landmarks": signature("dlib"),
    "train_coverage": 1.1,
    "references": {"anna": [[0.5] * 128], "bert": [[0.25] * 128]},
}


@pytest.fixture(scope="module")
def model() -> SwapModel:
    """An untrained small autoencoder of anna and bert."""
    return build_model("autoencoder", "small", IDENTITIES)


@pytest.fixture
def folder(tmp_path: Path, model: SwapModel) -> Path:
    """A model folder as training leaves it."""
    save_model(tmp_path / "model", model, META)
    return tmp_path / "model"


def test_a_saved_model_draws_the_same_and_keeps_its_description(folder: Path, model: SwapModel) -> None:
    loaded, meta = load_model(folder)
    face = torch.rand(1, 3, 64, 64)
    assert meta == META
    assert not loaded.training
    assert torch.equal(loaded(face, "bert"), model.eval()(face, "bert"))


def test_equal_models_give_equal_bytes(folder: Path, tmp_path: Path, model: SwapModel) -> None:
    save_model(tmp_path / "again", model, META)
    for name in ("weights.safetensors", "model.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_saving_again_replaces_the_folder_and_leaves_nothing_else(folder: Path, model: SwapModel) -> None:
    save_model(folder, model, META | {"steps": 7})
    assert load_model(folder)[1]["steps"] == 7
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_full_disk_leaves_the_old_model(folder: Path, model: SwapModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    def full(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("facemill.weights.save_file", full)
    with pytest.raises(FacemillError, match="no space left to write"):
        save_model(folder, model, META | {"steps": 8})
    assert load_model(folder)[1] == META
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_description_must_be_complete_and_of_this_model(tmp_path: Path, model: SwapModel) -> None:
    with pytest.raises(FacemillError, match="lacks preset"):
        save_model(tmp_path / "m", model, {key: value for key, value in META.items() if key != "preset"})
    with pytest.raises(FacemillError, match="its description says"):
        save_model(tmp_path / "m", model, META | {"identities": ["bert", "anna"]})


def test_a_pickle_is_refused_under_any_name(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    torch.save({"encoder.0.0.weight": torch.zeros(1)}, weights)
    with pytest.raises(FacemillError, match="is a pickle under another name"):
        load_model(folder)
    weights.rename(folder / "weights.pth")
    with pytest.raises(FacemillError, match=r"missing; weights.pth cannot be used: pickles can run code"):
        load_model(folder)


def test_a_truncated_file_is_named(folder: Path) -> None:
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(FacemillError, match=r"weights.safetensors is damaged"):
        load_model(folder)


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match=r"model.json is missing"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop("encoder.0.0.weight"), r"lacks 1 weight\(s\), first encoder\.0\.0\.weight"),
        (lambda w: w.update(extra=torch.zeros(1)), r"1 weight\(s\) too many, first extra"),
        (lambda w: w["encoder.0.0.bias"].fill_(torch.nan), r"encoder\.0\.0\.bias holds NaN or infinity"),
        (
            lambda w: w.update({"encoder.0.0.bias": torch.zeros(3)}),
            r"encoder.0.0.bias is \(3,\), autoencoder.* wants",
        ),
    ],
)
def test_weights_of_another_model_are_refused(folder: Path, change: Any, says: str) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "weights.safetensors").items()}
    change(weights)
    save_file(weights, folder / "weights.safetensors")
    with pytest.raises(FacemillError, match=says):
        load_model(folder)


def test_an_unknown_model_in_the_description_is_named(folder: Path) -> None:
    (folder / "model.json").write_text(json.dumps(META | {"name": "ganz"}))
    with pytest.raises(FacemillError, match="no model 'ganz'"):
        load_model(folder)


def at_step(folder: Path, *steps: int) -> Path:
    """A folder with a checkpoint of each step, whose only tensor holds the step."""
    for step in steps:
        save_checkpoint(folder, step, Checkpoint({"x": torch.tensor([float(step)])}, {"step": step}))
    return folder


def test_the_newest_checkpoint_is_the_one_and_the_one_before_is_kept(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, CPU) is None
    at_step(tmp_path, 8, 9, 10)
    (tmp_path / ".facemill-new-0a1b2c3d-99-0a1b2c3d4e5f-0a1b2c3d").mkdir()  # what a killed process leaves
    found = load_checkpoint(tmp_path, CPU)
    assert found is not None
    assert (found.tensors["x"].item(), found.values, saved_step(tmp_path)) == (10, {"step": 10}, 10)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000009", "step-00000010"]


def spoil_by_cutting(tensors: Path) -> None:
    tensors.write_bytes(tensors.read_bytes()[:-2])


def spoil_by_pickling(tensors: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tensors)


def spoil_the_state(tensors: Path) -> None:
    (tensors.parent / "state.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_by_cutting, "tensors.safetensors is damaged"),
        (spoil_by_pickling, "is a pickle under another name"),
        (spoil_the_state, "state.json is not JSON"),
        (Path.unlink, "tensors.safetensors is missing"),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_that_is_said(
    tmp_path: Path, spoil: Any, says: str
) -> None:
    at_step(tmp_path, 9, 10)
    spoil(tmp_path / "step-00000010" / "tensors.safetensors")
    said: list[str] = []
    found = load_checkpoint(tmp_path, CPU, said.append)
    assert found is not None
    assert (found.values, saved_step(tmp_path)) == ({"step": 9}, 9)
    assert says in said[0]
    assert said[0].endswith("goes on from step-00000009 instead")


def test_where_all_checkpoints_are_damaged_the_newest_is_named(tmp_path: Path) -> None:
    at_step(tmp_path, 9, 10)
    for path in tmp_path.glob("step-*/tensors.safetensors"):
        spoil_by_cutting(path)
    with pytest.raises(FacemillError, match=r"step-00000010.*is damaged"):
        load_checkpoint(tmp_path, CPU)


def test_a_damaged_checkpoint_of_a_later_step_goes_with_the_next_save(tmp_path: Path) -> None:
    at_step(tmp_path, 9, 20)
    spoil_by_cutting(tmp_path / "step-00000020" / "tensors.safetensors")
    at_step(tmp_path, 12)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-00000009", "step-00000012"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_optimizer_goes_on_to_the_same_bits_in_any_memory_layout(layout: torch.memory_format) -> None:
    def conv() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(1)
        module = torch.nn.Conv2d(3, 4, 3).to(memory_format=layout)
        return module, torch.optim.Adam(module.parameters(), fused=True)

    def step(module: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        picture = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        module(picture).square().mean().backward()
        optimizer.step()

    whole, whole_optimizer = conv()
    for seed in range(4):
        step(whole, whole_optimizer, seed)
    first, first_optimizer = conv()
    for seed in range(2):
        step(first, first_optimizer, seed)
    stored = {name: tensor.contiguous() for name, tensor in optimizer_tensors(first_optimizer, "o").items()}
    second, second_optimizer = conv()
    second.load_state_dict(first.state_dict())
    restore_optimizer(second_optimizer, "o", stored)
    for seed in (2, 3):
        step(second, second_optimizer, seed)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
