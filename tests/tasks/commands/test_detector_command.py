"""`facemill detector`: settings are checked before anything starts, numbers come out, a told end goes on later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from facemill.detector_training.settings import DetectorTraining
from facemill.errors import FacemillError
from facemill.pictures import encode_png
from tasks.commands import detector
from tasks.commands.detector import detector_app, train

SMALL = DetectorTraining(
    steps=3, batch=2, input_px=64, width=0.02, evaluate_pictures=1, evaluate_every=1, workers=0, device="cpu"
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four noisy pictures in VOC's format; 8 and 9 are held out."""
    where = tmp_path_factory.mktemp("voc")
    for at in range(6, 10):
        noise = np.random.default_rng(at).integers(0, 255, (64, 64, 3), np.uint8)
        (where / f"{at}.png").write_bytes(encode_png(noise))
        box = "<xmin>8</xmin><ymin>8</ymin><xmax>40</xmax><ymax>50</ymax>"
        (where / f"{at}.xml").write_text(f"<annotation><object><bndbox>{box}</bndbox></object></annotation>")
    return where


def test_a_detector_is_trained_and_measured_by_two_commands(folder: Path, tmp_path: Path) -> None:
    options = ["--steps", "1", "--batch", "2", "--input-px", "64", "--width", "0.02", "--workers", "0"]
    trained = CliRunner().invoke(detector_app, ["train", str(folder), "--output", str(tmp_path), *options])
    assert trained.exit_code == 0, trained.output
    assert "2 pictures to train on, 2 held out" in trained.output
    measured = CliRunner().invoke(
        detector_app, ["evaluate", str(folder), "--weights", str(tmp_path / "detector"), "--json"]
    )
    numbers = json.loads(measured.output.splitlines()[-1])
    assert (numbers["pictures"], numbers["faces"]) == (2, 2)
    assert {"ap", "ap11", "recall", "easy", "medium", "hard", "ms_per_picture"} <= set(numbers)


def test_other_detectors_are_measured_on_all_or_the_held_out_pictures(folder: Path) -> None:
    assert detector.evaluate(folder, detector="hog")["pictures"] == 2
    assert detector.evaluate(folder, detector="hog", held_out=False)["pictures"] == 4
    assert detector.evaluate(folder, detector="hog", held_out=False, max_pictures=3)["pictures"] == 3
    with pytest.raises(FacemillError, match="brings its own weights"):
        detector.evaluate(folder, detector="hog", weights=folder)


def test_a_training_that_is_told_to_end_saves_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facemill.detector_training.data import DetectionFeed

    drawn = DetectionFeed.draw

    def tell_then_draw(self: DetectionFeed):
        if self.place == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return drawn(self)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionFeed, "draw", tell_then_draw)
        with pytest.raises(KeyboardInterrupt):
            train(folder, tmp_path, SMALL)
    assert not (tmp_path / "detector").exists()
    assert train(folder, tmp_path, SMALL).outcome.resumed_from == 2


def test_wrong_options_are_named_together_as_the_person_typed_them(folder: Path, tmp_path: Path) -> None:
    options = ["--input-px", "10", "--width", "wide", "--optimizer", "lion", "--sampling", "flop=1"]
    result = CliRunner().invoke(detector_app, ["train", str(folder), "--output", str(tmp_path), *options])
    assert isinstance(result.exception, FacemillError)
    for message in (
        "--input-px must be at least 64, got 10",
        "--width must be a number, got 'wide'",
        "--optimizer must be one of sgd, adamw, got 'lion'",
        "--sampling must be NAME=VALUE,… with anchor, ",
    ):
        assert message in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--start", "a", "--vgg16", "b"], "--start excludes vgg16"),
        (
            ["--vgg16", "download", "--vgg16-sha256", "0" * 64],
            "--vgg16-sha256 belongs to a file that is named as vgg16",
        ),
        (["--vgg16", "x.pth", "--vgg16-sha256", "0" * 63], "--vgg16-sha256 must match"),
    ],
)
def test_options_that_do_not_go_together_are_named(
    folder: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = CliRunner().invoke(detector_app, ["train", str(folder), "--output", str(tmp_path), *options])
    assert isinstance(result.exception, FacemillError)
    assert message in str(result.exception)


def test_both_commands_have_an_option_for_each_setting_with_its_sentence() -> None:
    ours = CliRunner().invoke(detector_app, ["train", "--help"], env={"COLUMNS": "300"}).output
    bare = subprocess.run(
        [sys.executable, "-m", "facemill.detector_training", "--help"], capture_output=True, text=True
    )
    for field in fields(DetectorTraining):
        flag = "--" + field.name.replace("_", "-")
        assert flag in ours, flag
        assert f"  {flag} " in bare.stdout, flag
    for text in ("Side of the square pictures that the net is trained on, in pixels. (≥ 64, ≤ 2048) (default: 640)",):
        assert text in " ".join(ours.split())
        assert text in " ".join(bare.stdout.split())


def test_help_needs_no_torch() -> None:
    code = "import sys, tasks.commands.detector; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
