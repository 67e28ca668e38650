"""The seam between models and engine, and the autoencoder's side of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_training import CPU, plain_batch, plain_set

from facemill.device import choose_device, compile_parts, settings_for
from facemill.device_choice import DeviceChoice
from facemill.errors import FacemillError
from facemill.nets import SwapModel, model_names
from facemill.nets.autoencoder import Autoencoder, AutoencoderConfig
from facemill.train.data import FaceSet, Feed
from facemill.train.engine import fit
from facemill.train.evaluate import validation_losses
from facemill.train.losses import reconstruction
from facemill.train.objectives import build_objective
from facemill.train.settings import Augmentation, CosinePlan

TINY = AutoencoderConfig(
    input_px=16, encoder_channels=(8, 16), bottleneck=16, unfold_channels=8, code_channels=8, decoder_channels=(8,)
)


@pytest.fixture
def model() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(["anna", "bert"], TINY)


def face_set(identity: str, red: int, green: int) -> FaceSet:
    """Six faces: a coloured square in the middle of a black picture, somewhat brighter in each."""
    faces = torch.zeros(6, 3, 20, 20)
    for at in range(6):
        faces[at, :2, 5:15, 5:15] = torch.tensor([red + 8.0 * at, green + 8.0 * at])[:, None, None]
    return plain_set(identity, faces.byte())


@pytest.mark.parametrize("name", model_names())
def test_every_model_can_be_trained(name: str) -> None:
    with pytest.raises(FacemillError, match="cannot train a SwapModel"):
        build_objective(name, SwapModel())


def test_a_model_without_objective_names_those_that_there_are() -> None:
    with pytest.raises(FacemillError, match="no training objective for model 'x'; there are autoencoder"):
        build_objective("x", SwapModel())


def test_an_option_that_an_objective_does_not_have_is_named(model: Autoencoder) -> None:
    with pytest.raises(FacemillError, match=r"autoencoder has no option gamma; there are none"):
        build_objective("autoencoder", model, gamma=2)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("gan", {"cycle": "no"}, "cycle of gan must be true or false, got 'no'"),
        ("gan", {"features": 5}, "features of gan must be a text or null, got 5"),
        ("cyclegan", {"pool": "many"}, "pool of cyclegan must be a whole number, got 'many'"),
        ("cyclegan", {"pool": True}, "pool of cyclegan must be a whole number, got True"),
        ("transform", {"style_share": "two"}, "style_share of transform must be a number or null, got 'two'"),
        ("transform", {"style_pictures": 2.5}, "style_pictures of transform must be a whole number, got 2.5"),
    ],
)
def test_an_option_of_another_type_is_named(name: str, options: dict[str, object], problem: str) -> None:
    with pytest.raises(FacemillError, match=re.escape(f"train.options.{problem}")):
        build_objective(name, SwapModel(), **options)


def test_a_loss_is_the_mean_of_what_its_halves_have(model: Autoencoder) -> None:
    objective, turn = build_objective("autoencoder", model), "autoencoder"
    pictures, weight = torch.rand(2, 6, 3, 16, 16), torch.rand(6, 1, 16, 16)
    batch = {who: plain_batch(*pictures, weight) for who in model.identities}
    whole = objective.losses(turn, batch)
    halves = [objective.losses(turn, {w: b.rows(part) for w, b in batch.items()}) for part in (slice(3), slice(3, 6))]
    for name, loss in whole.items():
        assert loss.item() == pytest.approx(sum(half[name].item() for half in halves) / 2, rel=1e-5)


def test_losses_are_named_by_identity_and_equal_those_of_the_model_alone(model: Autoencoder) -> None:
    objective = build_objective("autoencoder", model)
    batch = {who: plain_batch(torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)) for who in "ab"}
    batch = {"anna": batch["a"], "bert": batch["b"]}
    losses = objective.losses(objective.turns[0], batch)
    assert list(losses) == ["reconstruction/anna", "reconstruction/bert"]
    alone = reconstruction(model(batch["bert"].warped, "bert"), batch["bert"].target, batch["bert"].weight)
    assert losses["reconstruction/bert"].item() == pytest.approx(alone.item(), rel=1e-5)


def test_an_autoencoder_learns_to_draw_and_to_swap(model: Autoencoder, tmp_path: Path) -> None:
    """anna is red and bert is green: after 150 steps a red square drawn as bert is green."""
    sets = {"anna": face_set("anna", 180, 0), "bert": face_set("bert", 0, 180)}
    before = validation_losses(model, sets)
    still = Augmentation(colour_match=0, brightness=0)
    feed = Feed(sets, 16, 6, still, seed=0)
    fit(build_objective("autoencoder", model), feed, CosinePlan(steps=150, learning_rate=5e-3), tmp_path, CPU)
    after = validation_losses(model, sets)
    assert all(after[name] < 0.3 * before[name] for name in ("mae/anna", "mae/bert"))
    red, green, _ = model(sets["anna"].view(16), "bert")[:, :, 8, 8].mean(0).tolist()
    assert green > 0.5 > 0.3 > red


def test_settings_follow_the_device() -> None:
    cpu = torch.device("cpu")
    small, classic = settings_for(cpu, 3_000_000), settings_for(cpu, 82_062_470)
    assert small.autocast_dtype is classic.autocast_dtype is None
    assert (small.memory_format, classic.memory_format) == (torch.channels_last, torch.contiguous_format)
    cuda = settings_for(torch.device("cuda"), 82_062_470)
    assert (cuda.autocast_dtype, cuda.memory_format) == (torch.bfloat16, torch.channels_last)
    assert (cuda.guard_lag, small.guard_lag, small.compile) == (1, 0, False)


def test_a_gpu_casts_and_compiles_what_keeps_it_busy() -> None:
    cuda = torch.device("cuda")
    small, small_of_128 = (settings_for(cuda, 3_300_000, side_px=side) for side in (64, 128))
    assert (small.autocast_dtype, small.compile, small_of_128.autocast_dtype) == (None, False, torch.bfloat16)
    assert settings_for(cuda, 3_300_000, DeviceChoice(precision="bf16"), side_px=64).autocast_dtype == torch.bfloat16


def test_what_a_person_sets_is_taken_on_any_device() -> None:
    choice = DeviceChoice(precision="bf16", layout="contiguous", compile=True, deterministic=True)
    told = settings_for(torch.device("cpu"), 1, choice)
    assert (told.autocast_dtype, told.memory_format) == (torch.bfloat16, torch.contiguous_format)
    assert told.compile
    assert told.deterministic


def test_compiling_keeps_the_names_of_weights_and_takes_each_part_whole(model: Autoencoder) -> None:
    graphs: list[list[str]] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[object]) -> Callable[..., object]:
        graphs.append([node.op for node in graph.graph.nodes])
        return graph.forward

    before, face = list(model.state_dict()), torch.rand(2, 3, 16, 16)
    plain = {who: model(face, who) for who in model.identities}
    compile_parts(nn.ModuleDict({"model": model, "judge": nn.Linear(2, 2)}), counting)
    assert list(model.state_dict()) == before
    assert all(torch.allclose(model(face, who), plain[who], atol=1e-6) for who in model.identities)
    assert len(graphs) == 2  # the encoder, and one for all decoders: weights are its inputs
    assert all(len(graph) > 5 for graph in graphs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_asking_for_a_gpu_that_is_not_there_is_an_error() -> None:
    assert choose_device("auto", "train.device").type == "cpu"
    with pytest.raises(FacemillError, match="finds no GPU"):
        choose_device("cuda", "--device")
