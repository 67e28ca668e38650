"""How old the dataset is: by the last refresh, else by its version; never by a date in the future."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from facemill.errors import FacemillError
from tasks.params import Params, load_params
from tasks.stages import STAGES
from tasks.versions.freshness import Freshness, freshness, note_refresh
from tasks.versions.store import Version

PROJECT = Path(__file__).resolve().parents[3]
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
DATASET, OTHER = "1f.dir", "2e.dir"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose dvc.lock says that the dataset is DATASET; nothing has a name."""
    (tmp_path / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    (tmp_path / ".dvc").mkdir()
    lock_dataset(tmp_path, DATASET)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message=first")
    return tmp_path


def git(root: Path, *arguments: str, at: datetime = NOW) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    dated = {**os.environ, "GIT_COMMITTER_DATE": at.isoformat()}
    subprocess.run(["git", *who, *arguments], cwd=root, env=dated, check=True)


def lock_dataset(root: Path, dataset: str) -> None:
    outs = [{"path": "data/dataset", "md5": dataset}]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"curate": {"cmd": "c", "outs": outs}}}))


def name_version(root: Path, name: str, dataset: str, age_h: float) -> None:
    message = json.dumps({"dataset": dataset, "totals": {}})
    git(root, "tag", "--annotate", f"--message={message}", f"dataset/{name}", at=NOW - timedelta(hours=age_h))


def end_refresh(root: Path, dataset: str, age_h: float, *, is_new: bool = False) -> None:
    """As if a refresh had ended so many hours before NOW."""
    note_refresh(root, Version("v1", dataset, "", NOW, is_new=is_new))
    clock = root / ".work" / "refreshed.json"
    told = json.loads(clock.read_text())
    assert abs(datetime.fromisoformat(told["ended"]) - datetime.now(UTC)) < timedelta(minutes=1)
    clock.write_text(json.dumps(told | {"ended": (NOW - timedelta(hours=age_h)).isoformat()}))


def params(max_age_h: float = 36) -> Params:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    return Params.model_validate_json(json.dumps(values | {"freshness": {"max_age_h": max_age_h}}))


def asked(root: Path, max_age_h: float = 36) -> Freshness:
    return freshness(root, params(max_age_h), NOW)


@pytest.mark.parametrize(("age_h", "is_fresh"), [(0, True), (35.9, True), (36, True), (36.1, False), (9000, False)])
def test_the_last_refresh_counts_whether_it_brought_something_or_not(
    project: Path, age_h: float, is_fresh: bool
) -> None:
    for is_new in (False, True):
        end_refresh(project, DATASET, age_h, is_new=is_new)
        found = asked(project)
        assert (found.age_h, found.is_fresh) == (pytest.approx(age_h), is_fresh)
        assert ("brought v1" if is_new else "found nothing new") in str(found)
    assert ("too old" in str(found)) != is_fresh


def test_without_a_refresh_here_the_version_of_the_dataset_counts(project: Path) -> None:
    name_version(project, "v1", DATASET, 20)
    name_version(project, "v2", OTHER, 3)
    assert asked(project).age_h == pytest.approx(20)
    assert "its version v1 was named 20.0 h ago" in str(asked(project))


def test_a_restored_dataset_is_as_old_as_its_version_whatever_the_last_refresh_found(project: Path) -> None:
    name_version(project, "v1", DATASET, 400)
    end_refresh(project, OTHER, 1)
    assert not asked(project).is_fresh
    lock_dataset(project, OTHER)
    assert asked(project).is_fresh


def test_a_dataset_without_a_name_is_taken_to_be_as_old_as_the_newest_version(project: Path) -> None:
    name_version(project, "v1", OTHER, 50)
    name_version(project, "v2", OTHER, 30)
    assert asked(project).age_h == pytest.approx(30)


def test_a_date_in_the_future_is_said_and_not_counted(project: Path) -> None:
    name_version(project, "v1", DATASET, 40)
    end_refresh(project, DATASET, -5)
    found = asked(project)
    assert (found.is_fresh, found.age_h) == (False, pytest.approx(40))
    assert "The last refresh found nothing new at 2026-03-10 17:00 UTC, which is in the future" in str(found)


def test_only_dates_in_the_future_make_nothing_fresh(project: Path) -> None:
    name_version(project, "v1", DATASET, -1)
    end_refresh(project, DATASET, -5)
    found = asked(project)
    assert (found.is_fresh, found.age_h, len(found.future)) == (False, None, 2)
    assert "Nobody knows" in str(found)


def test_two_clocks_may_differ_by_some_seconds(project: Path) -> None:
    end_refresh(project, DATASET, -20 / 3600)
    assert (asked(project).is_fresh, asked(project).age_h) == (True, 0)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"ended": 3}', '{"ended": "soon", "dataset": "1f.dir"}'])
def test_a_clock_that_cannot_be_read_counts_as_none(project: Path, content: str) -> None:
    name_version(project, "v1", DATASET, 20)
    end_refresh(project, DATASET, 1)
    (project / ".work" / "refreshed.json").write_text(content)
    assert asked(project).age_h == pytest.approx(20)


def test_nothing_made_is_not_fresh(project: Path) -> None:
    (project / "dvc.lock").unlink()
    assert "none has been made here" in str(asked(project))
    assert not asked(project).is_fresh


def test_the_limit_is_no_parameter_of_any_stage() -> None:
    assert all("freshness" not in stage.params for stage in STAGES.values())


@pytest.mark.parametrize("limit", [0, -1, "36"])
def test_a_limit_that_is_none_is_refused_by_its_key(project: Path, limit: object) -> None:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump(values | {"freshness": {"max_age_h": limit}}))
    with pytest.raises(FacemillError, match=r"freshness\.max_age_h"):
        load_params(project)


def test_the_command_ends_with_a_code_for_a_monitor(project: Path) -> None:
    command = [sys.executable, "-m", "flows.command_line", "freshness", "--root", str(project)]
    note_refresh(project, Version("v1", DATASET, "", NOW))
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.split(":")[0]) == (0, "The dataset is fresh")
    end_refresh(project, DATASET, 100)
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "error: The dataset is too old: the last refresh found nothing new" in " ".join(done.stderr.split())
