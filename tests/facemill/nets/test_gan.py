"""The GAN is v2.2's, layer for layer: counts of the notes' table, whole-sample norm, ICNR, and a mask that blends."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from facemill.errors import FacemillError
from facemill.nets import build_model
from facemill.nets._blocks import NearestUpscale, SampleNorm, SelfAttention, ShuffleUpscale
from facemill.nets.gan import PRESETS, Discriminator, Gan, GanConfig

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = GanConfig(
    encoder_channels=(4, 8, 8, 8, 8),
    latent=8,
    code_channels=8,
    decoder_channels=(8, 8, 8),
    attention_px=16,
    critic_channels=(4, 8, 8),
)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def tiny() -> Gan:
    """A narrow 64 px net of three identities with random weights that are the same each time."""
    torch.manual_seed(0)
    return Gan(["anna", "bert", "cleo"], TINY)


@pytest.mark.parametrize(
    ("preset", "counts", "millions"),
    [
        ("standard64", (59_130_506, 6_300_924, 71_732_354, 747_845), (59.1, 6.30, 71.7, 0.75)),
        ("standard128", (68_567_692, 6_490_305, 81_548_302, 1_878_664), (68.6, 6.49, 81.5, 1.88)),
        ("standard256", (78_004_878, 6_679_686, 91_364_250, 3_009_483), (78.0, 6.68, 91.4, 3.01)),
        ("lite64", (10_065_994, 415_460, 10_896_914, 747_845), (None, None, 10.9, None)),
        ("lite128", (19_045_452, 436_329, 19_918_110, 1_878_664), (None, None, 19.9, None)),
        ("lite256", (19_635_278, 457_198, 20_549_674, 3_009_483), (None, None, 20.5, None)),
    ],
)
def test_parameter_counts_are_those_of_the_layer_list(
    preset: str, counts: tuple[int, ...], millions: tuple[float | None, ...]
) -> None:
    """`millions` are the figures computed from the original's layers: encoder, decoder, both with two, critic."""
    with torch.device("meta"):  # shapes without memory
        model, critic = Gan(["anna", "bert"], PRESETS[preset]), Discriminator(PRESETS[preset])
    found = count(model.encoder), count(model.decoder("anna")), count(model), count(critic)
    assert found == counts
    rounded = [round(n / 1e6, 1 if figure and figure > 10 else 2) for n, figure in zip(found, millions, strict=True)]
    assert all(figure is None or figure == n for n, figure in zip(rounded, millions, strict=True))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_draws_its_size_with_a_side_output_for_each_lower_scale(preset: str) -> None:
    config = PRESETS[preset]
    side = config.input_px
    with torch.device("meta"):
        model, critic = Gan(["anna", "bert"], config), Discriminator(config)
        drawing = model.decode(model.encode(torch.empty(2, 3, side, side)), "bert")
        judged = critic(torch.empty(2, 6, side, side))
    assert drawing.raw.shape == (2, 3, side, side)
    assert drawing.alpha.shape == (2, 1, side, side)
    assert [part.shape[-1] for part in drawing.sides] == [px for px in (64, 128) if px < side]
    assert judged.shape == (2, 1, 8, 8)


def test_pictures_and_mask_are_in_0_to_1(tiny: Gan) -> None:
    face = torch.rand(2, 3, 64, 64)
    raw, alpha = tiny.draw(face, "bert")
    for part in (raw, alpha, tiny(face, "bert")):
        assert 0 <= part.min() <= part.max() <= 1


def test_a_mask_of_0_gives_the_input_back_and_one_of_1_the_drawing(tiny: Gan) -> None:
    face = torch.rand(2, 3, 64, 64)
    nn.init.constant_(tiny.decoder("bert").alpha.bias, -200.0)
    assert torch.equal(tiny(face, "bert"), face)
    nn.init.constant_(tiny.decoder("bert").alpha.bias, 200.0)
    raw, alpha = tiny.draw(face, "bert")
    assert alpha.min() == 1
    assert torch.equal(tiny(face, "bert"), raw)


def test_whole_sample_norm_is_over_channels_too() -> None:
    """1, 3 | 5, 7 has mean 4 and deviation √5; a channel of its own would give −1, 1 | −1, 1."""
    x = torch.tensor([[[[1.0, 3.0]], [[5.0, 7.0]]], [[[2.0, 2.0]], [[2.0, 2.0]]]])
    found = SampleNorm()(x)
    scale = 5**0.5 + 1e-3
    assert found[0].flatten().tolist() == pytest.approx([-3 / scale, -1 / scale, 1 / scale, 3 / scale])
    assert found[1].flatten().tolist() == [0.0] * 4
    assert [p.shape for p in SampleNorm().parameters()] == [(), ()]


