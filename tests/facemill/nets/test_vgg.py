"""VGG: layers by name, and ImageNet weights from the files that people have."""

import pytest
import torch
from safetensors.torch import save_file

from facemill.errors import FacemillError
from facemill.files import file_sha256
from facemill.nets import vgg
from facemill.nets.dsfd import Dsfd, load_vgg16
from facemill.nets.vgg import CAFFE, TORCHVISION, VggFeatures, layer_names, read_vgg, refold, vgg_layers


@pytest.mark.parametrize(("depth", "parameters", "layers"), [(16, 14_714_688, 31), (19, 20_024_384, 37)])
def test_the_convolutions_have_the_papers_size(depth, parameters, layers):
    stack = torch.nn.ModuleList(vgg_layers(depth, device="meta"))
    assert sum(weight.numel() for weight in stack.parameters()) == parameters
    assert len(stack) == len(layer_names(depth)) == layers


def test_layers_bear_the_names_of_the_paper():
    names = layer_names(19)
    assert [names[at] for at in (0, 1, 4, 5, 20, 36)] == ["conv1_1", "relu1_1", "pool1", "conv2_1", "relu4_1", "pool5"]


def test_features_come_by_name_and_nothing_is_computed_beyond_the_last():
    net = VggFeatures(16, ("relu2_2", "conv1_1"), width=0.1)
    found = net(torch.rand(1, 3, 32, 48))
    assert {name: tuple(x.shape) for name, x in found.items()} == {
        "conv1_1": (1, 6, 32, 48),
        "relu2_2": (1, 13, 16, 24),
    }
    assert len(net.features) == 9
    assert not any(weight.requires_grad for weight in net.parameters())


def test_a_convs_features_are_not_overwritten_by_the_rectifier_behind_it():
    net = VggFeatures(16, ("conv1_1", "relu1_1"), width=0.1)
    found = net(torch.rand(1, 3, 16, 16))
    assert found["conv1_1"].min() < 0 <= found["relu1_1"].min()


def test_an_unknown_layer_names_the_known_ones():
    with pytest.raises(FacemillError, match=r"no layer 'relu6_1'; there are conv1_1"):
        VggFeatures(19, ("relu6_1",))


