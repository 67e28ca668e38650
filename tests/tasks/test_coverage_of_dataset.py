"""What is read of `dataset`: accepted faces alone, of each identity, however they are spread over parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facemill import tables
from facemill.align import MEAN_FACE
from facemill.errors import FacemillError
from facemill.schema import DATASET
from tasks.curating.coverage import lacks, read_coverage


def face(number: int, identity: str = "anna", **more: object) -> dict[str, object]:
    points = np.array(MEAN_FACE, np.float32) * 100 + 7
    row = {"face_id": f"{identity}-{number}", "identity": identity, "status": "ok", "yaw": 0.0, "pitch": 0.0}
    row |= {"landmarks": points.ravel().tolist(), "affine": [0.0, -1.0, 0.0, 1.0, 0.0, 0.0]}
    return row | {"look": bytes([128]) * 256} | more


def test_accepted_faces_count_by_what_they_show(tmp_path: Path) -> None:
    rejected = {"status": "rejected", "error": "no_face", "landmarks": None, "affine": None, "look": None}
    parts = [
        [face(0), face(1, yaw=50.0), face(2, "bert", yaw=-20.0)],
        [face(3, **rejected), face(4, pitch=40.0), face(5, "carl")],
    ]
    for number, rows in enumerate(parts):
        tables.write_part(tmp_path / f"data/dataset/{number}.parquet", tables.from_rows(rows, DATASET))
    found = read_coverage(tmp_path, ["dora", "bert", "anna"])
    assert {name: one.faces for name, one in found.items()} == {"anna": 3, "bert": 1, "dora": 0}
    assert list(found["anna"].counts["yaw"]) == [0, 0, 0, 2, 0, 0, 1]
    assert list(found["anna"].counts["pitch"]) == [0, 0, 2, 0, 1]
    assert found["bert"].pose[2, 2] == 1
    said = lacks(found, {"bert": "anna", "anna": "nobody known", "dora": "bert"})
    assert len(said) == 1
    assert said[0].startswith("bert becomes anna, who is hardly ever turned to the left by 15 to 30° (100% of bert's)")


def test_without_a_dataset_it_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="table dataset is missing"):
        read_coverage(tmp_path, ["anna"])
