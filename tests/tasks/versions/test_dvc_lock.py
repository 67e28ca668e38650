"""dvc.lock is read in one way, whoever asks, and a broken one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from facemill.errors import FacemillError
from tasks.versions import dvc_lock

LOCK = """
schema: '2.0'
stages:
  curate:
    cmd: facemill stage curate
    outs:
    - path: data/dataset
      hash: md5
      md5: 900150983cd24fb0d6963f7d28e17f72.dir
    - path: data/metrics/curate.json
      md5: 0cc175b9c0f1b6a831c399e269772661
  train:
    cmd: facemill stage train
"""


def test_a_hash_that_looks_like_a_number_stays_a_text(tmp_path: Path) -> None:
    lock = {"stages": {"curate": {"outs": [{"path": "data/dataset", "md5": "12e34"}]}}}
    (tmp_path / "dvc.lock").write_bytes(dvc_lock.dump(lock))
    assert dvc_lock.read(tmp_path) == lock


def test_it_names_the_stage_of_the_dataset_and_keeps_metrics_apart(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text(LOCK)
    lock = dvc_lock.read(tmp_path)
    assert dvc_lock.dataset_stage(lock) == "curate"
    assert dvc_lock.metrics_files(lock) == ["data/metrics/curate.json"]
    assert dvc_lock.cached_hashes(lock) == ["900150983cd24fb0d6963f7d28e17f72.dir"]


def test_no_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert dvc_lock.dataset_hash(dvc_lock.read(tmp_path)) is None


BROKEN = {
    "no YAML": b"stages: [",
    "no text": b"\xff\xfe",
    "no table": b"- curate\n",
    "stages are no table": b"stages: [curate]\n",
    "a stage is no table": b"stages: {curate: 3}\n",
    "outputs are no list": b"stages: {curate: {outs: 3}}\n",
    "an output without a hash": b"stages: {curate: {outs: [{path: data/dataset}]}}\n",
    "in the middle of a merge": b"<<<<<<< HEAD\nstages: {}\n=======\nstages: {}\n>>>>>>> other\n",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_lock_is_named_with_the_remedy(content: bytes) -> None:
    with pytest.raises(FacemillError, match=r"^dvc\.lock .*`git checkout .*dvc\.lock`.*$") as error:
        dvc_lock.parse(content)
    assert "\n" not in str(error.value)
