"""A worker that is killed while the cluster starts: by a real signal, in a real process, before it has registered."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from misbehaving import behave

from tasks.params import ClusterParams
from tasks.work.cluster import START_TRIES, NotStarted, open_pool, run_all

# Dask runs this in each worker before that says that it is there. One mark for each worker that was killed.
KILLED_AS_IT_STARTS = """
import os, signal
from pathlib import Path

def dask_setup(worker):
    marks = Path({folder!r})
    if len(list(marks.iterdir())) < {times}:
        (marks / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def killing(tmp_path: Path, times: int) -> ClusterParams:
    """A cluster of one worker, of which the first `times` are killed as they start."""
    (tmp_path / "marks").mkdir()
    preload = tmp_path / "killed_as_it_starts.py"
    preload.write_text(KILLED_AS_IT_STARTS.format(folder=str(tmp_path / "marks"), times=times))
    return ClusterParams(kind="local", workers=1, options={"preload": [str(preload)]})


def test_one_that_is_killed_once_is_started_again(tmp_path: Path) -> None:
    with open_pool(killing(tmp_path, 1)) as pool:
        assert list(run_all(pool, behave, [1])) == [(0, 2)]
    assert len(list((tmp_path / "marks").iterdir())) == 1


def test_one_that_is_killed_each_time_is_an_error_for_a_person(tmp_path: Path) -> None:
    with (
        open_pool(killing(tmp_path, 1000)) as pool,
        pytest.raises(NotStarted, match=f"workers died while they started, {START_TRIES} times in a row, and no "),
    ):
        list(run_all(pool, behave, [1]))
    tried = [int(mark.name) for mark in (tmp_path / "marks").iterdir()]
    assert len(tried) >= START_TRIES
    assert not [pid for pid in tried if psutil.pid_exists(pid)]
    living = [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]
    assert not [child for child in living if "spawn_main" in str(child.cmdline())]
