"""DSFD's net: the paper's sizes, what each shot sees, and the names under which others keep its weights."""

import re

import pytest
import torch

from facemill.errors import FacemillError
from facemill.nets.dsfd import (
    CHANNELS,
    DSFD_PARAMETERS,
    PUBLIC_VARIANT,
    Branches,
    Dsfd,
    DsfdConfig,
    L2Norm,
    from_public_names,
    load_vgg16,
)
from facemill.nets.dsfd_priors import priors

NARROW = DsfdConfig(width=0.125)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole():
    """The net of the paper, without memory behind its weights."""
    with torch.device("meta"):
        return Dsfd()


@pytest.fixture
def narrow():
    torch.manual_seed(0)
    return Dsfd(NARROW)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_net_has_the_papers_size_part_by_part(whole):
    assert count(whole) == DSFD_PARAMETERS == 49_793_432
    sizes = {name: count(part) for name, part in whole.named_children()}
    assert sizes == {
        "backbone": 20_483_904,
        "extras": 1_803_392,
        "first_norms": 1280,
        "enhance": 27_171_728,
        "second_norms": 1280,
        "first_head": 165_924,
        "second_head": 165_924,
    }
    assert count(whole.enhance.branches) == 23_626_896


def test_at_640_px_the_maps_are_the_papers_and_enhancing_keeps_their_shapes(whole):
    with torch.device("meta"):
        plain = whole._maps(torch.empty(1, 3, 640, 640))
        enhanced = whole.enhance(plain)
    shapes = [(1, channels, side, side) for channels, side in zip(CHANNELS, (160, 80, 40, 20, 10, 5), strict=True)]
    assert [tuple(x.shape) for x in plain] == shapes
    assert [tuple(x.shape) for x in enhanced] == shapes


def test_at_640_px_there_is_an_answer_for_each_of_34125_priors(whole):
    with torch.device("meta"):
        output = whole.train()(torch.empty(2, 3, 640, 640))
    assert output.first.offsets.shape == output.second.offsets.shape == (2, 34_125, 4)
    assert output.first.logits.shape == output.second.logits.shape == (2, 34_125, 2)


@pytest.mark.parametrize("channels", [256, 512, 1024, 4])
def test_branches_give_a_third_of_the_channels_each_and_keep_the_shape(channels):
    with torch.device("meta"):
        branches = Branches(channels)
        assert branches(torch.empty(1, channels, 7, 9)).shape == (1, channels, 7, 9)
    convs = [[layer for layer in chain if isinstance(layer, torch.nn.Conv2d)] for chain in branches.chains]
    assert [len(chain) for chain in convs] == [1, 2, 3]
    assert {conv.dilation for chain in convs for conv in chain} == {(3, 3)}
    assert sum(chain[-1].out_channels for chain in convs) == channels


def test_only_the_second_shot_is_computed_outside_training(narrow):
    pictures = torch.rand(1, 3, 128, 128)
    both, second = narrow.train()(pictures), narrow.eval()(pictures)
    assert both.first is not None
    assert second.first is None
    torch.testing.assert_close(second.second.logits, both.second.logits)


@pytest.mark.parametrize("size_hw", [(128, 128), (1, 1), (1, 300), (130, 77)])
def test_any_picture_size_has_as_many_answers_as_priors(narrow, size_hw):
    output = narrow.train()(torch.rand(1, 3, *size_hw))
    for number, shot in enumerate((output.first, output.second), start=1):
        assert shot.offsets.shape == (1, len(priors(*size_hw, NARROW.priors, number)), 4)


def test_answers_stand_where_their_priors_are(narrow):
    """A change in one corner changes the finest map's answers there, and none in the far corner."""
    picture = torch.zeros(1, 3, 512, 512)
    changed = picture.clone()
    changed[..., :4, :4] = 1
    narrow.train()
    with torch.no_grad():
        difference = (narrow(picture).first.logits - narrow(changed).first.logits)[0].abs().sum(dim=1)[: 128 * 128]
    rows = torch.nonzero(difference).flatten()
    places = priors(512, 512, NARROW.priors, 1)[rows]
    assert len(rows)
    assert places[:, 2:].max() < 60


def test_a_batch_gives_what_its_pictures_give_alone(narrow):
    pictures = torch.rand(3, 3, 128, 256)
    together = narrow.eval()(pictures).second
    alone = [narrow(picture[None]).second for picture in pictures]
    torch.testing.assert_close(together.logits, torch.cat([shot.logits for shot in alone]), atol=1e-4, rtol=1e-4)


