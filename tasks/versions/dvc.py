"""DVC, called as a person would call it: `python -m dvc …` in a process group of its own.

The group matters: DVC does not hand a termination on to the stage that it runs, so the stage, and its Dask workers,
are ended with it. Where this process is killed too suddenly for that, the stage sees it and ends (tasks.work.callers).
Every call has a deadline.

What changes nothing, status and settings, is asked of DVC's library in this process: another one would take longer to
start than to answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.patience import Rule
from facemill.processes import end_group, undisturbed
from tasks.params_file import no_project
from tasks.versions.leftovers import mend, running
from tasks.work.callers import calling
from tasks.work.progress import PROGRESS_FILE_VARIABLE
from tasks.work.terminal import say

RETRY_VARIABLE = "FACEMILL_RETRY"
TRANSFER = Rule(12 * 3600.0, 3, 120, "remotes fail for minutes; what was sent is not sent again")
"""Of what moves data, which takes as long as the data is large."""
_GRACE_S = 20.0  # between the polite and the hard signal: a stage finishes its clean-up in far less
_TICK_S = 1.0
_TAIL_LINES = 12
_SHORT_S = 600.0
_ALWAYS = "always changed"
_NO_LOCK = "Unable to acquire lock"
_ANOTHER_TRY = ("failed to run:", _NO_LOCK, "is being blocked by")
_KILLED = re.compile(r"exited with (-\d+|1(29|[3-8]\d|9[0-2]))\b|was killed by signal \d+")
"""128 + the signal's number comes from a shell that stays above its command, as some do."""
_HINTS = (
    "To track the changes with git, run:",
    "\tgit add ",
    "To enable auto staging, run:",
    "\tdvc config core.autostage true",
    "Use `dvc push` to send your updates to remote storage.",
)
"""What DVC says after every stage: in a flow nobody is there to do it."""


class AbsentError(FacemillError):
    """Data that versions name lies neither in DVC's cache nor in its remote."""


class StageFailed(FacemillError):
    """The stage's own command failed, hung, or could not start for another one: another try may go better."""


class StageDied(StageFailed):
    """The stage, or DVC above it, was killed: out of memory, or by somebody. It says nothing about the work."""


def repro(
    root: Path,
    stage: str,
    *,
    deadline_s: float,
    force: bool = False,
    retry: bool = False,
    on_line: Callable[[str], None] = say,
    on_tick: Callable[[], None] = lambda: None,
    progress_file: Path | None = None,
) -> None:
    """Brings one stage up to date; what is not stale is left alone.

    Args:
        root: the project's folder.
        stage: a stage of dvc.yaml.
        deadline_s: after so many seconds the stage and all its processes are ended.
        force: run it though nothing that DVC sees has changed, as for a source on the network.
        retry: also take up the rows that failed before.
        on_line: gets every line that DVC and the stage print.
        on_tick: called about once a second while it runs.
        progress_file: where the stage keeps its progress (tasks.work.progress).

    Raises:
        StageFailed: the stage failed or passed its deadline, with its last lines; `StageDied` where it was killed.
        FacemillError: DVC itself refused, for instance a dvc.yaml that names a missing file.
    """
    extra = {RETRY_VARIABLE: "1"} if retry else {}
    if progress_file is not None:
        extra[PROGRESS_FILE_VARIABLE] = str(progress_file)
    arguments = ["repro", "--single-item", *(["--force"] if force else []), stage]
    tail = _stream(root, arguments, deadline_s, extra, on_line, on_tick)
    if tail is not None:
        raise _kind(tail)(
            f"stage {stage} failed. Its last lines:\n{tail}{_who_holds(root, tail)}\n"
            "Mend that and run the same command again."
        )


def _kind(tail: str) -> type[FacemillError]:
    if _KILLED.search(tail):
        return StageDied
    return StageFailed if any(words in tail for words in _ANOTHER_TRY) else FacemillError


def stale(root: Path, *stages: str) -> bool:
    """Whether `dvc repro` would run one of these stages: its parameters, code, inputs or outputs have changed.

    Of one that runs each time (`always_changed` in dvc.yaml), whether it has reason to.
    """
    return any(change != _ALWAYS for changes in _status(root, *stages).values() for change in changes)


def changed_outputs(root: Path, stage: str) -> list[str]:
    """The stage's outputs that are no longer what dvc.lock says."""
    changes = _status(root, stage).get(stage, [])
    return sorted(path for change in changes if isinstance(change, dict) for path in change.get("changed outs", {}))


