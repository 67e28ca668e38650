"""Running a stage: once at a time, and SIGTERM is a clean end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from facemill.errors import FacemillError
from tasks.stages import _termination_is_an_interrupt, only_one, run_stage


def test_an_unknown_stage_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="no stage 'sort'; the stages are inventory, collect"):
        run_stage("sort", tmp_path)


def test_a_stage_runs_once_at_a_time(tmp_path: Path) -> None:
    with only_one(tmp_path, "train"):
        with pytest.raises(FacemillError, match="stage train is already running"), only_one(tmp_path, "train"):
            pass
        with only_one(tmp_path, "convert"):
            pass


def test_termination_runs_the_clean_up_and_restores_the_handler() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), _termination_is_an_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
