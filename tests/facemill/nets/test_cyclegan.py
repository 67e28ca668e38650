"""CycleGAN's nets are the paper's: sizes, the 70 px patch, and two people, no more and no fewer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facemill.errors import FacemillError
from facemill.nets import build_model
from facemill.nets.cyclegan import PRESETS, CycleGan, CycleGanConfig, patch_discriminator

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = CycleGanConfig(input_px=32, width=4, blocks=1, critic_width=4)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("preset", "blocks", "generator"),
    [("paper64", 6, 7_837_699), ("paper128", 6, 7_837_699), ("paper256", 9, 11_378_179)],
)
def test_the_paper_s_presets_have_its_number_of_parameters(preset: str, blocks: int, generator: int) -> None:
    config = PRESETS[preset]
    with torch.device("meta"):
        model, critic = CycleGan(["anna", "bert"], config), patch_discriminator(config)
    assert config.blocks == blocks
    assert count(model.generators["to_anna"]) == generator
    assert count(critic) == 2_764_737


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_back_its_input_size(preset: str) -> None:
    side = PRESETS[preset].input_px
    with torch.device("meta"):
        model, critic = CycleGan(["anna", "bert"], PRESETS[preset]), patch_discriminator(PRESETS[preset])
        assert model(torch.empty(2, 3, side, side), "anna").shape == (2, 3, side, side)
        assert critic(torch.empty(2, 3, side, side)).shape == (2, 1, side // 8 - 2, side // 8 - 2)


def test_one_answer_of_the_discriminator_sees_70_px() -> None:
    """Without norms, which look at everything, the gradient of one answer is a square of 70 px."""
    convs = [layer for layer in patch_discriminator(PRESETS["paper128"]) if isinstance(layer, nn.Conv2d)]
    for conv in convs:
        nn.init.ones_(conv.weight)
    picture = torch.zeros(1, 3, 128, 128, requires_grad=True)
    nn.Sequential(*convs)(picture)[0, 0, 7, 7].backward()
    assert picture.grad is not None
    rows = picture.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == 70


def test_pictures_are_in_0_to_1_and_a_black_one_gives_a_finite_gradient() -> None:
    torch.manual_seed(0)
    model = CycleGan(["anna", "bert"], TINY)
    black = torch.zeros(2, 3, 32, 32, requires_grad=True)
    drawn = model(black, "bert")
    assert 0 <= drawn.min() <= drawn.max() <= 1
    drawn.sum().backward()
    assert black.grad is not None
    assert black.grad.isfinite().all()


def test_state_keys_are_frozen() -> None:
    with torch.device("meta"):
        keys = [key for key in CycleGan(["anna", "bert"], TINY).state_dict() if key.endswith("weight")]
    assert keys[: len(keys) // 2] == [
        f"generators.to_anna.{part}.weight" for part in ("0", "3", "6", "9.layers.0", "9.layers.3", "10", "13", "16")
    ]


@pytest.mark.parametrize("identities", [["anna"], ["anna", "anna"], ["anna", "bert", "cleo"]])
def test_exactly_two_identities_are_taken(identities: list[str]) -> None:
    with pytest.raises(FacemillError, match=r"exactly two distinct identities.*'gan' or 'autoencoder'"):
        CycleGan(identities, TINY)


def test_unknown_names_and_impossible_sizes_are_refused() -> None:
    with pytest.raises(FacemillError, match=r"'carl'.*anna, bert"):
        CycleGan(["anna", "bert"], TINY)(torch.rand(1, 3, 32, 32), "carl")
    with pytest.raises(FacemillError, match="no preset 'big'; there are paper64"):
        build_model("cyclegan", "big", ["a", "b"])
    with pytest.raises(FacemillError, match="multiple of 4"):
        CycleGan(["anna", "bert"], CycleGanConfig(input_px=50))
