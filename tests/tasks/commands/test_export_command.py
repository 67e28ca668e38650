"""`facemill export model` on a model folder: a file for each identity, or for the one that is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from facemill.errors import FacemillError
from facemill.landmarks import signature
from facemill.model_folder import save_model
from facemill.nets import build_model
from tasks.commands.export_model import export

META = {
    "name": "autoencoder",
    "preset": "small",
    "identities": ["anna", "bert"],
    "input_px": 64,
    "crop_px": 256,
    "crop_coverage": 1.6,
    "landmarks": signature("dlib"),
    "train_coverage": 1.1,
    "references": {"anna": [[0.5] * 128], "bert": [[0.25] * 128]},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an untrained model."""
    folder = tmp_path_factory.mktemp("project")
    save_model(folder / "data" / "model", build_model("autoencoder", "small", ["anna", "bert"]), META)
    return folder


def test_every_identity_gets_a_file_that_draws_as_torch_does(root: Path) -> None:
    pytest.importorskip("onnxscript")
    written = export(root)
    assert [path.name for path in written] == ["anna.onnx", "bert.onnx"]
    assert all(path.parent == root / "data" / "export" and path.is_file() for path in written)
    assert max(written.values()) < 1e-4


def test_an_identity_that_the_model_does_not_draw_is_refused(root: Path) -> None:
    with pytest.raises(FacemillError, match="the model draws anna, bert, not 'carl'"):
        export(root, identity="carl")


def test_a_project_without_a_model_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match=r"model.json is missing"):
        export(tmp_path)
