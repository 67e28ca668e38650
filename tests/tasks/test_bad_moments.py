"""Things that happen while nobody expects them: files that go, come and change under a stage, and a clock set back.

Each ends with a right result, or with one sentence that names the file and what to do, and the next run is right.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from facemill import tables
from facemill.errors import FacemillError
from facemill.face_looks import LOOK_BYTES
from facemill.files import folder_sha256
from facemill.pictures import encode_png
from facemill.schema import FACES, RAW, UNIQUE
from tasks import collect, curate, dedup, inventory
from tasks.params import Params, parse_params
from tasks.stages import run_stage
from tasks.work import file_hashes
from tasks.work.deciders import current_deciders, write_deciders

RIGHTS = {"basis": "own", "evidence": "pictures made by this test"}
VALUES: dict[str, Any] = {
    "identities": {
        name: {"rights": RIGHTS, "references": [f"{name}/reference.png"], "sources": [{"kind": "folder", "path": name}]}
        for name in ("anna", "bea")
    },
    "archive": {"kind": "folder", "path": "archive"},
    "collect": {"rows_per_shard": 4, "failure_limit": 1.0},
    "convert": {"becomes": {"anna": "bea"}},
    "cluster": {"kind": "inline"},
}


def picture(seed: int, side: int = 24) -> bytes:
    """Some soft patches of colour; pictures of one side have as many bytes as each other."""
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    found = encode_png(cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))
    return found + bytes(4000 - len(found))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project folder of two people with ten pictures each, and an archive that holds a text."""
    for at, name in enumerate(("anna", "bea")):
        (tmp_path / name / "more").mkdir(parents=True)
        (tmp_path / name / "reference.png").write_bytes(picture(100 * at))
        for number in range(1, 10):
            (tmp_path / name / "more" / f"{number}.png").write_bytes(picture(100 * at + number))
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "text.mp4").write_bytes(b"text")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(VALUES))
    return tmp_path


@pytest.fixture(scope="module")
def params() -> Params:
    return parse_params(VALUES)


def rows(root: Path) -> dict[str, dict[str, Any]]:
    return {row["url"]: row for row in tables.iterate_rows(root / "data" / "raw", RAW) if row["role"] == "sample"}


def collected(params: Params, root: Path) -> dict[str, dict[str, Any]]:
    inventory.run(params, root)
    collect.run(params, root)
    return rows(root)


