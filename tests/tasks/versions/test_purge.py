"""Contents leave DVC's cache and remote for good: the versions that had them say so, and the others stay whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_versions import CURATE, SECOND, curate, faces, make_project

from facemill import tables
from facemill.errors import FacemillError
from facemill.schema import DATASET
from tasks.versions import dvc
from tasks.versions.purge import purge
from tasks.versions.store import restore_version, save_version
from tasks.work.traces import Traces, holders, middle_of

FLAT = 'np.full((200, 200, 3), ord(row["face_id"][0]), np.uint8)'
NOISE = 'np.random.default_rng(ord(row["face_id"][0])).integers(0, 255, (64, 64, 3), np.uint8)'


@pytest.mark.parametrize("remote", [True, False])
def test_what_held_it_is_gone_from_cache_and_remote_and_other_versions_come_back(tmp_path: Path, remote: bool) -> None:
    root = make_project(tmp_path / "project")
    assert FLAT in CURATE
    (root / "curate.py").write_text(CURATE.replace(FLAT, NOISE))
    if remote:
        (root / ".dvc" / "config").write_text("[core]\n    remote = s\n['remote \"s\"']\n    url = ../../store\n")
    curate(root)
    save_version(root)
    rows = tables.part_rows(root / "data/dataset/00000.parquet", DATASET)
    traces = Traces(contents={middle_of(row["crop"]["bytes"]) for row in rows if row["face_id"] == "b"})
    (root / "params.yaml").write_text(SECOND)
    if remote:
        dvc.push(root, ["curate"])
    curate(root)
    save_version(root)
    if remote:
        dvc.push(root, ["curate"])
    places = [dvc.cache_folder(root), *([tmp_path / "store"] if remote else [])]
    assert len(holders(places, traces)) == len(places)

    said = " ".join(purge(root, traces))
    assert "versions that can no longer be brought back whole: v1." in said
    assert holders(places, traces) == []
    shutil.rmtree(root / "data" / "dataset")
    restore_version(root, "v2", force=True)
    assert faces(root) == ["a", "c", "d"]
    with pytest.raises(FacemillError, match="neither in"):
        restore_version(root, "v1", force=True)


def test_a_remote_out_of_reach_is_named_with_the_objects(tmp_path: Path) -> None:
    root = make_project(tmp_path / "project")
    (root / ".dvc" / "config").write_text("[core]\n    remote = s\n['remote \"s\"']\n    url = s3://bucket/store\n")
    (root / "curate.py").write_text(CURATE.replace(FLAT, NOISE))
    curate(root)
    rows = tables.part_rows(root / "data/dataset/00000.parquet", DATASET)
    [held] = holders([dvc.cache_folder(root)], traces := Traces(contents={middle_of(rows[0]["crop"]["bytes"])}))
    first, second = purge(root, traces)
    assert first == "1 objects of earlier tables are gone from DVC's cache."
    assert second == f"the remote s may have copies of them: delete the objects {held.parent.name}{held.name} there"
