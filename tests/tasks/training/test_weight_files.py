"""Files that a training is given beside its dataset count by content."""

from __future__ import annotations

from pathlib import Path

import pytest

from facemill.errors import FacemillError
from tasks.params import TrainParams
from tasks.training.weight_files import placed_options, weight_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("models/anna/weights", "download/file", "vgg.pth"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
    return tmp_path


def test_another_content_is_another_training(root: Path) -> None:
    train = TrainParams(start=Path("models/anna"), options={"features": "vgg.pth", "cycle": True})
    before = weight_files(train, root)
    assert sorted(before) == ["features", "start"]
    for name, changed in (("vgg.pth", "features"), ("models/anna/weights", "start")):
        (root / name).write_text("two")
        after = weight_files(train, root)
        assert [key for key in after if after[key] != before[key]] == [changed]
        before = after


def test_options_name_files_from_the_project_and_words_stay_words(root: Path) -> None:
    options = {"features": "autoencoder:models/anna", "light": "vgg.pth", "choice": "download", "style_share": 2.0}
    placed = placed_options(TrainParams(options=options), root)
    assert placed["features"] == f"autoencoder:{root / 'models/anna'}"
    assert placed["light"] == str(root / "vgg.pth")
    assert (placed["choice"], placed["style_share"]) == ("download", 2.0)


@pytest.mark.parametrize(
    ("start", "problem"), [("models/bert", "there is no folder"), ("data/model", "which this training writes itself")]
)
def test_a_start_that_cannot_be_is_named(root: Path, start: str, problem: str) -> None:
    with pytest.raises(FacemillError, match=problem):
        weight_files(TrainParams(start=Path(start)), root)


def test_a_file_in_the_home_folder_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(root))
    train = TrainParams(
        start=Path("~/models/anna"), options={"features": "autoencoder:~/models/anna", "b": "~/vgg.pth"}
    )
    assert sorted(weight_files(train, Path("/elsewhere"))) == ["b", "features", "start"]
    assert placed_options(train, Path("/elsewhere"))["b"] == str(root / "vgg.pth")


@pytest.mark.parametrize("stated", ["vgg19.pth", "weights/vgg", "~/vgg.pth", "autoencoder:models"])
def test_a_file_that_is_not_there_is_named_before_the_training(tmp_path: Path, stated: str, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FacemillError, match=r"train\.options\.features: there is no file or folder"):
        weight_files(TrainParams(options={"features": stated}), tmp_path)
