"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill import files
from facemill.errors import FacemillError
from facemill.processes import ProcessId, this_process


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "table"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), files.atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="no space left"), files.atomic_path(tmp_path / "x") as temporary:
        temporary.write_bytes(b"half")
        # /dev/full is the kernel's own full disk
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    script = "from pathlib import Path; from facemill.files import *; write_json(Path('x/receipt.json'), 1)"
    folder = "from pathlib import Path; from facemill.files import *; publish_folder(Path('x/table'), {'a': b'1'})"
    (tmp_path / "x").mkdir()
    for act in (script, folder):
        inner = 'mount -t tmpfs -o ro tmpfs x && exec "$0" -c "$1"'
        command = ["unshare", "-rm", "sh", "-c", inner, sys.executable, act]
        environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parent.parent)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        if "unshare" in done.stderr or "mount" in done.stderr:
            pytest.skip(f"wants to mount a read-only file system: {done.stderr.strip()}")
        assert "FacemillError: " in done.stderr
        assert "cannot be written in" in done.stderr.splitlines()[-1]


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error, files.atomic_path(tmp_path / "x"):
        raise OSError(errno.EACCES, "no")
    assert error.value.errno == errno.EACCES


def test_equal_values_give_equal_json_bytes(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a", {"b": 1, "a": "ü"})
    files.write_json(tmp_path / "b", {"a": "ü", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [None, "{"])
def test_missing_or_broken_json_names_the_file(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "inventory.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(FacemillError, match=r"inventory\.json"):
        files.read_json(path)


def test_folder_hash_sees_names_and_contents_but_not_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = files.folder_sha256(tmp_path)
    (tmp_path / ".gitignore").write_text("x")
    assert files.folder_sha256(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    assert files.folder_sha256(tmp_path) != first


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["one step", "several steps"])
def switch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a folder takes another's place: by the kernel's exchange, and where the file system has none."""
    if request.param == "several steps":
        monkeypatch.setattr(files, "_renameat2", lambda: None)
    elif files._renameat2() is None:
        pytest.skip("wants Linux")
    return str(request.param)


KILLS = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from facemill import files

def names(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}

def killed_at_each_step(prepare, act, check):
    "Kills a process in front of its first, second, ... access to the file system, until it gets to its end."
    for step in itertools.count():
        prepare()
        left = iter(range(step))
        def hook(event, _):  # Python tells it of each access: open, os.rename, os.link, os.mkdir, os.remove, ...
            if event.partition(".")[0] in ("open", "os", "shutil") and next(left, None) is None:
                signal.raise_signal(signal.SIGKILL)
        if not (child := os.fork()):
            sys.addaudithook(hook)
            act()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        check()
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return print(step, "kills")
        assert os.WTERMSIG(status) == signal.SIGKILL

root, seen = Path(sys.argv[1]), set()
"""


def kill_at_each_step(tmp_path: Path, script: str) -> int:
    """Runs the script in a process of its own, since a small one forks quickly. Returns the number of kills."""
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parent.parent)}
    command = [sys.executable, "-c", KILLS + script, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[0])


@pytest.mark.parametrize("several_steps", [False, True])
def test_a_folder_is_the_old_or_the_new_whenever_its_writer_is_killed(tmp_path: Path, several_steps: bool) -> None:
    """By the kernel's exchange, and where the file system has none."""
    script = """
if several_steps:
    files._renameat2 = lambda: None
target, new = root / "project" / "table", root / "scratch"
new.mkdir()
(new / "part").write_text("new")

def prepare():
    shutil.rmtree(target.parent, ignore_errors=True)
    (target / "deep").mkdir(parents=True)
    (target / "0").write_text("old")
    (target / "deep" / "2").write_text("old")

def check():
    assert several_steps or target.is_dir()  # nobody needs to mend anything
    files.put_back(target)
    found = names(target)
    assert found in ({"0": "old", "deep/2": "old"}, {"0": "new", "deep/1": "new"}), found
    seen.add(found["0"])
    files.sweep(target.parent, deep=False)
    assert os.listdir(target.parent) == ["table"]
    assert found == names(target)

wanted = {"0": new / "part", "deep/1": new / "part"}
killed_at_each_step(prepare, lambda: files.publish_folder(target, wanted), check)
assert seen == {"old", "new"}
"""
    assert kill_at_each_step(tmp_path, f"several_steps = {several_steps}\n{script}") > 15


def test_a_new_folder_is_whole_or_not_there_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    script = """
target = root / "project" / "model"

def act():
    with files.atomic_folder(target) as folder:
        (folder / "weights").write_text("1")
        files.write_json(folder / "model.json", {})

def check():
    assert not target.exists() or set(names(target)) == {"weights", "model.json"}
    if target.parent.exists():
        files.sweep(target.parent)
        assert set(os.listdir(target.parent)) <= {"model"}

killed_at_each_step(lambda: shutil.rmtree(target.parent, ignore_errors=True), act, check)
"""
    assert kill_at_each_step(tmp_path, script) > 8


def test_a_file_is_the_old_or_the_new_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    script = """
target = root / "receipt.json"

def check():
    assert target.read_text() in ("old", "new" * 100)
    files.sweep(root)
    assert os.listdir(root) == [target.name]

killed_at_each_step(lambda: target.write_text("old"), lambda: files.write_bytes(target, b"new" * 100), check)
"""
    assert kill_at_each_step(tmp_path, script) > 3


def test_an_overlay_whose_folder_came_with_the_image_is_switched_too(tmp_path: Path) -> None:
    """There neither an exchange nor a rename of the folder is possible."""
    for name in ("lower/table", "upper", "work", "merged"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "lower" / "table" / "0").write_text("old")
    (tmp_path / "1").write_text("new")
    mount = f"mount -t overlay overlay -o userxattr,lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper"
    act = (
        "import os, sys; from pathlib import Path; from facemill.files import publish_folder;"
        "[publish_folder(Path('merged/table'), {'1': Path('1')}) for _ in range(2)];"
        "print(sorted(os.listdir('merged')), sorted(os.listdir('merged/table')))"
    )
    script = f'{mount},workdir={tmp_path}/work {tmp_path}/merged && exec "$0" -c "$1"'
    command = ["unshare", "-rm", "sh", "-c", script, sys.executable, act]
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parent.parent)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"wants to mount an overlay: {done.stderr.strip()}")
    assert (done.stdout, done.stderr) == ("['table'] ['1']\n", "")


