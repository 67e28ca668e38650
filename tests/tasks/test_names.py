"""Names in params.yaml that stand for nothing are found before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from facemill.errors import FacemillError
from tasks.names import check_names
from tasks.params import Params, parse_params

PROJECT = Path(__file__).resolve().parents[2]


def params(group: str = "", **changes: str) -> Params:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    if group:
        values[group] |= changes
    return parse_params(values)


def test_the_shipped_names_stand_for_something() -> None:
    check_names(params())


@pytest.mark.parametrize(
    ("group", "key", "message"),
    [
        ("extract", "detector", "extract.detector: no detector 'hogg'; there are auto, dsfd, hog, mmod, mtcnn"),
        ("convert", "detector", "convert.detector: no detector 'hogg'"),
        ("train", "model", "train: no model 'hogg'; there are autoencoder"),
        ("train", "preset", "train: "),
        ("convert", "colour", "convert.colour: no colour method 'hogg'"),
        ("convert", "blend", "convert.blend: no blend method 'hogg'"),
        ("convert", "encoder", "convert.encoder: this FFmpeg has no encoder 'hogg'"),
    ],
)
def test_a_misspelt_name_is_said_with_its_path_and_those_that_there_are(group: str, key: str, message: str) -> None:
    with pytest.raises(FacemillError) as error:
        check_names(params(group, **{key: "hogg"}))
    assert message in str(error.value)
