"""Kill it at any moment, again and again: the next run goes on by itself and ends with the same bytes.

A round starts the pipeline, kills something at a random moment and looks that nothing is left running. A run that gets
to its end is compared with an undisturbed one, thrown away and begun anew. How long:

    FACEMILL_CHAOS_ROUNDS=500 FACEMILL_CHAOS_SEED=7 pytest -m slow -s tests/test_chaos.py

With FACEMILL_CHAOS_FOLDER the project stays in that folder, and the next call goes on there.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_end_to_end import PROJECT, clone, environment

from facemill.files import file_sha256, read_json, write_json
from tasks.stages import STAGES

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("FACEMILL_CHAOS_ROUNDS", "60"))
SEED = int(os.environ.get("FACEMILL_CHAOS_SEED", "20261125"))
MARK = "FACEMILL_CHAOS"
END_S, RUN_S, FOUND_S = 180.0, 1800.0, 20.0
TIMES = ("data/metrics/", "data/report/", "data/train/", "data/weights/")  # hold seconds, or pictures of them
DVC = (sys.executable, "-m", "dvc", "repro")
FLOW = (sys.executable, "-m", "flows.command_line", "run", "pipeline")


def tiny(values: dict[str, Any]) -> dict[str, Any]:
    for identity in values["identities"].values():
        identity["sources"][0]["pictures"] = 16
    values["archive"]["seconds"] = 0.6
    values["collect"]["rows_per_shard"] = values["extract"]["rows_per_shard"] = 8
    values["train"] |= {"steps": 8, "save_every": 2, "evaluate_every": 4, "batch": 4}
    values["report"] |= {"measured_frames": 1, "frames_per_video": 1}
    values["cluster"] = {"kind": "local", "workers": 2}
    return values


@dataclass
class Run:
    """A pipeline that runs in the project, in a session of its own."""

    project: Path
    command: tuple[str, ...]
    log_name: str = "chaos.log"
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.project / ".work" / self.log_name
        self.log.parent.mkdir(exist_ok=True)
        marked = environment(self.project) | {MARK: str(self.project), "PREFECT_HOME": str(self.project / ".prefect")}
        marked |= {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command, cwd=self.project, env=marked, stdout=log, stderr=log, start_new_session=True
            )

    def ends_within(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def at(self) -> str:
        """The stage that it is in."""
        begun = [line.split("Running stage '")[1].split("'")[0] for line in self.lines() if "Running stage '" in line]
        return begun[-1] if begun else "no stage"

    def said(self) -> str:
        return "\n".join(self.lines()[-40:])

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()


def living(project: Path) -> list[psutil.Process]:
    """Every process that a run in this project has started, however it was detached since."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == str(project):
                found.append(process)
        except psutil.Error:
            continue
    return found


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def is_stage(process: psutil.Process) -> bool:
    said = words(process)[1:3]  # the interpreter before them
    return len(said) == 2 and Path(said[0]).name == "facemill" and said[1] == "stage"


def is_dvc(process: psutil.Process) -> bool:
    return words(process)[1:3] == ["-m", "dvc"]


def is_worker(process: psutil.Process) -> bool:
    return any("spawn_main" in word for word in words(process))


def one_of(run: Run, wanted: Callable[[psutil.Process], bool], chance: random.Random) -> psutil.Process | None:
    found = [process for process in living(run.project) if wanted(process)]
    return chance.choice(found) if found else None


def send(run: Run, wanted: Callable[[psutil.Process], bool], number: int, chance: random.Random) -> bool:
    end = time.monotonic() + FOUND_S
    while (process := one_of(run, wanted, chance)) is None and time.monotonic() < end and not run.ends_within(0.1):
        pass
    if process is not None:
        try:
            process.send_signal(number)
        except psutil.Error:
            return False
    return process is not None


def send_group(run: Run, number: int, chance: random.Random) -> bool:
    os.killpg(run.process.pid, number)
    return True