def in_the_middle(monkeypatch: pytest.MonkeyPatch, module: Any, function: str, event: Callable[[], object]) -> None:
    """Lets something happen before the second shard that a stage works."""
    real, calls = getattr(module, function), 0

    def disturbed(shard: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            event()
        return real(shard)

    monkeypatch.setattr(module, function, disturbed)


@pytest.mark.parametrize(
    ("stage", "function", "table"), [(collect, "collect_shard", "raw"), (dedup, "hash_shard", "unique")]
)
def test_scratch_may_be_deleted_while_a_stage_works(
    root: Path, params: Params, monkeypatch: pytest.MonkeyPatch, stage: Any, function: str, table: str
) -> None:
    monkeypatch.setattr(dedup, "HASHED_TOGETHER", 4)
    collected(params, root)
    dedup.run(params, root)
    before = folder_sha256(root / "data" / table)
    shutil.rmtree(root / ".work")
    with monkeypatch.context() as patch:
        in_the_middle(patch, stage, function, lambda: shutil.rmtree(root / ".work"))
        with pytest.raises(
            FacemillError, match=r"^a result in \S+ has gone .*\.work deleted.*run the same command again.*$"
        ):
            stage.run(params, root)
    stage.run(params, root)
    assert folder_sha256(root / "data" / table) == before


def test_a_picture_replaced_by_one_of_the_same_size_and_time_is_another_picture(root: Path, params: Params) -> None:
    path = root / "anna" / "more" / "3.png"
    before = collected(params, root)["anna/more/3.png"]
    status = path.stat()
    path.write_bytes(picture(77))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = collected(params, root)["anna/more/3.png"]
    assert (before["image"]["bytes"], after["image"]["bytes"]) == (picture(3), picture(77))


def test_a_renamed_picture_that_keeps_its_time_takes_the_place_of_the_old_one(root: Path, params: Params) -> None:
    path = root / "anna" / "more" / "3.png"
    collected(params, root)
    status = path.stat()
    (root / "new.png").write_bytes(picture(78))
    os.utime(root / "new.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    (root / "new.png").replace(path)
    assert collected(params, root)["anna/more/3.png"]["image"]["bytes"] == picture(78)


@pytest.mark.parametrize("years", [-40, 40])
def test_times_in_the_past_or_the_future_decide_nothing(root: Path, params: Params, years: int) -> None:
    path, day = root / "anna" / "more" / "3.png", time.time() + years * 365.25 * 86400
    os.utime(path, (day, day))
    assert collected(params, root)["anna/more/3.png"]["image"]["bytes"] == picture(3)
    path.write_bytes(picture(79))
    os.utime(path, (day, day))
    assert collected(params, root)["anna/more/3.png"]["image"]["bytes"] == picture(79)


def test_what_is_newer_than_the_clock_is_read_each_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was set back may give a change the time of the last one."""
    files, read = sorted((root / "anna" / "more").iterdir()), list[str]()
    real = file_hashes.file_sha256
    monkeypatch.setattr(file_hashes, "file_sha256", lambda path: read.append(path.name) or real(path))

    def reads() -> int:
        read.clear()
        file_hashes.hash_files(root, "test", files)
        return len(read)

    time.sleep(0.05)  # what was changed just now is read again, too
    with monkeypatch.context() as patch:
        hour_ago = time.time_ns() - 3_600_000_000_000
        patch.setattr(time, "time_ns", lambda: hour_ago)
        assert [reads(), reads()] == [9, 9]
    assert [reads(), reads()] == [9, 0]


def test_a_file_that_changes_after_the_inventory_is_a_row_that_says_so_and_the_next_runs_picture(
    root: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = root / "bea" / "more" / "9.png"
    inventory.run(params, root)
    in_the_middle(monkeypatch, collect, "collect_shard", lambda: changing.write_bytes(picture(80)))
    collect.run(params, root)
    found = rows(root)["bea/more/9.png"]
    assert (found["status"], found["error"]) == ("failed", "changed")
    assert collected(params, root)["bea/more/9.png"]["image"]["bytes"] == picture(80)


def test_a_folder_that_vanishes_after_the_inventory(root: Path, params: Params) -> None:
    """A whole source is an error that names it; a folder inside one costs its rows."""
    inventory.run(params, root)
    (root / "anna" / "more").rename(root / "elsewhere")
    collect.run(params, root)
    gone = [row for url, row in rows(root).items() if url.startswith("anna/more/")]
    assert [(row["status"], row["error"]) for row in gone] == [("failed", "unreadable")] * 9
    (root / "elsewhere").rename(root / "anna" / "more")
    before = collected(params, root)
    assert {row["status"] for row in before.values()} == {"ok"}
    (root / "anna").rename(root / "elsewhere")
    with pytest.raises(FacemillError, match=r"identities\.anna\.sources\.0: .*anna does not exist"):
        collect.run(params, root)
    assert rows(root) == before  # nothing was lost
    (root / "elsewhere").rename(root / "anna")
    assert collected(params, root) == before


def test_parameters_edited_while_a_stage_runs_are_not_those_of_its_result(
    root: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC looks at them when the stage has ended, and would take the old result for the new parameters'."""
    file = root / "params.yaml"

    def edit(**changes: Any) -> None:
        file.write_text(yaml.safe_dump(VALUES | changes))

    monkeypatch.setattr(dedup, "HASHED_TOGETHER", 4)
    collected(params, root)
    with monkeypatch.context() as patch:
        in_the_middle(patch, dedup, "hash_shard", lambda: edit(dedup={"hash_distance": 2}))
        with pytest.raises(FacemillError, match=r"^params\.yaml was edited while stage dedup ran \(dedup\).*again$"):
            run_stage("dedup", root)
    shutil.rmtree(root / ".work" / "dedup-hash")
    with monkeypatch.context() as patch:  # those of another stage may be
        in_the_middle(patch, dedup, "hash_shard", lambda: edit(dedup={"hash_distance": 2}, curate={"min_face_px": 40}))
        assert run_stage("dedup", root).rows_out == 22
    shutil.rmtree(root / ".work" / "dedup-hash")
    with monkeypatch.context() as patch:
        in_the_middle(patch, dedup, "hash_shard", lambda: file.write_text("{"))
        with pytest.raises(FacemillError, match=r"^params\.yaml was edited while stage dedup ran, and is wrong now: "):
            run_stage("dedup", root)


def damaged(folder: Path, damage: str) -> None:
    first, second = sorted(folder.glob("*.parquet"))[:2]
    if damage == "deleted":
        first.unlink()
    elif damage == "cut off":
        first.write_bytes(first.read_bytes()[:-7])
    else:
        first.rename(folder / "between")
        second.rename(first)
        (folder / "between").rename(second)


@pytest.mark.parametrize("damage", ["deleted", "cut off", "swapped"])
@pytest.mark.parametrize(("stage", "table"), [(dedup, "raw"), (curate, "faces"), (curate, "unique")])
def test_a_part_that_is_not_what_it_was_is_named_with_the_remedy(
    tmp_path: Path, params: Params, stage: Any, table: str, damage: str
) -> None:
    """Two parts that were swapped are noticed even where both have the same size and nothing says what they were."""
    for name in ("dedup", "curate"):
        write_deciders(tmp_path, name, current_deciders(tmp_path, name, params))
    people = [("anna", "reference"), ("bea", "reference"), ("anna", "sample"), ("bea", "sample")]
    faces, unique, raw = [], [], []
    for at, (identity, role) in enumerate(people):
        who = {"sample_id": f"{at:064x}", "identity": identity, "role": role, "status": "ok"}
        embedding = [float(identity == "anna"), *[0.0] * 127]
        good = {"face_px": 128.0, "sharpness": 80.0, "yaw": 0.0, "pitch": 0.0, "roll": 0.0, "face_index": 0}
        random = np.random.default_rng(at)
        good |= {"box": [0.0, 0.0, 20.0, 20.0], "score": 1.0, "affine": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]}
        good |= {"look": random.bytes(LOOK_BYTES), "landmarks": random.uniform(0, 20, 136).tolist()}
        faces.append(who | good | {"face_id": f"{at}-0", "embedding": embedding})
        unique.append(who | {"cluster": who["sample_id"], "keep": True})
        raw.append(who | {"image": {"bytes": picture(at), "path": None}, "width": 24, "height": 24, "url": str(at)})
    for name, schema, content in (("faces", FACES, faces), ("unique", UNIQUE, unique), ("raw", RAW, raw)):
        parts = (tables.from_rows([row], schema) for row in content)
        tables.write_table(tmp_path / "data" / name, parts)
    stage.run(params, tmp_path)
    made = "dataset" if stage is curate else "unique"
    before = folder_sha256(tmp_path / "data" / made)
    damaged(tmp_path / "data" / table, damage)
    sizes = {path.stat().st_size for path in (tmp_path / "data" / table).glob("*.parquet")}
    if (damage, table, len(sizes)) == ("swapped", "raw", 1):
        stage.run(params, tmp_path)  # rows of one part for those of another are another order of the same table
        return
    with pytest.raises(FacemillError, match=rf"^.*data/{table}\b.*dvc checkout.*$"):
        stage.run(params, tmp_path)
    assert folder_sha256(tmp_path / "data" / made) == before