def fetch(root: Path, stages: Sequence[str], hashes: Sequence[str]) -> None:
    """Sees to it that the cache has the stages' outputs of dvc.lock, if need be from the default remote.

    To be called before `checkout`: one that fails has thrown the old files away. No output is touched here.

    Args:
        hashes: of those outputs.

    Raises:
        AbsentError: neither cache nor remote has them.
    """
    said = ""
    if _not_in_cache(root, hashes) and default_remote(root) is not None:
        try:
            call(root, "fetch", *stages, deadline_s=TRANSFER.deadline_s)
        except FacemillError as error:
            said = f"; {error}"
    if absent := _not_in_cache(root, hashes):
        raise AbsentError(
            f"{len(absent)} object(s) are neither in DVC's cache nor in its remote (first: {absent[0]}{said})"
        )


def checkout(root: Path, stages: Sequence[str]) -> None:
    """Puts the stages' outputs of dvc.lock into place, from the cache. What lies there now is overwritten.

    Raises:
        FacemillError: it failed or was ended; some outputs may be new, some old.
    """
    if stages:  # without a stage DVC would check out everything
        call(root, "checkout", "--force", *stages, deadline_s=TRANSFER.deadline_s)


def default_remote(root: Path) -> str | None:
    """Name of the remote that `dvc push` would use, if one is set.

    Raises:
        FacemillError: as `_config`.
    """
    return _config(root).get("core", {}).get("remote") or None


def push(root: Path, stages: Sequence[str], on_line: Callable[[str], None] = say) -> None:
    """Copies the stages' outputs to the default remote.

    Raises:
        FacemillError: the remote refused or could not be reached.
    """
    tail = _stream(root, ["push", *stages], TRANSFER.deadline_s, {}, on_line, lambda: None)
    if tail is not None:
        raise FacemillError(
            "dvc push failed; the data is kept here. Mend that, or look where it goes with `dvc remote list`, then "
            f"run `dvc push`. Its last lines:\n{tail}"
        )