def test_publishing_leaves_exactly_the_named_files(tmp_path: Path) -> None:
    target, source = tmp_path / "table", tmp_path / "part"
    source.write_text("1")
    files.publish_folder(target, {"a": source, "день 1 & 2/b": source})
    assert names(target) == {"a", "день 1 & 2/b"}
    assert (target / "a").samefile(source)
    files.publish_folder(target, {"c": source}, copy=True)
    assert names(target) == {"c"}
    assert not (target / "c").samefile(source)
    files.publish_folder(target, {})
    assert names(target) == set()
    for outside in ("/x", "../x", "a/../../x"):
        with pytest.raises(ValueError):
            files.publish_folder(target, {outside: source})
    assert sorted(os.listdir(tmp_path)) == ["part", "table"]


def test_a_failed_publication_leaves_the_old_folder(tmp_path: Path, switch: str) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "old").write_text("1")
    with pytest.raises(FileNotFoundError):
        files.publish_folder(tmp_path / "table", {"a": tmp_path / "missing"})
    assert names(tmp_path) == {"table/old"}


def test_a_folder_behind_a_link_stays_there(tmp_path: Path) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "table").symlink_to("large disk")
    (tmp_path / "part").write_text("1")
    files.publish_folder(tmp_path / "table", {"a": tmp_path / "part"})
    assert (tmp_path / "table").is_symlink()
    assert names(tmp_path / "large disk") == {"a"}


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=255) | st.binary(min_size=1)
)
def test_every_name_that_a_file_can_have_can_be_written(tmp_path_factory: pytest.TempPathFactory, name: Any) -> None:
    name = os.fsdecode(os.fsencode(name).replace(b"/", b"_").replace(b"\0", b"_")[:255])
    if name in (".", ".."):
        return
    folder = tmp_path_factory.mktemp("names")
    files.write_bytes(folder / name, b"1")
    assert os.listdir(folder) == [name]


def test_a_long_name_keeps_its_suffix_while_it_is_written(tmp_path: Path) -> None:
    with files.atomic_path(tmp_path / f"{'ä' * 125}.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        temporary.write_text("1")
    assert [len(os.fsencode(name)) for name in os.listdir(tmp_path)] == [254]


SLEEPS = """
import sys, time
from pathlib import Path
from facemill.files import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    time.sleep(600)
"""


def test_sweep_takes_what_dead_processes_left_and_nothing_else(tmp_path: Path) -> None:
    people = [".tmp-1-mine", ".facemill-notes", ".facemill/receipts/a.json", "part", ".facemill-new-notes.txt"]
    for name in people:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "deep").mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(files.__file__).parent.parent)}
    command = [sys.executable, "-c", SLEEPS, str(tmp_path / "deep" / "part")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        temporary = Path(process.stdout.readline().strip())
        files.sweep(tmp_path)
        assert temporary.read_text() == "half"  # it lives
        process.kill()
    files.sweep(tmp_path, deep=False)
    assert temporary.exists()
    files.sweep(tmp_path)
    assert names(tmp_path) == set(people)


def test_what_another_machine_writes_goes_when_it_was_left_for_a_day(tmp_path: Path) -> None:
    left = tmp_path / f".facemill-new-{ProcessId('0' * 8, os.getpid(), this_process().birth)}-00000000"
    left.mkdir()
    (left / "part").write_text("half")
    files.sweep(tmp_path)
    assert left.exists()
    for path in (left, left / "part"):
        os.utime(path, (time.time() - 90_000,) * 2)
    files.sweep(tmp_path)
    assert not left.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "1", '{"archive": []}'])
def test_a_file_without_what_it_should_hold_is_named_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "inventory.json"
    path.write_text(content)
    with pytest.raises(FacemillError, match=r"inventory\.json .*: delete it and run the stage") as error:
        files.read_object(path, "archive", "sources")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_takes_over_the_time_of_another_is_not_what_it_was(tmp_path: Path, replace: bool) -> None:
    path, other = tmp_path / "video.mp4", tmp_path / "other.mp4"
    path.write_bytes(b"one")
    stamped, sha256 = files.foreign_stamp(path), files.file_sha256(path)
    assert files.is_as_stamped(path, stamped, sha256)
    time.sleep(0.05)  # longer than the clock's tick
    target = other if replace else path
    target.write_bytes(b"two")
    os.utime(target, ns=(stamped["mtime_ns"], stamped["mtime_ns"]))
    if replace:
        other.replace(path)
    assert files.stamp(path) == {"bytes": 3, "mtime_ns": stamped["mtime_ns"]}
    assert not files.is_as_stamped(path, stamped, sha256)
    assert not files.is_as_stamped(path, ["of", "another", "kind"], sha256)
