"""The table of stages holds together. Running one: once at a time, and SIGTERM is a clean end."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from facemill.errors import FacemillError
from tasks.catalogue import Data
from tasks.stages import REFRESH_STAGES, STAGES, Run, Stage, _termination_is_an_interrupt, only_one, run_stage

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_a_stage_runs_as_the_table_has_it_typed(stage: Stage) -> None:
    expected = inspect.signature(Run.__call__)
    found = inspect.signature(stage.run)
    assert [*found.parameters.values()] == [*expected.parameters.values()][1:]  # without `self`
    assert found.return_annotation == expected.return_annotation
    assert stage.run.__module__ == f"tasks.{stage.name}"


@pytest.mark.parametrize("stage", STAGES.values(), ids=list(STAGES))
def test_a_stage_says_what_it_does_and_why_its_rule_is_so(stage: Stage) -> None:
    assert re.fullmatch(r"[A-Z][a-z]+s .{20,}\.", stage.does)
    assert stage.rule.deadline_s > 0
    assert stage.rule.tries >= 1
    assert len(stage.rule.reason.split()) > 3
    assert stage.rule.wait_s > 0 or stage.rule.tries == 1


def test_a_stage_reads_what_stages_before_it_have_made_and_nobody_makes_a_thing_twice() -> None:
    made: set[str] = set()
    for stage in STAGES.values():
        folders = {str(Path(path).parent) for path in made}  # the report reads all of data/metrics
        inside = {path for path in stage.reads if str(Path(path).parent) in made}  # one file of data/weights
        assert set(stage.reads) <= made | folders | inside
        own = {*stage.makes, *([] if stage.metrics is None else [stage.metrics])}
        assert not own & made
        made |= own


def test_the_refresh_is_the_beginning_of_the_pipeline_and_ends_with_the_dataset() -> None:
    assert tuple(STAGES)[: len(REFRESH_STAGES)] == REFRESH_STAGES
    assert Data.DATASET in STAGES[REFRESH_STAGES[-1]].makes


def test_the_table_is_read_without_importing_any_stage() -> None:
    heavy = {"torch", "pyarrow", "cv2", "pydantic", *(f"tasks.{name}" for name in STAGES)}
    code = f"import sys, tasks.stages; sys.exit(', '.join({heavy} & set(sys.modules)) or None)"
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True, timeout=60)


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


def test_a_clone_is_not_worked_by_the_code_of_another_one(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    shutil.copy(PROJECT / "tasks" / "stages.py", tmp_path / "tasks")
    with pytest.raises(FacemillError, match="has code of its own, but this facemill runs that of"):
        run_stage("curate", tmp_path)
