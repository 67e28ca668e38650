"""Exemplars: chosen for what they show between them, drawn by the net, written with a model and read back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill import tables
from facemill.align import ALIGNED, MEAN_FACE, crop_affine, procrustes, transform, warp
from facemill.errors import FacemillError
from facemill.files import folder_sha256
from facemill.landmarks import signature
from facemill.model_folder import EXEMPLARS_FILE, EXEMPLARS_KEY, load_model, save_model
from facemill.nets import build_model
from facemill.pictures import encode_jpeg
from facemill.schema import DATASET
from facemill.sources.sample import Pose, render
from facemill.swap.detail.exemplars import EXEMPLARS, aligned, cover, doubtful, exemplar_table, read_exemplars

RIGHTS = {"collins": "public_domain", "hopper": "public_domain"}
POSES = [
    *(Pose(yaw_deg=yaw, mouth_open=mouth) for yaw in (-15, 0, 15) for mouth in (0.0, 0.6)),
    *(Pose(shift=(0.002 * at, 0)) for at in range(14)),  # the same face again and again
    Pose(blink=1.0),
    Pose(light=0.7),
]


def face_row(person: str, at: int, pose: Pose, **changed: Any) -> dict[str, Any]:
    """A row of table `dataset` as the stages make it, from a rendered frame with true landmarks."""
    picture, landmarks = render(person, pose, (400, 400))
    affine = crop_affine(landmarks, 256, 1.6)
    return {
        "face_id": f"{person}-{at:03}",
        "sample_id": hashlib.sha256(f"{person}{at}".encode()).hexdigest(),
        "identity": person,
        "source": "sample",
        "url": f"sample:{person}",
        "crop": {"bytes": encode_jpeg(warp(picture, affine, 256)), "path": None},
        "landmarks": tables.as_float32(landmarks),
        "affine": affine.ravel().tolist(),
        "sharpness": 100.0,
        "split": "train",
        "status": "ok",
    } | changed


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """22 faces of Collins, of which 15 are all but the same, and one whose landmarks are wrong; two of Hopper; one that
    is held out and one that was rejected."""
    found = [face_row("collins", at, pose) for at, pose in enumerate(POSES)]
    wrong = np.array(found[6]["landmarks"]).reshape(68, 2)
    wrong[48:] += [40, -60]
    found.append(face_row("collins", 90, POSES[6], landmarks=wrong.ravel().tolist()))
    found += [face_row("hopper", at, pose) for at, pose in enumerate(POSES[:2])]
    found.append(face_row("collins", 91, Pose(yaw_deg=20, smile=1.0), split="val"))
    found.append(face_row("collins", 92, Pose(yaw_deg=-20, smile=1.0), status="rejected"))
    return found


@pytest.fixture(scope="module")
def dataset(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces") / "dataset"
    tables.write_part(folder / "00000.parquet", tables.from_rows(rows, DATASET))  # type: ignore[arg-type]  # made by hand
    return folder


def blurred(crops: np.ndarray, identity: str) -> np.ndarray:
    """A net that draws what it sees, out of focus."""
    return np.stack([cv2.GaussianBlur(crop, (0, 0), 1.5) for crop in crops]).astype(np.float32) / 255


def made(dataset: Path, count: int = 10) -> Any:
    return exemplar_table(dataset, RIGHTS, count, blurred, input_px=64, coverage=1.2)


def test_few_show_every_turn_mouth_eye_and_light_and_nobody_twice(dataset: Path) -> None:
    ids = made(dataset)["face_id"].to_pylist()
    collins = {one for one in ids if one.startswith("collins")}
    assert {f"collins-{at:03}" for at in (0, 1, 3, 4, 5, 20, 21)} <= collins  # 2 is one of those alike
    assert len(collins) == 10
    assert [one for one in ids if one.startswith("hopper")] == ["hopper-000", "hopper-001"]


def test_held_out_rejected_and_wrongly_marked_faces_are_left_out(dataset: Path) -> None:
    ids = made(dataset, 64)["face_id"].to_pylist()
    assert not {"collins-090", "collins-091", "collins-092"} & set(ids)
    assert len(ids) == len(POSES) - 1 + 2  # two are one picture


def test_the_spread_over_parts_changes_nothing(rows: list[dict[str, Any]], dataset: Path, tmp_path: Path) -> None:
    for number, part in enumerate((rows[9:], rows[:9])):
        table = tables.from_rows(part, DATASET)  # type: ignore[arg-type]  # made by hand
        tables.write_part(tmp_path / "dataset" / f"{number:05}.parquet", table)
    assert made(tmp_path / "dataset").equals(made(dataset))


def test_a_row_says_where_it_comes_from_and_on_what_right(dataset: Path, rows: list[dict[str, Any]]) -> None:
    row = tables.to_rows(made(dataset), EXEMPLARS)[0]
    origin = next(one for one in rows if one["face_id"] == row["face_id"])
    assert (row["sample_id"], row["url"], row["rights"]) == (origin["sample_id"], origin["url"], "public_domain")
    assert row["crop"]["bytes"] == origin["crop"]["bytes"]
    assert row["sha256"] == hashlib.sha256(origin["crop"]["bytes"]).hexdigest()


def test_an_exemplar_has_the_rights_of_its_source_where_that_states_its_own(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    bought = {"hopper-000": "licensed: invoice 2026-77", "hopper-001": "consent"}
    table = tables.from_rows([one | {"rights": bought.get(one["face_id"], "")} for one in rows], DATASET)  # type: ignore[misc]  # made by hand
    tables.write_part(tmp_path / "dataset" / "00000.parquet", table)
    stated = {row["face_id"]: row["rights"] for row in tables.to_rows(made(tmp_path / "dataset"), EXEMPLARS)}
    assert stated["hopper-000"] == "licensed: invoice 2026-77"
    assert {stated.pop("hopper-000"), *stated.values()} == {"licensed: invoice 2026-77", "public_domain"}


def test_a_model_folder_gives_back_pictures_points_and_drawings(dataset: Path, tmp_path: Path) -> None:
    write(tmp_path / "model", made(dataset))
    assert load_model(tmp_path / "model")[1][EXEMPLARS_KEY] == {"hopper": 2, "collins": 10}
    found = read_exemplars(tmp_path / "model" / EXEMPLARS_FILE, ["collins", "nobody"])
    assert list(found) == ["collins"]
    collins = found["collins"]
    assert (len(collins), collins.drawn.shape, collins.crop(0).shape) == (10, (10, 64, 64, 3), (256, 256, 3))
    small = warp(collins.crop(0), crop_affine(collins.landmarks[0], 64, 1.2), 64)
    seen = cv2.GaussianBlur(small, (0, 0), 1.5)  # by the net, at its place and size
    np.testing.assert_allclose(collins.drawn[0], seen, atol=1)


def test_where_a_net_draws_features_is_looked_for_as_everybody_else(dataset: Path, tmp_path: Path) -> None:
    """This net draws all features four of its pixels lower when it draws somebody else."""
    asked: list[tuple[int, ...]] = []

    def lower(drawn: np.ndarray, expected: np.ndarray) -> np.ndarray:
        asked.append(drawn.shape)
        return expected + [0.0, 4.0]

    table = exemplar_table(dataset, RIGHTS, 10, blurred, input_px=64, coverage=1.2, find=lower)
    write(tmp_path / "model", table)
    collins = read_exemplars(tmp_path / "model" / EXEMPLARS_FILE, ["collins"])["collins"]
    assert list(collins.drawn_as) == ["hopper"]
    old, drawn = collins.drawn_as["hopper"]
    assert len(old) == len(collins)
    down = (drawn - aligned(old)) @ np.array([0.0, 1.0])
    np.testing.assert_allclose(down, 4 * 1.2 * np.ptp(MEAN_FACE[:, 1]) / 64, atol=1e-4)
    assert asked == [(10, 64, 64, 3), (2, 64, 64, 3)]


def test_equal_trainings_give_equal_folders(dataset: Path, tmp_path: Path) -> None:
    model = write(tmp_path / "one", made(dataset))
    write(tmp_path / "two", made(dataset), model)
    assert folder_sha256(tmp_path / "one") == folder_sha256(tmp_path / "two")


def test_without_exemplars_the_folder_is_as_it_always_was(dataset: Path, tmp_path: Path) -> None:
    write(tmp_path / "model", made(dataset).slice(0, 0))
    assert not (tmp_path / "model" / EXEMPLARS_FILE).exists()
    assert EXEMPLARS_KEY not in load_model(tmp_path / "model")[1]


@pytest.mark.parametrize("harm", ["cut", "changed", "foreign"])
def test_a_damaged_file_is_named_with_the_remedy(dataset: Path, tmp_path: Path, harm: str) -> None:
    path = tmp_path / EXEMPLARS_FILE
    table = made(dataset)
    if harm == "changed":
        at = table.schema.get_field_index("sha256")
        table = table.set_column(at, "sha256", [["0" * 64] * len(table)])
        table = table.cast(EXEMPLARS.arrow)
    tables.write_part(path, table)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    if harm == "foreign":
        pq.write_table(table.select(["identity"]), path)
    with pytest.raises(FacemillError, match=EXEMPLARS_FILE):
        read_exemplars(path, ["collins"])


@given(st.floats(-3, 3), st.floats(0.2, 5), st.floats(-100, 100))
def test_alignment_of_many_is_that_of_each(turn: float, size: float, shift: float) -> None:
    """The same as `procrustes` onto the mean face, and blind to where and how large a face is."""
    rng = np.random.default_rng(2)
    points = 100 * MEAN_FACE + rng.normal(0, 3, (3, 68, 2))
    expected = [transform(one, procrustes(one[ALIGNED], MEAN_FACE[ALIGNED])) for one in points]
    rotation = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    np.testing.assert_allclose(aligned(points @ rotation.T + shift), expected, atol=1e-6)


def test_the_furthest_are_taken_first_and_the_sharper_of_two() -> None:
    found = np.array([[0.0], [0.1], [5.0], [5.1], [2.0], [2.0]])
    quality = np.array([1.0, 1.0, 0.4, 1.0, 1.0, 1.0])
    assert set(cover(found, quality, 3)) == {4, 3, 0}
    assert len(cover(found, quality, 10)) == 5  # the two at 2 are one
    assert cover(found[:0], quality[:0], 3) == []


def test_shapes_of_few_or_equal_faces_are_not_doubted() -> None:
    points = np.repeat(render("collins", Pose())[1][None], 5, axis=0)
    assert not doubtful(points).any()
    assert not doubtful(points[:1]).any()


def write(folder: Path, exemplars: Any, model: Any = None) -> Any:
    model = model or build_model("autoencoder", "small", ["hopper", "collins"])
    meta = {
        "name": "autoencoder",
        "preset": "small",
        "identities": ["hopper", "collins"],
        "input_px": 64,
        "crop_px": 256,
        "crop_coverage": 1.6,
        "train_coverage": 1.2,
        "landmarks": signature("dlib"),
        "references": {},
    }
    save_model(folder, model, meta, exemplars=exemplars)
    return model