def test_a_first_conv_moved_to_another_scale_answers_the_same():
    picture = torch.rand(1, 3, 9, 9) * 255
    weight, bias = torch.rand(5, 3, 3, 3) - 0.5, torch.rand(5)

    def answer(weight, bias, scale):
        mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (scale.mean_rgb, scale.deviation_rgb))
        return torch.nn.functional.conv2d((picture - mean) / deviation, weight, bias)

    moved = refold(weight, bias, TORCHVISION, CAFFE)
    torch.testing.assert_close(answer(*moved, CAFFE), answer(weight, bias, TORCHVISION), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(refold(*moved, CAFFE, TORCHVISION), (weight, bias), atol=1e-5, rtol=1e-5)


def convolutions(prefix=""):
    """The weights of VGG16's convolutions, small and different, under a file's names."""
    shapes = torch.nn.ModuleList(vgg_layers(16, device="meta")).state_dict()
    return {
        f"{prefix}{name}": torch.full(value.shape, (at + 1) / 100) for at, (name, value) in enumerate(shapes.items())
    }


def classifier():
    """fc6 and fc7 whose values tell their place: within 7×7, the input, the output. (float16: they are large.)"""
    fc6 = torch.arange(49).half().view(7, 7).expand(4096, 512, 7, 7).contiguous()
    fc7 = torch.arange(4096).half().expand(4096, 4096).contiguous()
    biases = {f"classifier.{at}.bias": torch.arange(4096).half() for at in (0, 3)}
    return {"classifier.0.weight": fc6.view(4096, -1), "classifier.3.weight": fc7, **biases}


def test_torchvisions_names_fill_the_backbone_and_the_classifier_is_thinned_out(tmp_path):
    """fc6 keeps places 0, 3, 6 of 7×7 and every fourth output, fc7 every fourth of both."""
    path = tmp_path / "vgg16.safetensors"
    save_file(convolutions("features.") | classifier(), path)
    model = Dsfd()
    load_vgg16(model, path)
    fc6, fc7 = model.backbone[31], model.backbone[33]
    assert fc6.weight[5, 7].tolist() == [[0, 3, 6], [21, 24, 27], [42, 45, 48]]
    assert fc6.bias[:3].tolist() == fc7.weight[9, :3, 0, 0].tolist() == [0, 4, 8]
    assert model.backbone[28].weight.unique().tolist() == pytest.approx([0.25])
    expected = torch.full((3,), 0.01) / torch.tensor(TORCHVISION.deviation_rgb)  # now fed 0…255, undivided
    torch.testing.assert_close(model.backbone[0].weight[0, :, 0, 0], expected)


def test_ssds_names_fill_the_backbone_as_they_are(tmp_path):
    path = tmp_path / "vgg16_reducedfc.pth"
    dense = {"31.weight": torch.ones(1024, 512, 3, 3), "31.bias": torch.ones(1024)}
    dense |= {"33.weight": torch.full((1024, 1024, 1, 1), 2.0), "33.bias": torch.ones(1024)}
    torch.save(convolutions() | dense, path)
    model = Dsfd()
    load_vgg16(model, path, sha256=file_sha256(path))
    assert model.backbone[0].weight.unique().tolist() == pytest.approx([0.01])
    assert (model.backbone[31].weight.unique().item(), model.backbone[33].weight.unique().item()) == (1, 2)


def test_a_file_without_a_classifier_leaves_fc6_and_fc7_alone(tmp_path):
    path = tmp_path / "features.safetensors"
    save_file(convolutions("features."), path)
    assert (read_vgg(path, 16).fc6, read_vgg(path, 16).fc7) == (None, None)


@pytest.mark.parametrize("missing", [torch.nan, 0.0])
def test_features_ported_from_caffe_stay_in_caffes_scale(tmp_path, missing):
    path = tmp_path / "vgg16_features.safetensors"
    lost = {"classifier.0.weight": torch.full((4096, 512 * 49), missing, dtype=torch.float16)}
    lost["classifier.0.bias"] = torch.zeros(4096)
    save_file(convolutions("features.") | lost, path)
    found = read_vgg(path, 16, scale=CAFFE)
    assert found.fc6 is None
    assert found.layers["0.weight"].unique().tolist() == pytest.approx([0.01])


def test_weights_of_another_depth_and_with_nan_are_refused(tmp_path):
    path = tmp_path / "vgg.safetensors"
    save_file(convolutions("features."), path)
    with pytest.raises(
        FacemillError, match=r"vgg\.safetensors has no fitting weight for layer 16\.weight: it is not VGG19"
    ):
        read_vgg(path, 19)
    broken = convolutions("features.")
    broken["features.7.bias"][3] = torch.nan
    save_file(broken, path)
    with pytest.raises(FacemillError, match=r"7\.bias holds NaN"):
        read_vgg(path, 16)


def test_half_a_classifier_is_refused(tmp_path):
    path = tmp_path / "vgg16.safetensors"
    save_file(convolutions("features.") | {"classifier.0.weight": torch.zeros(4096, 512)}, path)
    with pytest.raises(FacemillError, match=r"classifier\.0 lacks its weight or its bias"):
        read_vgg(path, 16)


def test_features_load_what_a_file_has_for_them(tmp_path):
    path = tmp_path / "vgg16.safetensors"
    save_file(convolutions("features."), path)
    net = VggFeatures(16, ("relu1_2",))
    net.load(path)
    assert net.features[0].weight.unique().tolist() == pytest.approx([0.01])
    assert net.features[2].bias.unique().tolist() == pytest.approx([0.04])


def test_without_a_network_the_error_says_what_to_fetch(monkeypatch, tmp_path):
    """Port 9 of this machine answers nobody."""
    monkeypatch.setitem(vgg.DOWNLOADS, 16, "http://127.0.0.1:9/vgg16-397923af.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FacemillError, match=r"could not be downloaded .*fetch http.*vgg16-397923af\.pth"):
        read_vgg(None, 16)