def call(root: Path, *arguments: str, deadline_s: float = _SHORT_S) -> str:
    """Runs a DVC command and returns what it printed.

    Raises:
        FacemillError: it failed or passed the deadline, with its message.
    """
    mend(root)
    command = [sys.executable, "-m", "dvc", *arguments]
    try:
        done = subprocess.run(
            command, cwd=root, env=_environment({}), capture_output=True, text=True, timeout=deadline_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FacemillError(f"dvc {arguments[0]} did not end within {deadline_s:.0f} s") from error
    if done.returncode:
        message = done.stderr.strip() or done.stdout.strip() or f"code {done.returncode}"
        raise FacemillError(f"dvc {' '.join(arguments)} failed in {root}: {message}{_who_holds(root, message)}")
    return done.stdout


def _who_holds(root: Path, said: str) -> str:
    """Who has the lock that DVC did not get, for its message; nothing where it is about something else."""
    if _NO_LOCK not in said:
        return ""
    at_work = "; ".join(running(root))
    return f"\nAt work there: {at_work or 'no DVC. Delete .dvc/tmp/lock and .dvc/tmp/rwlock.lock'}."


def cache_folder(root: Path) -> Path:
    """Where DVC keeps contents, as `ab/cdef…` by their MD5.

    Raises:
        FacemillError: as `_config`.
    """
    named = _config(root).get("cache", {}).get("dir")
    return (Path(named) if named else root.absolute() / ".dvc" / "cache") / "files" / "md5"


def remote_folder(root: Path) -> Path | None:
    """Where the default remote keeps contents, as `cache_folder` does; None where it is no folder of this machine.

    Raises:
        FacemillError: as `_config`.
    """
    name = default_remote(root)
    address = str(_config(root).get("remote", {}).get(name, {}).get("url") or "") if name else ""
    folder = Path(address.removeprefix("file://")) / "files" / "md5"
    return folder if address and "://" not in str(address.removeprefix("file://")) and folder.is_dir() else None


def _config(root: Path) -> Mapping[str, Any]:
    """The project's settings as DVC reads them, from its files for the machine, the user, the project and this clone.

    Read in this process: a DVC of its own would take three times as long to say one of them.

    Raises:
        FacemillError: this is no DVC project, or a file is not as DVC writes it.
    """
    from dvc.config import Config, ConfigError

    folder = root.absolute() / ".dvc"
    if not folder.is_dir():
        raise no_project(root, ".dvc")
    try:
        settings: Mapping[str, Any] = Config(str(folder))
    except ConfigError as error:
        raise FacemillError(f"DVC cannot read the settings of {root} ({error}): mend them in .dvc/config") from error
    return settings


def _not_in_cache(root: Path, hashes: Sequence[str]) -> list[str]:
    """Those of the objects, and of the files in those that are folders, that the cache does not have."""
    cache = cache_folder(root)
    absent = []
    for each in hashes:
        path = cache / each[:2] / each[2:]
        if not path.exists():
            absent.append(each)
        elif each.endswith(".dir"):
            inner = [entry["md5"] for entry in json.loads(path.read_text())]
            absent += [md5 for md5 in inner if not (cache / md5[:2] / md5[2:]).exists()]
    return absent


def _status(root: Path, *stages: str) -> dict[str, Any]:
    """What `dvc status` says of these stages; nothing of those that are up to date.

    Raises:
        FacemillError: another DVC is at work, or DVC cannot read something, in its words.
    """
    from dvc.repo import Repo

    mend(root)
    try:
        with contextlib.chdir(root), Repo() as repo:  # it takes stages for those of the current folder
            answer: dict[str, Any] = repo.status(targets=list(stages))
    except Exception as error:  # whatever it is: DVC's own command line says it and ends, too
        said = ": ".join(str(each) or type(each).__name__ for each in (error, error.__cause__) if each)
        raise FacemillError(f"dvc status failed in {root}: {said}{_who_holds(root, said)}") from error
    return answer


def _stream(
    root: Path,
    arguments: Sequence[str],
    deadline_s: float,
    extra: Mapping[str, str],
    on_line: Callable[[str], None],
    on_tick: Callable[[], None],
) -> str | None:
    """Runs DVC and hands its lines on; returns the last ones if it failed."""
    mend(root)
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    end = time.monotonic() + deadline_s
    with _own_group([sys.executable, "-m", "dvc", *arguments], root, extra) as process:
        for line in _lines(process, end):
            if line is not None and line.strip() and not line.startswith(_HINTS):
                tail.append(line)
                on_line(line)
            on_tick()
        if process.poll() is None and not _ends(process, end - time.monotonic()):
            raise StageFailed(
                f"dvc {' '.join(arguments)} was ended after its deadline of {deadline_s:.0f} s; "
                "finished shards are kept, the same command goes on from there"
            )
    if process.returncode < 0:
        tail.append(f"dvc was killed by signal {-process.returncode}")
    return None if process.returncode == 0 else "\n".join(tail)


@contextlib.contextmanager
def _own_group(command: Sequence[str], root: Path, extra: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own; whatever happens in the block, the whole group has ended after it."""
    process = subprocess.Popen(
        command,
        cwd=root,
        env=_environment(extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with undisturbed():
            end_group(process, _GRACE_S)
        if process.stdout is not None:
            process.stdout.close()


def _lines(process: subprocess.Popen[str], end: float) -> Iterator[str | None]:
    """The lines as they come, None about once a second in between; stops at the end of output or of time."""
    waiting: queue.Queue[str | None] = queue.Queue(maxsize=1000)
    abandoned = threading.Event()

    def put(line: str | None) -> None:
        while not abandoned.is_set():
            try:
                waiting.put(line, timeout=_TICK_S)
            except queue.Full:
                continue
            return

    def read() -> None:
        with contextlib.suppress(ValueError):  # the pipe was closed under us: the group has been ended
            for line in process.stdout or ():
                put(line.rstrip("\n"))
        put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (left := end - time.monotonic()) > 0:
            try:
                line = waiting.get(timeout=min(_TICK_S, left))
            except queue.Empty:
                yield None
                continue
            if line is None:
                return
            yield line
    finally:
        abandoned.set()


def _ends(process: subprocess.Popen[str], seconds: float) -> bool:
    try:
        process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        return False
    return True


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, in which stage commands find `facemill` though no one activated the venv."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    quiet = {"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1", "PATH": path}
    inherited = {key: value for key, value in os.environ.items() if key not in (PROGRESS_FILE_VARIABLE, RETRY_VARIABLE)}
    return calling({**inherited, **quiet, **extra})
