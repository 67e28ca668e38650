"""The autoencoder is the one of S13, layer for layer, and keeps people apart."""

from __future__ import annotations

import pytest
import torch

from facemill.errors import FacemillError
from facemill.nets import build_model, model_names
from facemill.nets.autoencoder import PRESETS, Autoencoder, AutoencoderConfig

TINY = AutoencoderConfig(
    input_px=16, encoder_channels=(4, 8), bottleneck=6, unfold_channels=4, code_channels=5, decoder_channels=(4,)
)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def tiny() -> Autoencoder:
    """A 16 px net with random weights that are the same each time."""
    torch.manual_seed(0)
    return Autoencoder(["anna", "bert"], TINY)


def test_classic_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):  # shapes without memory
        model = Autoencoder(["anna", "bert"], PRESETS["classic"])
    assert count(model.encoder) == 69_662_976
    assert count(model.decoders["to_anna"]) == 6_199_747
    assert count(model) == 82_062_470


def test_classic128_is_the_same_column_for_twice_the_side() -> None:
    with torch.device("meta"):
        model = Autoencoder(["anna", "bert"], PRESETS["classic128"])
        assert model(torch.empty(2, 3, 128, 128), "bert").shape == (2, 3, 128, 128)
    assert count(model.encoder) == 95_878_400
    assert count(model.decoders["to_anna"]) == 6_271_203
    assert count(model) == 108_420_806


def test_small_is_at_least_twenty_times_lighter() -> None:
    with torch.device("meta"):
        model = Autoencoder(["anna", "bert"], PRESETS["small"])
    assert count(model) < 82_062_470 / 20


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (1, (128, 32, 32)),
        (2, (256, 16, 16)),
        (3, (512, 8, 8)),
        (4, (1024, 4, 4)),
        (5, (16_384,)),
        (6, (1024,)),
        (7, (16_384,)),
        (8, (1024, 4, 4)),
        (9, (512, 8, 8)),
    ],
)
def test_encoder_follows_the_column_of_shapes(layers: int, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        encoder = Autoencoder(["anna"], PRESETS["classic"]).encoder
        assert encoder[:layers](torch.empty(2, 3, 64, 64)).shape == (2, *shape)


@pytest.mark.parametrize(
    ("layers", "shape"), [(1, (256, 16, 16)), (2, (128, 32, 32)), (3, (64, 64, 64)), (5, (3, 64, 64))]
)
def test_decoder_follows_the_column_of_shapes(layers: int, shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        decoder = Autoencoder(["anna"], PRESETS["classic"]).decoders["to_anna"]
        assert decoder[:layers](torch.empty(2, 512, 8, 8)).shape == (2, *shape)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "classic"])
def test_every_preset_gives_back_its_input_size_in_0_to_1(preset: str) -> None:
    model = build_model("autoencoder", preset, ["anna", "bert"])
    face = model(torch.rand(2, 3, model.input_px, model.input_px), "bert")
    assert face.shape == (2, 3, model.input_px, model.input_px)
    assert 0 <= face.min() <= face.max() <= 1


def test_faces_of_one_person_teach_nobody_elses_decoder(tiny: Autoencoder) -> None:
    tiny(torch.rand(2, 3, 16, 16), "anna").sum().backward()
    assert all(p.grad is not None for p in (*tiny.encoder.parameters(), *tiny.decoders["to_anna"].parameters()))
    assert all(p.grad is None for p in tiny.decoders["to_bert"].parameters())


def test_state_keys_are_frozen(tiny: Autoencoder) -> None:
    """Models that people have trained must load tomorrow."""
    assert [key for key in tiny.state_dict() if key.endswith("weight")] == [
        "encoder.0.0.weight",
        "encoder.1.0.weight",
        "encoder.3.weight",
        "encoder.4.weight",
        "encoder.6.0.weight",
        "decoders.to_anna.0.0.weight",
        "decoders.to_anna.1.weight",
        "decoders.to_bert.0.0.weight",
        "decoders.to_bert.1.weight",
    ]


def test_upscale_turns_four_channels_into_four_pixels(tiny: Autoencoder) -> None:
    conv, _, shuffle = tiny.decoders["to_anna"][0]
    cell = torch.arange(16.0).view(1, 16, 1, 1)
    assert shuffle(cell)[0, 1].tolist() == [[4, 5], [6, 7]]
    assert conv.out_channels == 4 * TINY.decoder_channels[0]


def test_output_for_fixed_weights_is_the_stored_one() -> None:
    """Weights 0.02 everywhere and a grey face: what is computed must not change under anybody's hands."""
    model = Autoencoder(["anna"], TINY)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.02)
    face = model(torch.full((1, 3, 16, 16), 0.5), "anna")
    assert face[0, 0, 8, 8].item() == pytest.approx(0.62428, abs=1e-5)
    assert face[0, 0, 0, 0].item() == pytest.approx(0.52251, abs=1e-5)


def test_an_unknown_identity_names_the_known_ones(tiny: Autoencoder) -> None:
    with pytest.raises(FacemillError, match=r"'carl'.*anna, bert"):
        tiny(torch.rand(1, 3, 16, 16), "carl")


def test_a_name_with_a_dot_or_of_a_method_is_a_name_like_any_other() -> None:
    model = Autoencoder(["a.b", "keys"], TINY)
    assert model.identities == ("a.b", "keys")
    assert model(torch.rand(1, 3, 16, 16), "a.b").shape == (1, 3, 16, 16)


@pytest.mark.parametrize("identities", [[], ["anna", "anna"]])
def test_identities_must_be_distinct(identities: list[str]) -> None:
    with pytest.raises(FacemillError, match="distinct"):
        Autoencoder(identities, TINY)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (AutoencoderConfig(input_px=50), "cannot be halved"),
        (AutoencoderConfig(decoder_channels=(256, 128)), "do not lead"),
    ],
)
def test_sizes_that_do_not_meet_are_refused(config: AutoencoderConfig, says: str) -> None:
    with torch.device("meta"), pytest.raises(FacemillError, match=says):
        Autoencoder(["anna"], config)


def test_unknown_models_and_presets_name_the_known_ones() -> None:
    assert "autoencoder" in model_names()
    with pytest.raises(FacemillError, match="no model 'autoencodr'; there are autoencoder"):
        build_model("autoencodr", "small", ["a", "b"])
    with pytest.raises(FacemillError, match="no preset 'big'; there are classic, classic128, small"):
        build_model("autoencoder", "big", ["a", "b"])


def test_it_starts_from_a_trained_one_with_what_both_know() -> None:
    trained, fresh = (Autoencoder(people, TINY) for people in (["anna", "bert"], ["bert", "cleo"]))
    cleo = fresh.state_dict()["decoders.to_cleo.0.0.weight"].clone()
    assert fresh.start_from(trained) == ("cleo",)
    face = torch.rand(2, 3, fresh.input_px, fresh.input_px)
    assert torch.equal(fresh(face, "bert"), trained(face, "bert"))
    assert torch.equal(fresh.state_dict()["decoders.to_cleo.0.0.weight"], cleo)
