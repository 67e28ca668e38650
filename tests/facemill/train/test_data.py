"""A dataset table in memory: the right rows and the right part of each crop; batches that can be drawn again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_training import plain_set

from facemill import tables
from facemill.align import crop_points
from facemill.errors import FacemillError
from facemill.pictures import encode_png
from facemill.schema import DATASET
from facemill.train.data import FaceSet, Feed, Order
from facemill.train.dataset import CropGeometry, face_eyes, face_weights, load_faces, turns
from facemill.train.settings import Augmentation

VIEW = CropGeometry(input_px=32, crop_coverage=1.6, train_coverage=1.0)
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
    view = CropGeometry(input_px=32, crop_coverage=1.6, train_coverage=1.6)
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
        ({"affine": [float("nan")] * 6}, "anna-0 of the dataset has landmarks that are not numbers"),
        ({"landmarks": None}, "anna-0 of the dataset lacks landmarks or its place"),
        ({"affine": None}, "anna-0 of the dataset lacks landmarks or its place"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(write: Write, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(FacemillError, match=says):
        load_faces(write(("anna", changed)), "train", VIEW)


def test_crops_of_two_sizes_are_refused(write: Write) -> None:
    small = encode_png(np.zeros((120, 120, 3), np.uint8))
    with pytest.raises(FacemillError, match="crops of anna differ in size"):
        load_faces(write(("anna", {}), ("anna", {"crop": {"bytes": small, "path": None}})), "train", VIEW)


def test_landmarks_and_eyes_lie_where_the_crop_shows_them(write: Write) -> None:
    faces = load_faces(write(("anna", {})), "train", VIEW)["anna"]
    width_px = faces.faces.shape[-1]
    shown = crop_points(width_px, VIEW.train_coverage * faces.field)
    assert np.abs(faces.landmarks[0].numpy() - shown).max() < 0.01
    assert [round(x) for x in faces.landmarks[0, 36].tolist()] == [round(x) for x in shown[36]]
    x, y = faces.landmarks[0, 36:42].mean(0).round().int().tolist()
    assert faces.eyes[0, 0, y, x] == 255
    assert faces.eyes[0, 0, -1].max() == faces.eyes[0, 0, :, 0].max() == 0


def test_eye_masks_are_widened_and_soft() -> None:
    points = crop_points(256, 1.6)
    mask = face_eyes(points, 256)
    left, top = points[36].round().astype(int)
    assert mask[top, left - 2] == 255  # 6 px beyond the corner of the eye
    assert 0 < mask[top, left - 7] < 255
    assert mask[top, left - 12] == 0


def drawn_sets() -> dict[str, FaceSet]:
    """Five faces of anna, four of bert: noise, so that no two are alike."""
    noise = torch.randint(0, 256, (9, 3, 40, 40), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return {"anna": plain_set("anna", noise[:5]), "bert": plain_set("bert", noise[5:])}


def feed(share: tuple[int, int] = (0, 1), **options: Any) -> Feed:
    return Feed(drawn_sets(), 32, 4, Augmentation(), seed=5, share=share, **options)


def test_a_feed_put_back_to_a_place_draws_the_same_batches() -> None:
    first, second = feed(), feed()
    for _ in range(3):
        first.draw()
    second.place = first.place
    wanted, got = first.draw(), second.draw()
    assert list(wanted) == list(got) == ["anna", "bert"]
    assert all(torch.equal(wanted[who].warped, got[who].warped) for who in wanted)
    assert first.describe(first.place) == second.describe(second.place)
    assert first.place == 4


def test_the_shares_of_two_processes_are_the_halves_of_the_whole_batch() -> None:
    whole, (upper, lower) = feed().draw(), (feed(share=(at, 2)).draw() for at in (0, 1))
    for who, batch in whole.items():
        for name in ("warped", "target", "weight", "eyes", "landmarks"):
            parts = torch.cat([getattr(upper[who], name), getattr(lower[who], name)])
            assert torch.allclose(getattr(batch, name), parts, atol=1e-6), name


def test_a_batch_that_cannot_be_shared_out_is_refused() -> None:
    with pytest.raises(FacemillError, match=r"batch 4 cannot be shared by 3 processes"):
        feed(share=(0, 3))


def test_faces_gathered_ahead_in_threads_give_the_same_batches() -> None:
    """`meta` stands for a device that the set does not fit on: what is gathered for it is compared before it goes."""
    here, there = feed(), feed(device=torch.device("meta"))
    for draw in range(5):
        wanted, got = here._gather(draw), there._next()
        there._drawn += 1
        assert all(torch.equal(a, b) for a, b in zip(vars(wanted[0]).values(), vars(got[0]).values(), strict=True))
        assert torch.equal(wanted[1].numbers, got[1].numbers)
    assert len(there._gathered) <= 3
    there.close()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_time_that_gathering_takes_from_training_is_counted(device: str) -> None:
    """In the training's own thread all of it, with threads what they were behind."""
    drawn = feed(device=torch.device(device))
    start = time.perf_counter()
    drawn._next()
    assert 0 < drawn.waited_s < time.perf_counter() - start
    drawn.close()


def test_the_faces_of_a_batch_are_named() -> None:
    source = feed()
    source.draw()
    named = source.describe(source.place).split("; ")
    assert [part.split(":")[0] for part in named] == ["anna", "bert"]
    assert len({face for part in named for face in part.split(": ")[1].split(", ")}) == 8


def test_every_face_comes_once_in_an_epoch_in_a_new_order_each_time() -> None:
    order = Order(7, seed=1)
    epochs = [order.take(7 * at, 7).tolist() for at in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert Order(7, seed=1).take(10, 4).tolist() == epochs[1][3:]


def test_a_batch_larger_than_the_set_runs_through_several_epochs() -> None:
    assert sorted(Order(3, seed=1).take(0, 9).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_rare_looks_have_more_turns_and_at_most_as_many_as_are_asked(write: Write) -> None:
    even, dark = bytes([128] * 256), bytes([20] * 256)
    frontal = {"yaw": 0.0, "pitch": 0.0, "look": even}
    rows = [("anna", frontal)] * 6 + [("anna", frontal | {"look": dark})] * 3
    rows += [("anna", frontal | {"yaw": 50.0}), ("anna", frontal | {"look": None}), ("bert", frontal)]
    folder = write(*rows, ("anna", frontal | {"split": "val"}))
    found = turns(folder, 4)
    ids = load_faces(folder, "train", VIEW)["anna"].face_ids
    by_face = dict(zip(ids, found["anna"].tolist(), strict=True))
    assert by_face == {f"anna-{at}": 1 for at in (*range(6), 10)} | {f"anna-{at}": 2 for at in (6, 7, 8)} | {
        "anna-9": 4
    }
    assert found["bert"].tolist() == [1]
    assert turns(folder, 1)["anna"].tolist() == [1] * 11


def test_every_face_comes_in_its_turns_in_an_epoch() -> None:
    order = Order(3, seed=1, turns=torch.tensor([1, 3, 2]))
    first, second = order.take(0, 6).tolist(), order.take(6, 6).tolist()
    assert sorted(first) == sorted(second) == [0, 1, 1, 1, 2, 2]
    assert first != second
    assert (
        Order(3, seed=1, turns=torch.ones(3, dtype=torch.int64)).take(0, 9).tolist() == Order(3, 1).take(0, 9).tolist()
    )
