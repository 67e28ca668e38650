"""A model as ONNX draws what torch draws, for any number of faces; what cannot be exported is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from facemill.errors import FacemillError
from facemill.nets import build_model, model_names
from facemill.nets.autoencoder import Autoencoder, AutoencoderConfig
from facemill.train import export

TINY = AutoencoderConfig(
    input_px=16, encoder_channels=(8, 16), bottleneck=16, unfold_channels=8, code_channels=8, decoder_channels=(8,)
)


@pytest.fixture
def model() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(["anna", "bert"], TINY).eval()


def test_the_file_draws_what_torch_draws(model: Autoencoder, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert export.export_onnx(model, "bert", tmp_path / "bert.onnx") < 1e-5
    faces = torch.rand(5, 3, 16, 16)
    session = onnxruntime.InferenceSession(str(tmp_path / "bert.onnx"), providers=["CPUExecutionProvider"])
    (drawn,) = session.run(None, {"face": faces.numpy()})
    with torch.inference_mode():
        assert np.abs(drawn - model(faces, "bert").numpy()).max() < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["bert.onnx"]


@pytest.mark.parametrize("name", [name for name in model_names() if name != "autoencoder"])
def test_every_model_is_exported(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model = build_model(name, "small", ["anna", "bert"]).eval()
    assert export.export_onnx(model, "anna", tmp_path / "anna.onnx") < 1e-4


def test_a_file_that_differs_from_torch_is_not_left_behind(
    model: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(FacemillError, match="ONNX Runtime and torch differ by"):
        export.export_onnx(model, "anna", tmp_path / "anna.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_identity_is_named(model: Autoencoder, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(FacemillError, match="no identity 'carl'"):
        export.export_onnx(model, "carl", tmp_path / "carl.onnx")


def test_missing_packages_are_named_with_the_command(
    model: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(FacemillError, match=r"wants the package onnx: run `python deploy/install.py export`"):
        export.export_onnx(model, "anna", tmp_path / "anna.onnx")
