"""The fast face-swap network has the published shape and grows without forgetting."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from facemill.errors import FacemillError
from facemill.nets import build_model
from facemill.nets.transform import PRESETS, Transform, TransformConfig, grow

TINY = TransformConfig(input_px=16, smallest_px=4, channels=4)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.fixture
def tiny() -> Transform:
    """A 16 px net for two people with random weights that are the same each time."""
    torch.manual_seed(0)
    return Transform(["anna", "bert"], TINY)


@pytest.mark.parametrize(
    ("preset", "parameters"), [("classic", 1_108_451), ("classic256", 1_820_739), ("classic512", 2_786_051)]
)
def test_one_person_costs_the_published_number_of_parameters(preset: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(Transform(["anna"], PRESETS[preset])) == parameters
        assert count(Transform(["anna", "bert"], PRESETS[preset])) == 2 * parameters


def test_branches_see_the_picture_at_8_to_128_px() -> None:
    assert PRESETS["classic"].sides_px == (8, 16, 32, 64, 128)
    assert PRESETS["classic512"].sides_px[-2:] == (256, 512)


def test_joins_grow_by_one_branch_from_coarse_to_fine() -> None:
    """The table of shapes in the module: what each branch and each join gives."""
    shapes: list[tuple[int, ...]] = []
    with torch.device("meta"):
        net = Transform(["anna"], PRESETS["classic"]).nets["to_anna"]
        for block in [*net.branches, *net.joins]:
            block.register_forward_hook(lambda _block, _given, output: shapes.append(tuple(output.shape[1:])))
        assert net(torch.empty(2, 3, 128, 128)).shape == (2, 3, 128, 128)
    assert shapes[:5] == [(32, side, side) for side in (8, 16, 32, 64, 128)]
    assert shapes[5:] == [(64, 16, 16), (96, 32, 32), (128, 64, 64), (160, 128, 128)]


def test_a_block_is_two_convs_of_3_and_one_of_1_each_with_a_relu(tiny: Transform) -> None:
    layers = list(tiny.nets["to_anna"].joins[0])
    assert [layer.kernel_size for layer in layers[::2]] == [(3, 3), (3, 3), (1, 1)]
    assert [layer.padding for layer in layers[::2]] == [(1, 1), (1, 1), (0, 0)]
    assert all(isinstance(layer, torch.nn.ReLU) for layer in layers[1::2])


@pytest.mark.parametrize("preset", ["small", "classic"])
def test_a_face_comes_back_at_its_size_in_0_to_1(preset: str) -> None:
    model = build_model("transform", preset, ["anna", "bert"])
    face = model(torch.rand(1, 3, model.input_px, model.input_px), "bert")
    assert face.shape == (1, 3, model.input_px, model.input_px)
    assert 0 <= face.min() <= face.max() <= 1


def test_nets_of_two_people_share_nothing(tiny: Transform) -> None:
    tiny(torch.rand(2, 3, 16, 16), "anna").sum().backward()
    assert all(p.grad is not None for p in tiny.nets["to_anna"].parameters())
    assert all(p.grad is None for p in tiny.nets["to_bert"].parameters())


def test_a_grown_net_has_every_weight_of_the_trained_one(tiny: Transform) -> None:
    old, new = tiny.state_dict(), grow(tiny).state_dict()
    for name, tensor in old.items():
        kept = new[name][:, : tensor.shape[1]] if "to_rgb.weight" in name else new[name]
        assert torch.equal(kept, tensor), name
    added = {name.split(".", 2)[2].rsplit(".", 2)[0] for name in set(new) - set(old)}
    assert added == {"branches.3", "joins.2"}


def test_a_grown_net_draws_at_first_what_the_trained_one_draws(tiny: Transform) -> None:
    large, face = grow(tiny), torch.rand(2, 3, 32, 32)
    small = tiny(functional.avg_pool2d(face, 2), "bert")
    assert torch.equal(large(face, "bert"), functional.interpolate(small, scale_factor=2, mode="nearest"))
    assert large.input_px == 32


def test_all_of_a_grown_net_learns_after_one_step(tiny: Transform) -> None:
    """`to_rgb` does not listen to the new channels at first; after its first step it does."""
    large, face = grow(tiny), torch.rand(2, 3, 32, 32)
    optimizer = torch.optim.SGD(large.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (large(face, "anna") - face.flip(1)).square().mean().backward()
        optimizer.step()
    fresh = large.nets["to_anna"].branches[-1][0].weight.grad
    assert fresh is not None
    assert fresh.abs().sum() > 0


def test_growing_the_128_px_net_gives_the_256_px_preset() -> None:
    with torch.device("meta"):
        grown = grow(Transform(["anna"], PRESETS["classic"]))
    assert grown.config == PRESETS["classic256"]
    assert grow(Transform(["a"], replace(TINY, channels=2))).config.sides_px == (4, 8, 16, 32)


def test_an_unknown_identity_names_the_known_ones(tiny: Transform) -> None:
    with pytest.raises(FacemillError, match=r"'carl'.*anna, bert"):
        tiny(torch.rand(1, 3, 16, 16), "carl")


@pytest.mark.parametrize(
    ("identities", "config", "says"),
    [
        ([], TINY, "distinct"),
        (["anna", "anna"], TINY, "distinct"),
        (["anna"], TransformConfig(input_px=96), "power of two"),
        (["anna"], TransformConfig(input_px=4), "power of two"),
    ],
)
def test_what_cannot_be_built_is_refused(identities: list[str], config: TransformConfig, says: str) -> None:
    with torch.device("meta"), pytest.raises(FacemillError, match=says):
        Transform(identities, config)


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(FacemillError, match="no preset 'big'; there are classic, classic256, classic512, small"):
        build_model("transform", "big", ["anna", "bert"])


def test_a_larger_net_starts_from_a_smaller_one_s_picture(tiny: Transform) -> None:
    larger = Transform(["bert", "cleo"], replace(TINY, input_px=64))
    assert larger.start_from(tiny) == ("cleo",)
    face = torch.rand(1, 3, 64, 64)
    halved = functional.avg_pool2d(face, 4)
    assert torch.allclose(functional.avg_pool2d(larger(face, "bert"), 4), tiny(halved, "bert"), atol=1e-5)


def test_a_net_of_another_width_cannot_be_started_from(tiny: Transform) -> None:
    with pytest.raises(FacemillError, match=r"cannot start from this Transform: .* another shape"):
        Transform(["anna"], replace(TINY, channels=8)).start_from(tiny)