KILLS: dict[str, Callable[[Run, random.Random], bool]] = {
    "kill group": lambda run, chance: send_group(run, signal.SIGKILL, chance),
    "kill stage": lambda run, chance: send(run, is_stage, signal.SIGKILL, chance),
    "kill worker": lambda run, chance: send(run, is_worker, signal.SIGKILL, chance),
    "kill DVC": lambda run, chance: send(run, is_dvc, signal.SIGKILL, chance),
    "end group": lambda run, chance: send_group(run, signal.SIGTERM, chance),
    "end DVC": lambda run, chance: send(run, is_dvc, signal.SIGTERM, chance),
    "end stage": lambda run, chance: send(run, is_stage, signal.SIGTERM, chance),
    "interrupt group": lambda run, chance: send_group(run, signal.SIGINT, chance),
}


def all_ended(project: Path, seconds: float = END_S) -> list[psutil.Process]:
    end = time.monotonic() + seconds
    while (left := living(project)) and time.monotonic() < end:
        time.sleep(0.2)
    return left


def outputs(project: Path) -> dict[str, str]:
    """Every byte that the pipeline decides about: path → hash."""
    files = (path for path in (project / "data").rglob("*") if path.is_file() and path.name != ".gitignore")
    names = {path.relative_to(project).as_posix(): path for path in files}
    return {name: file_sha256(path) for name, path in sorted(names.items()) if not name.startswith(TIMES)}


def throw_away(project: Path) -> None:
    """As if nothing had ever run there."""
    for name in ("data/raw", "data/videos", ".dvc/cache", ".dvc/tmp", ".work"):
        shutil.rmtree(project / name, ignore_errors=True)
    for path in (project / "data").iterdir():
        if path.name != ".gitignore":
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    (project / "dvc.lock").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    named = os.environ.get("FACEMILL_CHAOS_FOLDER")
    folder = Path(named) / "project" if named else tmp_path_factory.mktemp("chaos")
    if (folder / ".dvc").exists():
        return folder
    folder.parent.mkdir(exist_ok=True)
    project = clone(folder, tiny)
    (project / ".dvc" / "config").write_bytes((PROJECT / ".dvc" / "config").read_bytes())  # its cache links
    return project


@pytest.fixture
def project(made: Path) -> Iterator[Path]:
    yield made
    for process in living(made):
        process.kill()


@pytest.fixture(scope="module")
def undisturbed(made: Path) -> dict[str, str]:
    """What comes out where nobody kills anything."""
    known = made.parent / "undisturbed.json"
    if known.exists():
        return dict(read_json(known))
    start = time.monotonic()
    run = Run(made, DVC)
    assert run.ends_within(RUN_S), run.said()
    assert run.process.returncode == 0, run.said()
    found = outputs(made)
    assert len(found) > 20
    found["seconds"] = str(time.monotonic() - start)
    throw_away(made)
    if "FACEMILL_CHAOS_FOLDER" in os.environ:
        write_json(known, found)
    return found


def test_the_next_run_goes_on_by_itself_and_ends_with_the_same_bytes(
    project: Path, undisturbed: dict[str, str]
) -> None:
    chance = random.Random(SEED)
    expected = {name: value for name, value in undisturbed.items() if name != "seconds"}
    span_s = 0.3 * float(undisturbed["seconds"])
    count: Counter[str] = Counter()
    trouble: list[str] = []

    def finished(run: Run, where: str) -> None:
        if run.process.returncode != 0:
            trouble.append(f"{where}: ended with {run.process.returncode}:\n{run.said()}")
            return
        found = outputs(project)
        if found != expected:
            names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            trouble.append(f"{where}: other bytes: {names}")
        count["finished"] += 1
        throw_away(project)

    for number in range(ROUNDS):
        command = FLOW if chance.random() < 0.15 else DVC
        where = f"round {number} ({command[2]})"
        run = Run(project, command)
        ended = run.ends_within(chance.uniform(0, span_s * (2 if command is FLOW else 1)))
        if not ended:
            kind = chance.choice(list(KILLS))
            where += f" {kind} in {run.at()}"
            hit = KILLS[kind](run, chance)
            count[kind if hit else f"{kind}: nobody there"] += 1
            # A worker is replaced, and a flow tries a stage again that died: it goes on by itself, for a while.
            tried_again = command is FLOW and not kind.endswith("group")
            if kind == "kill worker" or tried_again or not hit:
                ended = run.ends_within(chance.uniform(0, span_s))
                if not ended:
                    KILLS["kill group"](run, chance)
        if ended:
            finished(run, where)
        if left := all_ended(project):
            trouble.append(f"{where}: left running: {[words(process) for process in left]}")
            for process in left:
                process.kill()
        run.process.wait()
        print(where, "ended" if ended else "", dict(count), *trouble[-1:], flush=True)
    if "FACEMILL_CHAOS_FOLDER" not in os.environ:  # else the next call goes on
        run = Run(project, DVC)
        assert run.ends_within(RUN_S), run.said()
        finished(run, "the last run")
    print(dict(count), flush=True)
    assert not trouble, "\n\n".join(trouble)