def test_l2norm_gives_every_cell_the_length_of_its_scale():
    norm = L2Norm(4, 10.0)
    features = torch.rand(2, 4, 3, 3) * 1000
    torch.testing.assert_close(norm(features).norm(dim=1), torch.full((2, 3, 3), 10.0))
    assert norm(torch.full((1, 4, 1, 1), 60_000.0, dtype=torch.float16)).isfinite().all()


def test_a_cell_of_zeros_has_a_finite_gradient():
    features = torch.zeros(1, 4, 1, 1, requires_grad=True)
    L2Norm(4, 10.0)(torch.relu(features)).sum().backward()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("wrong", [{"aspect": 0}, {"match_iou": 1.0}, {"width": 0.0}, {"width": 2.0}])
def test_an_impossible_config_is_refused(wrong):
    with pytest.raises(FacemillError, match="DSFD wants"):
        DsfdConfig(**wrong)


def public_names():
    """The names of the public VGG16 checkpoint, as its net's listing has them."""
    layers = [f"vgg.{at}" for at in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)]
    layers += [f"extras.{at}" for at in range(4)]
    layers += [f"fpn_topdown.{at}" for at in range(6)]
    layers += [f"fpn_latlayer.{at}" for at in range(5)]
    for at in range(6):
        layers += [f"fpn_fem.{at}.{branch}" for branch in ("branch1", "branch2.0", "branch2.2")]
        layers += [f"fpn_fem.{at}.branch3.{number}" for number in (0, 2, 4)]
        layers += [f"{head}.{at}" for head in ("loc_pal1", "conf_pal1", "loc_pal2", "conf_pal2")]
    norms = [f"L2Norm{kind}{at}.weight" for kind in ("of", "ef") for at in (1, 2, 3)]
    return norms + [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]


def test_public_names_are_ours_one_to_one(whole):
    ours = from_public_names(dict.fromkeys(public_names(), torch.empty(0)))
    assert len(ours) == len(public_names())
    assert set(ours) == set(whole.state_dict())


@pytest.mark.parametrize(
    ("public", "shape"),
    [
        ("vgg.31.weight", (1024, 512, 3, 3)),
        ("extras.3.weight", (256, 128, 3, 3)),
        ("L2Normef3.weight", (512,)),
        ("fpn_topdown.2.weight", (1024, 512, 1, 1)),
        ("fpn_latlayer.1.weight", (1024, 1024, 1, 1)),
        ("fpn_fem.0.branch1.weight", (85, 256, 3, 3)),
        ("fpn_fem.0.branch2.2.weight", (85, 85, 3, 3)),
        ("fpn_fem.3.branch3.0.weight", (342, 1024, 3, 3)),
        ("loc_pal2.3.weight", (4, 1024, 3, 3)),
        ("conf_pal1.5.bias", (2,)),
    ],
)
def test_a_public_weight_has_the_shape_of_ours(whole, public, shape):
    [ours] = from_public_names({public: torch.empty(0)})
    assert tuple(whole.state_dict()[ours].shape) == shape


def test_a_public_checkpoint_may_be_bare_wrapped_or_data_parallel():
    bare = {"vgg.0.bias": torch.ones(2)}
    wrapped = {"epoch": 7, "weight": {f"module.{name}": value for name, value in bare.items()}}
    for state in (bare, wrapped):
        [(name, value)] = from_public_names(state).items()
        assert (name, value.tolist()) == ("backbone.0.bias", [1, 1])


def test_our_own_names_and_strange_ones_stay_as_they_are(narrow):
    names = [*narrow.state_dict(), "layer1.0.conv1.weight", "vggface.0.weight"]
    assert list(from_public_names(dict.fromkeys(names, torch.empty(0)))) == names


def test_the_public_variant_has_square_priors_and_a_lower_threshold():
    assert (PUBLIC_VARIANT.priors.aspect, PUBLIC_VARIANT.match_iou, PUBLIC_VARIANT.width) == (1.0, 0.35, 1.0)


def test_state_keys_are_frozen(narrow):
    """Detectors that people have trained must load tomorrow."""
    heads = {re.sub(r"\.\d+", "", key) for key in narrow.state_dict() if key.endswith("weight")}
    assert heads == {
        "backbone.weight",
        "extras.weight",
        "first_norms.weight",
        "second_norms.weight",
        "enhance.top_down.weight",
        "enhance.lateral.weight",
        "enhance.branches.chains.weight",
        "first_head.offsets.weight",
        "first_head.logits.weight",
        "second_head.offsets.weight",
        "second_head.logits.weight",
    }


def test_start_weights_are_refused_by_a_narrow_net(narrow, tmp_path):
    with pytest.raises(FacemillError, match=r"width 1 only.*0\.125"):
        load_vgg16(narrow, tmp_path / "vgg16.safetensors")
