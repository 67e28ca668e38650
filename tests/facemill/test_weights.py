"""Weights that a person brings: hashes, pickles, truncated files, other nets' checkpoints."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from facemill.errors import FacemillError
from facemill.files import file_sha256
from facemill.weights import load_into, read_weights


@pytest.fixture
def pth(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"weight": torch.ones(2, 2), "bias": torch.zeros(2)}, path)
    return path


def test_safetensors_need_no_hash(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "net.safetensors")
    assert read_weights(tmp_path / "net.safetensors")["weight"].tolist() == [1, 1]


def test_a_pickle_is_read_with_its_hash_only(pth):
    assert set(read_weights(pth, sha256=file_sha256(pth).upper())) == {"weight", "bias"}
    with pytest.raises(FacemillError, match=r"net\.pth is a pickle.*state the SHA-256"):
        read_weights(pth)


def test_a_file_with_another_hash_is_refused_before_it_is_read(pth):
    with pytest.raises(FacemillError, match=r"net\.pth has SHA-256 [0-9a-f]{64}, stated is 0000.*fetch it anew"):
        read_weights(pth, sha256="0" * 64)


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("sprung").touch, ())

    path = tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps({"weight": Trap()}, protocol=2))
    with pytest.raises(FacemillError, match=r"trap\.pth is truncated or holds more than weights"):
        read_weights(path, sha256=file_sha256(path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kept", [0, 5, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_a_truncated_file_is_named(tmp_path, pth, kept, kind):
    path = tmp_path / f"net.{kind}"
    if kind == "safetensors":
        save_file({"weight": torch.ones(100)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(FacemillError, match=rf"net\.{kind} is truncated"):
        read_weights(path, sha256=file_sha256(path))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(FacemillError, match=r"cannot be read .*check the path"):
            read_weights(path)


def test_a_pickle_of_something_else_is_named(tmp_path):
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    with pytest.raises(FacemillError, match=r"holds a Tensor, not weights by name"):
        read_weights(tmp_path / "tensor.pth", sha256=file_sha256(tmp_path / "tensor.pth"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"bias": None},
            r"lacks 1 weight\(s\), first bias: .* another model, wanted are those of a small net",
        ),
        ({"extra": torch.ones(1)}, r"has 1 weight\(s\) too many, first extra"),
        ({"bias": torch.ones(3)}, r"bias is \(3,\), a small net wants \(2,\)"),
        ({"bias": 7}, "bias is int"),
        ({"bias": torch.tensor([1, torch.nan])}, "bias holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_leave_the_net_alone(tmp_path, change, says):
    net = torch.nn.Linear(2, 2)
    before = net.weight.clone()
    weights = {"weight": torch.ones(2, 2), "bias": torch.zeros(2)} | change
    with pytest.raises(FacemillError, match=rf"net\.pth:? {says}"):
        load_into(net, {name: w for name, w in weights.items() if w is not None}, tmp_path / "net.pth", "a small net")
    assert torch.equal(net.weight, before)
