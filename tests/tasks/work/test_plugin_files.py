"""What a plug-in's options name counts by its content, and is found wherever a process runs."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from facemill.detect import build_detector
from facemill.detect._mtcnn_weights import wheel_folder
from facemill.errors import FacemillError
from tasks.work.plugin_files import (
    deciding_options,
    file_stamps,
    placed_options,
    plugin_weights,
    typed_detector_options,
    typed_predictor_options,
)


@dataclass(frozen=True)
class Group:
    """A group of params.yaml, as far as it counts here."""

    detector: str = "hog"
    detector_options: dict[str, Any] = field(default_factory=dict)
    landmarks: str = "dlib"
    landmark_options: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with MTCNN's three nets in `nets`."""
    (tmp_path / "nets").mkdir()
    for file in wheel_folder().glob("*.onnx"):
        shutil.copy(file, tmp_path / "nets")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("detector", "options", "placed"),
    [
        ("mtcnn", {"weights": "~/nets", "pools": "mixed"}, {"weights": "{home}/nets", "pools": "mixed"}),
        ("mtcnn", {"weights": "nets"}, {"weights": "{home}/nets"}),
        ("hog, mtcnn", {"mtcnn": {"weights": "nets"}, "hog": {}}, {"mtcnn": {"weights": "{home}/nets"}, "hog": {}}),
        ("hog", {"upsample": 1}, {"upsample": 1}),
        ("mtcnn", {"weights": None}, {"weights": None}),
    ],
)
def test_paths_are_placed_and_all_else_stays(
    home: Path, detector: str, options: dict[str, Any], placed: dict[str, Any]
) -> None:
    found = placed_options(Group(detector, options), home).detector
    assert str(found) == str(placed).replace("{home}", str(home))
    build_detector(detector, min_face_px=80, **found)


def test_other_weights_are_other_options_and_another_place_is_not(home: Path) -> None:
    options = {"weights": "~/nets"}
    before = deciding_options(Group("mtcnn", options), Path("/elsewhere")).detector
    shutil.copytree(home / "nets", home / "moved")
    assert deciding_options(Group("mtcnn", {"weights": "moved"}), home).detector == before
    (home / "nets" / "pnet.onnx").write_bytes(b"others")
    assert deciding_options(Group("mtcnn", options), Path("/elsewhere")).detector != before


def test_the_files_of_all_detectors_are_listed_by_their_options(home: Path) -> None:
    alone = plugin_weights(Group("mtcnn", {"weights": "~/nets", "pools": "mixed"}), home)
    assert [*alone] == ["detector_options.weights"]
    several = Group("hog,mtcnn", {"mtcnn": {"weights": "nets"}, "hog": {"upsample": 1}})
    assert plugin_weights(several, home) == {"detector_options.mtcnn.weights": alone["detector_options.weights"]}
    assert plugin_weights(Group("hog", {"upsample": 1}), home) == {}


def test_the_files_of_a_landmark_predictor_count_as_those_of_a_detector(home: Path) -> None:
    (home / "mesh.tflite").write_bytes(b"a net")
    group = Group(landmarks="mesh", landmark_options={"weights": "~/mesh.tflite"})
    assert placed_options(group, home).landmarks == {"weights": str(home / "mesh.tflite")}
    assert plugin_weights(group, home) == {"landmark_options.weights": sha256(b"a net").hexdigest()}
    assert deciding_options(group, home).landmarks == {"weights": sha256(b"a net").hexdigest()}


