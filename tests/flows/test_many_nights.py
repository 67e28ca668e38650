"""Many nights of the real pipeline, each minute one, while everything that can end or starve a night does so by chance.

Whatever happens, each night ends Completed, or Crashed and made up for, or Skipped with the reason; none blocks the
next; nothing is left running; and the tables are those of a project that nobody has disturbed. How many nights:

    FACEMILL_NIGHTS=50 FACEMILL_NIGHTS_SEED=7 pytest -m slow -s tests/flows/test_many_nights.py

Pictures come and go meanwhile. A grown table has other parts than one from nothing, so rows are compared, by id.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_chaos import Run, all_ended, is_dvc, is_stage, is_worker, living, one_of, tiny, words
from test_end_to_end import clone, repro
from test_schedule import EVERY_MINUTE, free_port, wait_for

from facemill import tables
from facemill.schema import DATASET, FACES, RAW, UNIQUE
from facemill.sources.sample.pictures import picture_bytes, picture_set

pytestmark = pytest.mark.slow
NIGHTS = int(os.environ.get("FACEMILL_NIGHTS", "6"))
SEED = int(os.environ.get("FACEMILL_NIGHTS_SEED", "20261126"))
TABLES = {"raw": RAW, "unique": UNIQUE, "faces": FACES, "dataset": DATASET}
PEOPLE = ("hopper", "collins")
DISK_BYTES = 900 * 2**20
MOST = 400  # pictures of each person
FULL_S, ENDS_S, NIGHT_S = 40.0, 240.0, 900.0
ENDED = ("Completed", "Crashed", "Skipped")
NO_ROOM = ("room", "left: free some", "is full", "no space left")


def from_folders(values: dict[str, Any]) -> dict[str, Any]:
    for name, identity in tiny(values)["identities"].items():
        identity["sources"] = [{"kind": "folder", "path": f"pictures/{name}"}]
    values["collect"]["failure_limit"] = values["extract"]["failure_limit"] = 1.0
    return values


@dataclass
class Pictures:
    """Those in the sources' folders; they come and go."""

    root: Path
    given: int = 0

    def come(self, number: int) -> None:
        for name in PEOPLE:
            folder = self.root / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(self.given, self.given + number):
                temporary = self.root / f".{index}"
                temporary.write_bytes(picture_bytes(picture_set(name, MOST, SEED)[index], SEED))
                temporary.rename(folder / f"{index:04}.jpg")
        self.given += number

    def go(self, chance: random.Random) -> None:
        chance.choice(sorted(self.root.rglob("*.jpg"))).unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, which can be full without anybody else's noticing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    yield folder
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def project(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    made = clone(disk / "project", from_folders)
    yield made
    for process in living(made):
        process.kill()


def serve(project: Path, number: int) -> Run:
    options = ("--cron", EVERY_MINUTE, "--port", str(free_port()), "--no-then-train")
    return Run(project, (sys.executable, "-m", "flows.command_line", "serve", *options), f"serve-{number}.log")


def rows_by_id(project: Path, name: str) -> list[dict[str, Any]]:
    found = tables.read_table(project / "data" / name, TABLES[name]).to_pylist()
    return sorted(found, key=lambda row: (row.get("face_id") or "", str(row.get("id")), str(row.get("url"))))


def ask(project: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{project}/.prefect/prefect.db?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(query).fetchall()


def nights(project: Path) -> list[tuple[str, str, str]]:
    """Name, state and message of each refresh that was due, oldest first."""
    query = """
        SELECT run.name, coalesce(state.name, '?'), coalesce(state.message, '') FROM flow_run AS run
        JOIN flow ON flow.id = run.flow_id LEFT JOIN flow_run_state AS state ON state.id = run.state_id
        WHERE flow.name = 'refresh' AND run.expected_start_time < strftime('%Y-%m-%d %H:%M:%f', 'now')
        ORDER BY run.expected_start_time
    """
    try:
        return [tuple(row) for row in ask(project, query)]
    except sqlite3.Error:  # there is none yet
        return []


def is_server(process: psutil.Process) -> bool:
    return "flows.server_process" in words(process)


def is_flow(process: psutil.Process) -> bool:
    return "prefect.engine" in words(process)


def is_serve(process: psutil.Process) -> bool:
    return "serve" in words(process) and "--cron" in words(process)


def hit(wanted: Callable[[psutil.Process], bool]) -> Callable[[Run, random.Random], bool]:
    """Kills one of those, if there is one."""

    def kill(run: Run, chance: random.Random) -> bool:
        process = one_of(run, wanted, chance)
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return process is not None

    return kill


def tell_all(number: signal.Signals) -> Callable[[Run, random.Random], bool]:
    def tell(run: Run, chance: random.Random) -> bool:
        for process in living(run.project):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return True

    return tell


def interrupt(run: Run, chance: random.Random) -> bool:
    run.process.send_signal(signal.SIGINT)
    return True


def fill_the_disk(run: Run, chance: random.Random) -> bool:
    """For a while, in the middle of a night, which fails and cannot say so."""
    folder = run.project.parent
    if not folder.is_mount():
        return False
    wait_for(lambda: one_of(run, is_stage, chance), NIGHT_S, "a night in the middle of its work")
    filling = folder / "filling"
    with filling.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(2**16))
        except OSError:
            pass
    time.sleep(FULL_S)
    filling.unlink()
    return True


ENDS = {
    "Ctrl-C": interrupt,
    "SIGTERM to all": tell_all(signal.SIGTERM),
    "kill -9 all": tell_all(signal.SIGKILL),
    "kill -9 serve": hit(is_serve),
}
HURTS = {
    "kill -9 flow": hit(is_flow),
    "kill -9 server": hit(is_server),
    "kill -9 stage": hit(is_stage),
    "kill -9 worker": hit(is_worker),
    "kill -9 DVC": hit(is_dvc),
    "nothing": lambda run, chance: True,
}


def zombies(project: Path) -> list[str]:
    """Ended processes for which their parent, one of ours, has not asked within some seconds."""

    def found() -> set[int]:
        ended = set()
        for parent in living(project):
            with suppress(psutil.NoSuchProcess):  # it has just ended itself
                ended |= {child.pid for child in parent.children() if child.status() == psutil.STATUS_ZOMBIE}
        return ended

    left, end = found(), time.monotonic() + 20
    while left and time.monotonic() < end:
        time.sleep(0.5)
        left &= found()
    return [str(pid) for pid in left]


def test_many_nights_that_are_disturbed_end_as_those_that_are_not(project: Path, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    pictures = Pictures(project / "pictures")
    pictures.come(6)
    count: Counter[str] = Counter()
    trouble: list[str] = []
    acts = [*ENDS, *HURTS]
    full_at = NIGHTS // 2
    run = serve(project, 0)
    wait_for(lambda: nights(project), 400, "the first night")
    while len(nights(project)) < NIGHTS:
        time.sleep(chance.uniform(3, 100))
        kind = "full disk" if len(nights(project)) >= full_at and not count["full disk"] else chance.choice(acts)
        if kind == "full disk":
            count[kind] += 1  # once, whether it can be or not
            pictures.come(1)  # or no stage would have anything to do
            kind = kind if fill_the_disk(run, chance) else "full disk: wants to mount a disk"
        else:
            happened = (ENDS | HURTS)[kind](run, chance)
            kind = kind if happened else f"{kind}: nobody there"
        count[kind] += kind != "full disk"
        if kind in ENDS:
            if left := all_ended(project, ENDS_S):
                trouble.append(f"{kind} left running: {[words(process) for process in left]}")
                for process in left:
                    process.kill()
            run.process.wait()
            time.sleep(chance.choice([0, 0, 90]))  # nights are missed meanwhile
            run = serve(project, sum(count.values()))
        elif run.process.poll() is not None:
            trouble.append(f"after {kind} serve has ended with {run.process.returncode}:\n{run.said()}")
            run = serve(project, sum(count.values()))
        if found := zombies(project):
            trouble.append(f"after {kind}: zombies {found}")
        pictures.come(1)
        if chance.random() < 0.3:
            pictures.go(chance)
        print(len(nights(project)), kind, dict(Counter(state for _, state, _ in nights(project))), flush=True)
    known = len(nights(project))
    wait_for(
        lambda: any(state == "Completed" for _, state, _ in nights(project)[known + 1 :]),
        NIGHT_S,
        "a night that begins after all of that, and ends well",
    )
    run.process.terminate()
    if left := all_ended(project, ENDS_S):
        trouble.append(f"the end left running: {[words(process) for process in left]}")
    assert run.process.wait() == 130, run.said()
    found_nights = nights(project)
    print(dict(count), dict(Counter(state for _, state, _ in found_nights)), flush=True)
    trouble += untold(found_nights)
    # What makes up for a crashed night says so in its name, or is the next one of the clock, which comes each minute.
    last_good = max(at for at, (_, state, _) in enumerate(found_nights) if state == "Completed")
    assert all(at < last_good for at, (_, state, _) in enumerate(found_nights) if state == "Crashed")
    slots = "SELECT name, active_slots FROM concurrency_limit_v2 WHERE active_slots != 0"
    assert ask(project, slots) == []
    assert not trouble, "\n\n".join(trouble)
    undisturbed = clone(tmp_path / "undisturbed" / "project", from_folders)
    (undisturbed / "pictures").symlink_to(project / "pictures")
    repro(undisturbed, "curate")
    for name in TABLES:
        assert rows_by_id(project, name) == rows_by_id(undisturbed, name), name


def untold(found: list[tuple[str, str, str]]) -> list[str]:
    """What is wrong with how nights have ended."""
    last_good = max(at for at, (_, state, _) in enumerate(found) if state == "Completed")
    wrong = []
    for at, (name, state, message) in enumerate(found):
        if at > last_good and state in ("Scheduled", "Late"):
            continue  # due when everything had been ended
        if state == "Failed" and any(sign in message.lower() for sign in NO_ROOM):
            continue
        if state not in ENDED:
            wrong.append(f"night {at} ({name}) is {state}: {message}")
        elif state != "Completed" and not message:
            wrong.append(f"night {at} ({name}) is {state} and says nothing")
    return wrong