def stage_at_work(project: Path, stage: str) -> bool:
    return any(is_stage(process) and words(process)[3:4] == [stage] for process in living(project))


def test_told_to_end_in_the_middle_of_each_stage_the_next_start_ends_with_the_same_bytes(
    project: Path, undisturbed: dict[str, str]
) -> None:
    """SIGTERM to every process at once, as systemd does it by default, and the same command again."""
    chance = random.Random(SEED)
    for stage in STAGES:
        run = Run(project, FLOW)
        end = time.monotonic() + RUN_S
        while not stage_at_work(project, stage):
            assert time.monotonic() < end, run.said()
            assert not run.ends_within(0.1), run.said()
        time.sleep(chance.uniform(0.2, 1.5))
        assert stage_at_work(project, stage), f"{stage} was too quick"
        for process in living(project):
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        assert run.ends_within(END_S), run.said()
        assert not all_ended(project)
        print(stage, run.process.returncode, flush=True)
    run = Run(project, FLOW)
    assert run.ends_within(RUN_S)
    assert run.process.returncode == 0, run.said()
    assert outputs(project) == {name: value for name, value in undisturbed.items() if name != "seconds"}
    throw_away(project)


def both(project: Path, command: tuple[str, ...], between_s: float) -> list[tuple[int, str]]:
    """Starts a command twice; the code and the words of each."""
    runs = []
    for number in range(2):
        if number:
            time.sleep(between_s)
        runs.append(Run(project, command, f"chaos-{number}.log"))
    assert all(run.ends_within(RUN_S) for run in runs)
    assert not all_ended(project)
    return [(run.process.returncode, run.said()) for run in runs]


FACEMILL = (str(Path(sys.executable).with_name("facemill")),)
REFUSED = (
    r"is being blocked by|Unable to acquire lock|is already running in .* \(process \d+, since |another conversion"
)


@pytest.mark.parametrize("between_s", [0.0, 15.0])
def test_of_two_runs_at_once_one_does_the_work_and_the_other_is_told_or_finds_nothing_to_do(
    project: Path, undisturbed: dict[str, str], between_s: float
) -> None:
    ended = both(project, DVC, between_s)
    assert 0 in [code for code, _ in ended], ended
    for code, said in ended:
        assert code == 0 or re.search(REFUSED, said), said
    run = Run(project, DVC)
    assert run.ends_within(RUN_S)
    assert run.process.returncode == 0, run.said()
    assert outputs(project) == {name: value for name, value in undisturbed.items() if name != "seconds"}
    footage, done = project / "data" / "archive", project.parent / f"done {between_s}"
    convert = (*FACEMILL, "convert", "--let-failures-pass", str(footage), str(done))  # one sample video is cut off
    for command in (*FACEMILL, "stage", "extract"), convert:
        ended = both(project, command, 0.0)
        codes = sorted(code for code, _ in ended)
        assert codes == [0, 1] or (codes == [0, 0] and "stage" in command), ended  # with nothing to do it is quick
        assert all(re.search(REFUSED, said) for code, said in ended if code), ended
    throw_away(project)
