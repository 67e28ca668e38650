"""A small dataset to look through: two people, a group photo, copies, a shot, and every kind of verdict."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from facemill import tables
from facemill.pictures import encode_jpeg
from facemill.schema import DATASET

REJECTED = {
    "blurred": ("blurred", "9.1, limit 15"),
    "stranger": ("other_identity", "0.71, limit 0.55"),
    "turned": ("extreme_pose", "yaw 63°, limit 55°"),
    "copy": ("near_duplicate", "of {anna-3}"),
    "frame": ("same_look", "of {anna-5}"),
}
PEOPLE = ("anna", "bert")


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def face_id(name: str, identity: str = "anna") -> str:
    return f"{sha(name)[:16]}-{identity}-0"


def project(root: Path, portraits: dict[str, np.ndarray], each: int = 14) -> Path:
    """Writes params.yaml and data/dataset: `each` good faces of both people (`anna-0`…), and those of `REJECTED`.

    `group` has two faces of Anna's, at x 100 and 300.
    """
    rights = {"basis": "public_domain", "evidence": "the portraits ship with wheels"}
    people = {
        who: {"rights": rights, "references": ["sample:hopper"], "sources": [{"kind": "folder", "path": who}]}
        for who in PEOPLE
    }
    values = {"identities": people, "archive": {"kind": "sample"}, "convert": {"becomes": {"anna": "bert"}}}
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    rows = [_face(portraits, f"{who}-{number}", who, number) for who in PEOPLE for number in range(each)]
    for number, (name, (error, detail)) in enumerate(REJECTED.items()):
        row = _face(portraits, name, "anna", 20 + number) | {"status": "rejected", "error": error, "split": None}
        row["detail"] = detail.format(**{f"anna-{one}": face_id(f"anna-{one}") for one in range(each)})
        rows.append(row)
    for number, left in enumerate((50.0, 250.0)):
        row = _face(portraits, "group", "anna", 30 + number)
        rows.append(row | {"face_id": f"{sha('group')[:16]}-anna-{number}", "box": [left, 50.0, left + 100, 150.0]})
    none = {"face_id": "none-anna-0", "sample_id": sha("none"), "identity": "anna"}
    rows.append(none | {"status": "rejected", "error": "no_face"})
    half = len(rows) // 2
    tables.write_table(root / "data/dataset", [tables.from_rows(some, DATASET) for some in (rows[:half], rows[half:])])
    return root


def _face(portraits: dict[str, np.ndarray], name: str, identity: str, number: int) -> dict[str, Any]:
    portrait = portraits[identity]
    side = min(portrait.shape[:2])
    chance = np.random.default_rng(number)
    cut = side * chance.uniform(0.0, 0.06)
    crop = cv2.resize(portrait[round(cut) : round(side - cut), round(cut) : round(side - cut)], (192, 192))
    bright = np.clip(crop * chance.uniform(0.7, 1.15), 0, 255).astype(np.uint8)
    return {
        "face_id": face_id(name, identity),
        "sample_id": sha(name),
        "identity": identity,
        "role": "sample",
        "source": "folder",
        "url": f"{identity}/{name}.jpg",
        "licence": "CC-BY-4.0",
        "page": "https://example.org/<b>",
        "box": [100.0, 80.0, 220.0, 200.0],
        "score": 1.0,
        "face_px": 120.0 + number,
        "sharpness": 90.0 - number,
        "yaw": float(number),
        "pitch": 2.0,
        "roll": -1.0,
        "distance": 0.2 + number / 100,
        "cluster": "talk.mp4#shot=0" if number in (5, 6, 24) else sha(name),
        "split": "val" if number % 7 == 0 else "train",
        "status": "ok",
        "crop": {"bytes": encode_jpeg(bright), "path": f"{name}.jpg"},
    }