def test_a_sample_of_one_colour_has_a_finite_gradient() -> None:
    x = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    SampleNorm()(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_fresh_shuffle_upscale_gives_equal_2x2_blocks() -> None:
    torch.manual_seed(0)
    drawn = ShuffleUpscale(6, 4)(torch.randn(2, 6, 5, 5))
    assert drawn.shape == (2, 4, 10, 10)
    cells = drawn.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)  # (2, 4, 5, 5, 4)
    assert torch.equal(cells, cells[..., :1].expand_as(cells))
    assert drawn.std() > 0.5


def test_the_lite_upscale_doubles_too() -> None:
    assert NearestUpscale(6, 4)(torch.randn(2, 6, 5, 5)).shape == (2, 4, 10, 10)


def test_attention_starts_as_identity_and_then_follows_the_formula() -> None:
    torch.manual_seed(0)
    block, x = SelfAttention(8), torch.randn(2, 8, 3, 3)
    assert torch.equal(block(x), x)
    nn.init.constant_(block.gamma, 0.5)
    f, g, h = (conv(x).flatten(2) for conv in (block.key, block.query, block.value))
    looks = torch.softmax(g.mT @ f, dim=-1)  # (N, places that look, places that are seen)
    assert torch.allclose(block(x), x + 0.5 * (h @ looks.mT).view_as(x), atol=1e-6)


def test_faces_of_one_person_teach_nobody_elses_decoder(tiny: Gan) -> None:
    tiny(torch.rand(2, 3, 64, 64), "anna").sum().backward()
    assert all(p.grad is not None for p in (*tiny.encoder.parameters(), *tiny.decoder("anna").parameters()))
    assert all(p.grad is None for p in tiny.decoder("bert").parameters())


def test_rotation_hands_each_decoder_to_the_next_identity(tiny: Gan) -> None:
    face = torch.rand(1, 3, 64, 64)
    before = [tiny(face, name) for name in tiny.identities]
    tiny.rotate_decoders()
    assert torch.equal(tiny(face, "bert"), before[0])
    assert torch.equal(tiny(face, "anna"), before[2])


def test_state_keys_are_frozen() -> None:
    """Models that people have trained must load tomorrow."""
    with torch.device("meta"):
        keys = list(Gan(["anna", "b.t"], replace(TINY, input_px=128, attention_px=64)).state_dict())
    assert keys[:3] == ["encoder.0.weight", "encoder.1.0.weight", "encoder.2.0.weight"]
    assert "encoder.3.gamma" in keys
    assert [key for key in keys if key.startswith("decoders.to_b%2Et") and key.endswith("weight")] == [
        f"decoders.to_b%2Et.{part}.weight"
        for part in (
            *("stem.0.0", "stem.0.2", "stem.1.0", "stem.1.2", "stem.2.key", "stem.2.query", "stem.2.value"),
            *("stem.3.0", "stem.3.2", "stem.4.first", "stem.4.second", "stem.5.key", "stem.5.query", "stem.5.value"),
            *("sides.0", "doublings.0.0.0", "doublings.0.0.2", "doublings.0.1.0", "alpha", "picture"),
        )
    ]


@pytest.mark.parametrize("identities", [[], ["anna"], ["anna", "anna"]])
def test_two_or_more_distinct_identities_are_needed(identities: list[str]) -> None:
    with pytest.raises(FacemillError, match="two or more distinct"):
        Gan(identities, TINY)


@pytest.mark.parametrize("side", [0, 32, 96, 100])
def test_impossible_sizes_are_refused(side: int) -> None:
    with pytest.raises(FacemillError, match="64 times a power of two"):
        Gan(["anna", "bert"], replace(TINY, input_px=side))


def test_unknown_names_tell_the_known_ones(tiny: Gan) -> None:
    with pytest.raises(FacemillError, match=r"'carl'.*anna, bert, cleo"):
        tiny(torch.rand(1, 3, 64, 64), "carl")
    with pytest.raises(FacemillError, match="no preset 'big'; there are standard64"):
        build_model("gan", "big", ["a", "b"])
