"""What a killed DVC leaves is mended before the next one stumbles over it; what a living one holds is left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from facemill.errors import FacemillError
from tasks.versions import dvc, leftovers

DVC_YAML = """
stages:
  makes:
    cmd: mkdir -p data && date +%N > data/made
    params: [seed]
    outs: [data/made]
  waits:
    cmd: touch started; sleep 600
    outs: [data/waited]
"""
RWLOCK = Path(".dvc/tmp/rwlock")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a project")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text("seed: 1\n")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=root, check=True, timeout=60)
    dvc.repro(root, "makes", deadline_s=60)
    leftovers.keep_lock(root)
    return root


@pytest.fixture
def project(made: Path) -> Path:
    """A project whose only stage is stale, with the dvc.lock of a run."""
    (made / ".work" / "dvc.lock").write_bytes((made / "dvc.lock").read_bytes())
    (made / RWLOCK).unlink(missing_ok=True)
    seed = (made / "params.yaml").read_text()
    (made / "params.yaml").write_text(f"seed: {int(seed.split()[1]) + 1}\n")
    return made


def plain_dvc(root: Path) -> str:
    """What a person sees who runs DVC there without us."""
    command = [sys.executable, "-m", "dvc", "repro", "makes"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode
    return done.stderr


def entry(root: Path, pid: int, command: str = "/bin/dvc repro makes") -> dict[str, Any]:
    return {"write": {str(root / "data" / "made"): {"pid": pid, "cmd": command}}, "read": {}}


@pytest.mark.parametrize("content", ["", '{"write": {"/a', "[]", '{"write": {"/a": {"pid": "x"}}}'])
def test_an_rwlock_that_was_cut_off_blocks_nobody(
    project: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / RWLOCK).write_text(content)
    if not content:
        assert "rwlock" in plain_dvc(project)  # DVC's own behaviour, for which this is there
    dvc.repro(project, "makes", deadline_s=60)
    assert "rwlock was cut off when DVC was killed: mended" in capsys.readouterr().err


def test_a_number_that_another_program_has_now_blocks_nobody(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["sleep", "600"]) as other:
        (project / RWLOCK).write_text(json.dumps(entry(project, other.pid)))
        assert "is being blocked by" in plain_dvc(project)
        dvc.repro(project, "makes", deadline_s=60)
        assert f"no DVC any more ({other.pid}): taken out" in capsys.readouterr().err
        other.kill()


def test_a_process_that_began_after_the_entry_is_another_one(project: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)", "dvc", "repro", "makes"]
    with subprocess.Popen(command) as other:
        (project / RWLOCK).write_text(json.dumps(entry(project, other.pid)))
        leftovers.mend(project)
        assert leftovers._parse((project / RWLOCK).read_bytes()) == entry(project, other.pid)  # it may be DVC
        os.utime(project / RWLOCK, (time.time() - 60,) * 2)
        leftovers.mend(project)
        assert json.loads((project / RWLOCK).read_text()) == {"write": {}, "read": {}}
        other.kill()


def test_a_dvc_that_is_at_work_is_named_and_nothing_is_taken_from_it(project: Path) -> None:
    (project / "started").unlink(missing_ok=True)
    command = [sys.executable, "-m", "dvc", "repro", "waits"]
    with subprocess.Popen(command, cwd=project, start_new_session=True) as working:
        try:
            while not (project / "started").exists():
                assert working.poll() is None
                time.sleep(0.1)
            held = (project / RWLOCK).read_text()
            with pytest.raises(dvc.StageFailed, match=rf"is being blocked by:(.|\n)*PID {working.pid}"):
                dvc.repro(project, "waits", deadline_s=60)
            assert (project / RWLOCK).read_text() == held
            (project / RWLOCK).write_text("")
            words = rf"while another one is at work \(process {working.pid}: dvc repro waits\): wait"
            with pytest.raises(FacemillError, match=words):
                dvc.repro(project, "makes", deadline_s=60)
        finally:
            os.killpg(working.pid, 9)
    dvc.repro(project, "makes", deadline_s=60)


def test_the_lock_that_dvc_did_not_get_is_explained(project: Path) -> None:
    with leftovers._held(project, "lock") as held:
        assert held
        with pytest.raises(dvc.StageFailed, match=r"Unable to acquire lock(.|\n)*At work there: no DVC"):
            dvc.repro(project, "makes", deadline_s=60)


HOLDS = "import sys; from dvc.repo import Repo; Repo().lock.lock(); print(flush=True); sys.stdin.read()"


def test_who_has_the_lock_is_named_though_it_is_no_dvc(project: Path) -> None:
    command = [sys.executable, "-c", HOLDS]
    with subprocess.Popen(command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(FacemillError, match=rf"Unable to acquire lock(.|\n)*At work there: process {holder.pid}: "):
            dvc.stale(project, "makes")
        holder.communicate()
    assert leftovers.running(project) == []


@pytest.mark.parametrize("kept", [1.0, 0.7, 0.5, 0.3, 0.0])
def test_a_dvc_lock_that_was_cut_off_comes_back(project: Path, kept: float, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (project / "dvc.lock").read_bytes()
    (project / "dvc.lock").write_bytes(whole[: int(len(whole) * kept)])
    leftovers.mend(project)
    assert (project / "dvc.lock").read_bytes() == whole
    assert ("was cut off" in capsys.readouterr().err) == (kept < 1)


def test_every_cut_of_a_dvc_lock_is_whole_or_comes_back(project: Path) -> None:
    whole = (project / "dvc.lock").read_bytes()
    try:
        for length in range(len(whole)):
            (project / "dvc.lock").write_bytes(whole[:length])
            leftovers.mend(project)
            found = (project / "dvc.lock").read_bytes()
            assert found == whole or leftovers._is_whole(found)
    finally:
        (project / "dvc.lock").write_bytes(whole)
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML

    for length in range(len(whole)):  # what counts as whole here is valid to DVC, too
        if leftovers._is_whole(whole[:length]):
            COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(whole[:length].decode()))


@pytest.mark.parametrize("left", [b"", b"schema: '2.0'\nstages:\n  makes:\n    outs:\n"])
def test_a_broken_dvc_lock_without_a_copy_is_begun_anew(
    project: Path, left: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / ".work" / "dvc.lock").unlink()
    (project / "dvc.lock").write_bytes(left)
    assert "dvc.lock" in plain_dvc(project)  # DVC's own behaviour, for which this is there
    dvc.repro(project, "makes", deadline_s=60)
    assert "DVC looks anew at every stage" in capsys.readouterr().err
    assert (project / ".work" / "dvc.lock.broken").read_bytes() == left
    assert leftovers._is_whole((project / "dvc.lock").read_bytes())


def test_a_broken_dvc_lock_without_a_copy_is_again_that_of_the_last_commit(project: Path, tmp_path: Path) -> None:
    whole = (project / "dvc.lock").read_bytes()
    for command in (
        ["git", "init", "-q"],
        ["git", "add", "dvc.lock"],
        ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "1"],
    ):
        (tmp_path / "dvc.lock").write_bytes(whole)
        subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    (tmp_path / "dvc.lock").write_bytes(whole[:50])
    leftovers.mend(tmp_path)
    assert (tmp_path / "dvc.lock").read_bytes() == whole


def test_a_deleted_dvc_lock_stays_deleted(project: Path) -> None:
    whole = (project / "dvc.lock").read_bytes()
    (project / "dvc.lock").unlink()
    leftovers.keep_lock(project)
    leftovers.mend(project)
    assert not (project / "dvc.lock").exists()
    assert not (project / ".work" / "dvc.lock").exists()
    (project / "dvc.lock").write_bytes(whole)


def test_a_merge_conflict_is_for_a_person(project: Path) -> None:
    whole = (project / "dvc.lock").read_bytes()
    conflict = b"<<<<<<< HEAD\n" + whole + b"=======\n" + whole + b">>>>>>> other\n"
    try:
        (project / "dvc.lock").write_bytes(conflict)
        with pytest.raises(FacemillError, match=r"merge conflict: take one side with `git checkout --ours dvc\.lock`"):
            dvc.repro(project, "makes", deadline_s=60)
        assert (project / "dvc.lock").read_bytes() == conflict
    finally:
        (project / "dvc.lock").write_bytes(whole)


def test_a_folder_without_dvc_is_left_alone(tmp_path: Path) -> None:
    leftovers.mend(tmp_path)
    assert list(tmp_path.iterdir()) == []
