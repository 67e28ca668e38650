"""What params.yaml names and is not there is found before any work."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml

from facemill.errors import FacemillError
from tasks.check import check_names, check_project
from tasks.params import Params, parse_params

PROJECT = Path(__file__).resolve().parents[2]


def params(group: str = "", **changes: object) -> Params:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    if group:
        values[group] |= changes
    return parse_params(values)


def test_the_shipped_names_stand_for_something() -> None:
    check_names(params(), PROJECT)


@pytest.mark.parametrize(
    ("group", "key", "message"),
    [
        ("extract", "detector", "extract.detector: no detector 'hogg'; there are auto, dsfd, hog, mmod, mtcnn"),
        ("track", "detector", "track.detector: no detector 'hogg'"),
        ("train", "model", "train: no model 'hogg'; there are autoencoder"),
        ("train", "preset", "train: "),
        ("convert", "colour", "convert.colour: no colour method 'hogg'"),
        ("convert", "blend", "convert.blend: no blend method 'hogg'"),
        ("convert", "detail", "convert.detail: no detail method 'hogg'"),
        ("convert", "occlusion", "no occlusion method 'hogg'; there are none, residual, segments"),
    ],
)
def test_a_misspelt_name_is_said_with_its_path_and_those_that_there_are(group: str, key: str, message: str) -> None:
    with pytest.raises(FacemillError) as error:
        check_names(params(group, **{key: "hogg"}), PROJECT)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upsample": 9}, "extract.detector: detector 'hog': upsample must be 0…4 doublings, got 9"),
        ({"upsampling": 1}, "extract.detector: detector options: hog has no option upsampling; there are upsample"),
        ({"weights": "gone"}, "hog has no option weights"),
    ],
)
def test_options_that_a_detector_does_not_take_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(FacemillError) as error:
        check_names(params("extract", detector_options=options), PROJECT)
    assert message in str(error.value)


def test_options_of_the_detector_of_tracking_are_checked_too() -> None:
    with pytest.raises(FacemillError, match=r"track\.detector: detector options: hog has no option upsampling"):
        check_names(params("track", detector_options={"upsampling": 1}), PROJECT)


@pytest.mark.parametrize(
    ("key", "value", "new"),
    [
        ("detector", "hog", "detector"),
        ("landmarks", "mesh", "landmarks"),
        ("min_face_px", 80, "min_face_px"),
        ("detect_every", 12, "every"),
    ],
)
def test_what_looked_for_faces_in_conversion_names_its_new_place(key: str, value: object, new: str) -> None:
    with pytest.raises(FacemillError, match=rf"convert\.{key}: unknown key; write `track: \{{{new}: …\}}`"):
        params("convert", **{key: value})


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    changed = params("extract", detector="hog,dsfd", detector_options={"dsfd": {"weights": "~/gone"}})
    with pytest.raises(FacemillError, match=r"extract\.detector: there is no file or folder .*gone"):
        check_names(changed, tmp_path)


def test_the_old_key_of_an_option_names_the_new_one() -> None:
    with pytest.raises(FacemillError, match=r"upsample: unknown key; write `detector_options: \{upsample: 1\}`"):
        params("extract", upsample=1)


@pytest.mark.parametrize(
    ("encoder", "preset", "message"),
    [
        ("hogg", "", "this FFmpeg has no encoder 'hogg'"),
        ("libx264", "hogg", "the encoder libx264 does not open"),
        ("aac", "veryfast", "aac encodes audio, not pictures"),
        ("mov_text", "", "mov_text encodes subtitle, not pictures"),
        ("mpeg4", "veryfast", "mpeg4 knows no presets"),
        ("gif", "", "MP4 cannot hold what gif encodes"),
        ("libx264", "warp", "the encoder libx264 does not open on this machine with the preset 'warp'"),
    ],
)
def test_an_encoder_must_encode_pictures_and_open_with_its_preset(encoder: str, preset: str, message: str) -> None:
    with pytest.raises(FacemillError) as error:
        check_names(params("convert", encoder={"name": encoder, "preset": preset}), PROJECT)
    assert f"convert.encoder: {message}" in str(error.value)


@pytest.mark.parametrize(("encoder", "preset"), [("mpeg4", ""), ("libx265", "ultrafast"), ("libsvtav1", "12")])
def test_encoders_that_open_are_taken(encoder: str, preset: str) -> None:
    check_names(params("convert", encoder={"name": encoder, "preset": preset}), PROJECT)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"kind": "class", "cluster_class": "os.system"}, "os.system is no class of Dask clusters"),
        ({"kind": "class", "cluster_class": "subprocess.Popen"}, "subprocess.Popen is no class of Dask clusters"),
        ({"kind": "class", "cluster_class": "no_such.Cluster"}, "no_such.Cluster cannot be imported (ModuleNotFound"),
        ({"kind": "class", "cluster_class": "distributed.NoCluster"}, "cannot be imported (AttributeError"),
        ({"kind": "address", "address": "here"}, "'here' is none, such as tcp://host:8786"),
        ({"kind": "address", "address": "tcp://here"}, "'tcp://here' is none, such as tcp://host:8786"),
        ({"kind": "address", "address": "http://here:80"}, "'http://here:80' is none"),
    ],
)
def test_a_cluster_that_cannot_be_is_named_and_not_called(cluster: dict[str, str], message: str) -> None:
    with pytest.raises(FacemillError) as error:
        check_names(params("cluster", **cluster), PROJECT)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"memory_limit": "lots"}, "cluster.memory_limit: 'lots' is no amount of memory, such as 4GiB"),
        ({"memory_limit": "-1GiB"}, "cluster.memory_limit: '-1GiB' is less than a worker needs"),
        ({"memory_limit": "4"}, "cluster.memory_limit: '4' is less than a worker needs"),
        ({"memory_limit": "1e999"}, "cluster.memory_limit: '1e999' is no amount"),
        ({"memory_limit": ""}, "cluster.memory_limit: '' is "),
        ({"kind": "class", "cluster_class": "os.system('rm')"}, "cluster.cluster_class: String should match"),
        ({"kind": "class"}, "kind: class needs a cluster_class"),
    ],
)
def test_a_cluster_is_checked_as_it_is_read(cluster: dict[str, str], message: str) -> None:
    with pytest.raises(FacemillError) as error:
        params("cluster", **cluster)
    assert message in str(error.value)


@pytest.mark.parametrize("limit", ["auto", "4GiB", "2 GB", "1e9"])
def test_amounts_of_memory_are_read_as_dask_reads_them(limit: str) -> None:
    assert params("cluster", memory_limit=limit).cluster.memory_limit == limit


def test_all_that_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    values["identities"]["hopper"] |= {"references": ["tape:1"], "sources": [{"kind": "folder", "path": "gone"}]}
    values["archive"] = {"kind": "folder", "path": "nowhere"}
    values["train"] |= {"model": "transform", "options": {"features": "weights/vgg.pth"}}
    values["convert"] |= {"colour": "pink"}
    with pytest.raises(FacemillError) as error:
        check_project(parse_params(values), tmp_path)
    keys = [line.strip().partition(": ")[0] for line in str(error.value).splitlines()[1:]]
    assert sorted(keys) == [
        "archive.path",
        "convert.colour",
        "identities.hopper.references.0",
        "identities.hopper.sources.0",
        "train.options.features",
    ]
    assert "tape:1" in str(pickle.loads(pickle.dumps(error.value)))


def test_options_that_the_model_does_not_take_are_named() -> None:
    with pytest.raises(FacemillError, match=r"train\.options: autoencoder has no option colour"):
        check_names(params("train", options={"colour": 1}), PROJECT)