@pytest.mark.parametrize(
    ("detector", "options", "message"),
    [
        ("mtcnn", {"weights": "gone"}, "there is no file or folder .*gone"),
        ("hog,mtcnn", {"mtcnn": {"weights": "gone"}}, "there is no file or folder .*gone"),
        ("yolo", {}, "no detector 'yolo'"),
        ("mtcnn", {"weights": ""}, "the path is empty"),
    ],
)
def test_what_cannot_be_is_named(home: Path, detector: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(FacemillError, match=message):
        plugin_weights(Group(detector, options), home)


@pytest.mark.parametrize(
    ("detector", "typed", "options"),
    [
        ("hog", ["upsample=1", "threshold=-0.5"], {"upsample": 1, "threshold": -0.5}),
        ("mtcnn", ["thresholds=[0.6, 0.7, 0.8]", "half=true"], {"thresholds": [0.6, 0.7, 0.8], "half": True}),
        ("mtcnn", ["weights=~/nets", "pools=mixed"], {"weights": Path("{home}/nets"), "pools": "mixed"}),
        (
            "dsfd",
            ["weights=12", "sha256=1", "looks=many"],
            {"weights": Path("{home}/12"), "sha256": "1", "looks": "many"},
        ),
        ("mtcnn", ["weights=null"], {"weights": None}),
        ("hog, mtcnn", ["mtcnn.weights=nets"], {"mtcnn": {"weights": Path("{home}/nets")}}),
        ("hog", [], {}),
    ],
)
def test_typed_options_are_those_of_params_yaml(
    home: Path, detector: str, typed: list[str], options: dict[str, Any]
) -> None:
    """A number that is a name or a hash stays text, as the builder declares it."""
    assert typed_detector_options(detector, typed, home) == _in(home, options)


def test_options_of_a_landmark_predictor_are_typed_likewise(home: Path) -> None:
    assert typed_predictor_options("mesh", ["weights=~/net"], home) == _in(home, {"weights": Path("{home}/net")})
    assert typed_predictor_options("dlib", ["jitters=4"], home) == {"jitters": 4}
    for name, typed, message in (
        ("dlib", ["jitters"], "--predictor-option: 'jitters' must be NAME=VALUE$"),
        ("dlib", ["weights=x"], "dlib has no option weights; there are jitters$"),
        ("eyes", [], "no landmark predictor 'eyes'"),
    ):
        with pytest.raises(FacemillError, match=message):
            typed_predictor_options(name, typed, home)


def _in(home: Path, options: dict[str, Any]) -> dict[str, Any]:
    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return _in(home, value)
        return Path(str(value).format(home=home)) if isinstance(value, Path) else value

    return {name: placed(value) for name, value in options.items()}


@pytest.mark.parametrize(
    ("detector", "typed", "message"),
    [
        ("hog", ["upsample"], "'upsample' must be NAME=VALUE$"),
        ("hog", ["=1"], "'=1' must be NAME=VALUE$"),
        ("hog", ["weights=x"], "hog has no option weights; there are upsample, threshold$"),
        ("hog", ["upsample=much"], "upsample of hog must be a whole number, got 'much'$"),
        ("hog", ["upsample=[1"], r"upsample cannot be '\[1', which means nothing in params.yaml$"),
        ("hog", ["upsample=1", "upsample=2"], "upsample is given twice$"),
        ("hog,mtcnn", ["upsample=1"], "must be DETECTOR.NAME=VALUE with one of hog, mtcnn$"),
        ("hog,mtcnn", ["dsfd.looks=one"], "must be DETECTOR.NAME=VALUE with one of hog, mtcnn$"),
        ("eyes", [], "no detector 'eyes'"),
    ],
)
def test_what_cannot_be_typed_is_one_clear_line(tmp_path: Path, detector: str, typed: list[str], message: str) -> None:
    with pytest.raises(FacemillError, match=message) as raised:
        typed_detector_options(detector, typed, tmp_path)
    assert len(str(raised.value).splitlines()) == 1


def test_another_file_in_a_named_folder_is_seen_and_one_that_is_gone_is_somebody_elses_to_say(home: Path) -> None:
    group = Group("mtcnn", {"weights": str(home / "nets")})
    first = file_stamps(group)
    assert file_stamps(group) == first
    net = sorted((home / "nets").glob("*.onnx"))[0]
    data, times = net.read_bytes(), net.stat()
    net.write_bytes(data)
    os.utime(net, ns=(times.st_atime_ns, times.st_mtime_ns))  # a copy that takes over the old file's time
    second = file_stamps(group)
    assert second != first
    net.unlink()
    assert file_stamps(group) not in (first, second)
