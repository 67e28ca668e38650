"""A dataset table in memory: the right rows, the right part of each crop, and batches that can be drawn again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facemill import tables
from facemill.align import crop_points
from facemill.errors import FacemillError
from facemill.pictures import encode_png
from facemill.schema import DATASET
from facemill.train.augment import Augmentation
from facemill.train.data import Feed, Order, View, face_weights, load_faces

VIEW = View(input_px=32, crop_coverage=1.6, train_coverage=1.0)
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a dataset table; a row is (identity, changed columns). The crop is a ramp in x, the face the mean one."""

    def write_rows(*rows: tuple[str, dict[str, Any]]) -> Path:
        ramp = np.repeat(np.arange(160, dtype=np.uint8)[None], 160, axis=0)
        crop = encode_png(np.ascontiguousarray(np.stack([ramp] * 3, axis=2)))
        plain = {
            "crop": {"bytes": crop, "path": None},
            "landmarks": tables.as_float32(crop_points(160, 1.6)),
            "affine": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            "split": "train",
            "status": "ok",
        }
        filled = [
            plain | {"face_id": f"{who}-{at}", "identity": who} | changed for at, (who, changed) in enumerate(rows)
        ]
        tables.write_part(tmp_path / "dataset" / "00000.parquet", tables.from_rows(filled, DATASET))
        return tmp_path / "dataset"

    return write_rows


def test_only_accepted_rows_of_the_split_are_loaded(write: Write) -> None:
    folder = write(
        ("bert", {}), ("anna", {}), ("anna", {"split": "val"}), ("anna", {"status": "rejected", "split": None})
    )
    sets = load_faces(folder, "train", VIEW)
    assert list(sets) == ["anna", "bert"]
    assert {name: faces.face_ids for name, faces in sets.items()} == {"anna": ("anna-1",), "bert": ("bert-0",)}


def test_the_net_sees_the_centre_of_the_crop_at_the_coverage_of_training(write: Write) -> None:
    faces = load_faces(write(("anna", {})), "train", VIEW)["anna"]
    row = faces.view(32)[0, 0, 16] * 255  # 100 of 160 px, from 29.5 to 129.5
    assert row.tolist() == pytest.approx(list(np.linspace(30, 129, 32) + np.linspace(1.06, -1.06, 32)), abs=1.0)
    assert faces.field == pytest.approx(1.25, abs=0.02)


def test_a_crop_with_no_room_to_spare_is_kept_whole(write: Write) -> None:
    view = View(input_px=32, crop_coverage=1.6, train_coverage=1.6)
    faces = load_faces(write(("anna", {})), "train", view)["anna"]
    assert faces.field == pytest.approx(1.0)
    assert faces.view(32)[0, 0, 16, -1] * 255 == pytest.approx(157, abs=1.5)


def test_weights_are_full_on_the_face_and_low_in_the_corners() -> None:
    weights = face_weights(crop_points(64, 1.25), 64)
    assert weights[40, 32] == 255
    assert weights[0, 0] == weights[0, 63] == 51


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"crop": None}, "anna-0 of the dataset has no usable crop"),
        ({"crop": {"bytes": b"GIF89a", "path": None}}, "anna-0 of the dataset has no usable crop"),
        ({"landmarks": [float("nan")] * 136}, "anna-0 of the dataset has landmarks that are not numbers"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(write: Write, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(FacemillError, match=says):
        load_faces(write(("anna", changed)), "train", VIEW)


def feed(folder: Path, seed: int = 0) -> Feed:
    return Feed(load_faces(folder, "train", VIEW), 32, 3, Augmentation(), seed)


def test_a_feed_put_back_to_a_place_draws_the_same_batches(write: Write) -> None:
    folder = write(*[("anna", {})] * 5, *[("bert", {})] * 4)
    first, second = feed(folder), feed(folder)
    for _ in range(3):
        first.draw()
    second.place, state = first.place, first.generator.get_state()
    second.generator.set_state(state)
    wanted, got = first.draw(), second.draw()
    assert list(wanted) == list(got) == ["anna", "bert"]
    assert all(torch.equal(wanted[who].warped, got[who].warped) for who in wanted)
    assert first.describe() == second.describe()
    assert first.place == {"anna": 12, "bert": 12}


def test_every_face_comes_once_in_an_epoch_in_a_new_order_each_time() -> None:
    order = Order(7, seed=1)
    epochs = [order.take(7).tolist() for _ in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    again = Order(7, seed=1)
    again.drawn = 10
    assert again.take(4).tolist() == epochs[1][3:]
