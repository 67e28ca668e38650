"""What a night costs: a dataset of many small pictures, then 1 % more at random places of the folders, then 1 % fewer.

    python benchmarks/refresh.py                     # 10,000 pictures, some 20 minutes on two cores
    python benchmarks/refresh.py --pictures 1000
    timeout 600 python benchmarks/refresh.py --pictures 100000 --folder bench   # again and again, until it ends

Each step is `dvc repro curate` in a copy of the project in an empty folder, as in a fresh clone. Against the first run,
in the same run of this script, as ratios: worker seconds (targets: at most 2 % for 1 % more), bytes that DVC's cache
grows by (3 %), wall time (15 %). In the end a second copy at another path makes the same pictures from nothing: its
tables, sorted by id, must be those of the one that grew and shrank. Last, `dvc repro` and `facemill why` with nothing
to do, medians of five.

Of each stage of the first run the peak memory is told, looked at five times a second: of the stage's own process and of
the largest of its workers, each with Python and all libraries.

The pictures are views of the two sample people, 128 px, each turned, moved, scaled and lit unevenly by chance, so that
none is another's duplicate by its bytes and next to none by its face; `dedup.hash_distance` is 0, or most of them would
be near duplicates.

With `--folder` all of it stays there, and a run that was broken off at any moment goes on: the tables must be equal all
the same. The seconds of a step are then those of its last stretch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import yaml

from facemill import tables
from facemill.detect import build_detector
from facemill.files import read_json, write_json
from facemill.pictures import decode, encode_jpeg
from facemill.schema import DATASET, FACES, RAW, UNIQUE, TableSchema
from facemill.sources.sample.portraits import portrait_file

PROJECT = Path(__file__).resolve().parents[1]
COPIED = ("facemill", "tasks", "flows", "dvc.yaml", ".dvcignore", ".gitignore", "prefect.toml")
PEOPLE = ("hopper", "collins")
SIDE_PX, FOLDERS, SHARE, RUNS = 128, 20, 0.01, 5
UNEVEN_LIGHT, PATCHES = 0.22, 6
"""Deviation of the light of a patch, and patches along a side. Under even light half of 150 views of one face are
copies of others to `facemill.face_looks`, and a picture more in the folder gives hundreds of them another original; so
lit it is one of a hundred. With stronger light, or more patches, more faces are not found (here one of twenty)."""
STAGES = ("collect", "dedup", "extract", "curate")
TABLES: dict[str, TableSchema[Any]] = {"raw": RAW, "unique": UNIQUE, "faces": FACES, "dataset": DATASET}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where all of it stays, so that what is broken off can go on")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (arguments.folder or Path(scratch)).absolute()
        grown, fresh = folder / "grown", folder / "another path" / "fresh"
        pictures = Pictures(folder / "pictures", arguments.seed)
        few = max(1, round(arguments.pictures * SHARE))
        done = Done(folder / "done.json")
        done.once("pictures", lambda: pictures.add(arguments.pictures, "first"))
        done.once("clone", lambda: clone(grown, pictures.folder))
        done.once("first run", lambda: measured(grown))
        done.once("pictures more", lambda: pictures.add(few, "more"))
        done.once(f"{few} more", lambda: measured(grown))
        done.once("pictures fewer", lambda: pictures.remove(few, "fewer"))
        done.once(f"{few} fewer", lambda: measured(grown))
        print(f"{arguments.pictures} pictures, {SIDE_PX} px, {os.cpu_count()} cores")
        _print_steps({name: done.given[name] for name in ("first run", f"{few} more", f"{few} fewer")})
        for stage, (own, worker) in done.given["first run"]["peaks"].items():
            print(f"peak of {stage}: {own:.0f} MiB" + (f", of its largest worker {worker:.0f} MiB" if worker else ""))
        done.once("clone again", lambda: clone(fresh, pictures.folder))
        done.once("rebuild", lambda: repro(fresh, "curate"))
        for name in TABLES:
            count, equal = compared(grown, fresh, name)
            print(f"{name}: {count} rows, {'equal to' if equal else 'NOT'} a rebuild, sorted by id")
        nothing = [seconds(lambda: repro(grown, "curate")) for _ in range(RUNS)]
        why = [seconds(lambda: run(grown, "-m", "flows.command_line", "why")) for _ in range(RUNS)]
        print(f"nothing to do: dvc repro curate {statistics.median(nothing):.1f} s, facemill why", end=" ")
        print(f"{statistics.median(why):.1f} s")


class Done:
    """Which steps are done, and what they gave, in a file."""

    def __init__(self, file: Path) -> None:
        self.given: dict[str, Any] = read_json(file) if file.exists() else {}
        self._file = file

    def once(self, name: str, step: Callable[[], Any]) -> None:
        """Takes a step that has not been taken. One that was broken off begins again: it finds what it has made."""
        if name not in self.given:
            self.given[name] = step()
            write_json(self._file, self.given)


def _print_steps(steps: Mapping[str, Mapping[str, float]]) -> None:
    first, before = steps["first run"], 0.0
    print(f"{'':<12}{'wall s':>9}{'ratio':>8}{'worker s':>10}{'ratio':>8}{'items':>8}{'cache MB':>10}{'ratio':>8}")
    for name, step in steps.items():
        ratios = [step[key] / first[key] if first[key] else 0.0 for key in ("wall", "workers")]
        grown, before = step["cache"] - before, step["cache"]
        print(
            f"{name:<12}{step['wall']:>9.1f}{ratios[0]:>8.3f}{step['workers']:>10.1f}{ratios[1]:>8.3f}"
            f"{step['items']:>8}{grown / 1e6:>10.2f}{grown / first['cache']:>8.3f}",
            flush=True,
        )


class Pictures:
    """Folders of each person's pictures, with names in random order, so that new ones come between the old.

    What a step adds hangs on its name alone, so that one which was broken off adds the same again.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self._seed = folder, seed
        self._portraits = {person: _portrait(person) for person in PEOPLE}

    def add(self, count: int, step: str) -> None:
        """Writes so many pictures at random places."""
        rng = random.Random(f"{self._seed}/{step}")
        for _ in range(count):
            person = rng.choice(PEOPLE)
            path = self.folder / person / f"{rng.randrange(FOLDERS):02d}" / f"{rng.getrandbits(64):016x}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_jpeg(_view(self._portraits[person], rng)))

    def remove(self, count: int, step: str) -> None:
        """Removes so many pictures, chosen by chance."""
        rng = random.Random(f"{self._seed}/{step}")
        for path in rng.sample(sorted(self.folder.rglob("*.jpg")), count):
            path.unlink()


def _portrait(person: str) -> np.ndarray:
    """The face, half as wide as what is around it, in the middle of 2 × SIDE_PX."""
    picture = decode(portrait_file(person).read_bytes())
    left, top, right, bottom = next(iter(build_detector("hog", min_face_px=80).detect([picture]))).boxes_xyxy[0]
    scale = SIDE_PX / (right - left)
    crop = np.array(
        [[scale, 0, SIDE_PX - scale * (left + right) / 2], [0, scale, SIDE_PX - scale * (top + bottom) / 2]]
    )
    return np.asarray(
        cv2.warpAffine(picture, crop, (2 * SIDE_PX, 2 * SIDE_PX), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    )


def _view(portrait: np.ndarray, rng: random.Random) -> np.ndarray:
    turn = np.array(cv2.getRotationMatrix2D((SIDE_PX, SIDE_PX), rng.uniform(-12, 12), rng.uniform(0.5, 0.62)), float)
    turn[:, 2] += np.array([rng.uniform(-6, 6) - SIDE_PX / 2, rng.uniform(-6, 6) - SIDE_PX / 2])
    view = cv2.warpAffine(portrait, turn, (SIDE_PX, SIDE_PX), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    lit = view * (rng.uniform(0.75, 1.25) * _light(rng)) + rng.uniform(-15, 15)
    return np.asarray(np.clip(_FACE * lit + (1 - _FACE) * _surroundings(rng), 0, 255), np.uint8)


def _light(rng: random.Random) -> np.ndarray:
    """(SIDE_PX, SIDE_PX, 1) factors around 1, smooth between the middles of the patches."""
    coarse = np.array([rng.gauss(0, UNEVEN_LIGHT) for _ in range(PATCHES**2)], np.float32).reshape(PATCHES, PATCHES)
    return np.asarray(np.exp(cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)))[..., None]


def _surroundings(rng: random.Random) -> np.ndarray:
    """Soft patches of chance colours: with the same surroundings, thousands of views would have the same hash."""
    coarse = np.array([rng.uniform(0, 255) for _ in range(6 * 6 * 3)], np.float32).reshape(6, 6, 3)
    return cv2.resize(coarse, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)


def _ellipse() -> np.ndarray:
    """(SIDE_PX, SIDE_PX, 1), 1 where the face is, 0 around it, soft between."""
    mask = np.zeros((SIDE_PX, SIDE_PX), np.float32)
    cv2.ellipse(mask, (SIDE_PX // 2, int(0.42 * SIDE_PX)), (int(0.34 * SIDE_PX), int(0.4 * SIDE_PX)), 0, 0, 360, 1, -1)
    return cv2.GaussianBlur(mask, (0, 0), 4)[..., None]


_FACE = _ellipse()


def clone(root: Path, pictures: Path, adapt: Callable[[dict[str, Any]], None] = lambda values: None) -> None:
    """A copy of the project with the pictures as its sources, in which nothing has run.

    Args:
        root: the new project's folder; whatever lies there goes.
        pictures: a folder of each person.
        adapt: changes the parameters once more.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in COPIED:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, root / name)
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    for person in PEOPLE:
        values["identities"][person]["sources"] = [{"kind": "folder", "path": str(pictures / person)}]
    values["archive"]["seconds"] = 1.0
    values["dedup"] |= {"hash_distance": 0}
    values["extract"] |= {"min_face_px": 40, "crop_px": 128}
    values["curate"] |= {"min_face_px": 40}
    adapt(values)
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "start"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    run(root, "-m", "dvc", "init", "-q")


def measured(root: Path) -> dict[str, Any]:
    """`dvc repro curate`: wall and worker seconds, items worked, bytes that DVC's cache has then, `Watched.peaks`."""
    with Watched() as watched:
        wall = seconds(lambda: repro(root, "curate"))
    times = [json.loads((root / ".work" / "times" / f"{stage}.json").read_text()) for stage in STAGES]
    return {
        "wall": wall,
        "workers": sum(each["worker_seconds"] for each in times),
        "items": sum(each["worked"] for each in times),
        "cache": _cache_bytes(root),
        "peaks": watched.peaks,
    }


class Watched(threading.Thread):
    """Looks at the memory of the stages that this process's children run, until the `with` ends.

    `peaks` has for each stage the MiB of its process and of the largest of its workers.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks: dict[str, list[float]] = {}
        self._over = threading.Event()

    def __enter__(self) -> Watched:
        self.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(0.2):
            with suppress(psutil.Error):  # a process that has just ended
                for process in psutil.Process().children(recursive=True):
                    match process.cmdline():
                        case [_, command, "stage", stage] if Path(command).name == "facemill":
                            self._look(stage, process)

    def _look(self, stage: str, process: psutil.Process) -> None:
        workers = [each.memory_info().rss for each in process.children(recursive=True)]
        own, largest = self.peaks.get(stage, (0.0, 0.0))
        now, of_workers = process.memory_info().rss / 2**20, max(workers, default=0) / 2**20
        self.peaks[stage] = [max(own, now), max(largest, of_workers)]


def repro(root: Path, stage: str) -> None:
    run(root, "-m", "dvc", "repro", stage)


def run(root: Path, *arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=root, env=environment(root), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")


def environment(root: Path) -> dict[str, str]:
    """The code that runs is the copy's, as in a clone with an environment of its own."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(root), "DVC_NO_ANALYTICS": "1"}


def seconds(work: Any) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def _cache_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / ".dvc" / "cache").rglob("*") if path.is_file())


def compared(one: Path, other: Path, name: str) -> tuple[int, bool]:
    """The rows of a table in one project, and whether the other has the same, sorted by id."""
    found = rows(one, name)
    return len(found), found == rows(other, name)


def rows(root: Path, name: str) -> list[bytes]:
    """A hash of each row of a table, sorted: whatever order they lie in, so that a million fits into memory."""
    table = tables.iterate_rows(root / "data" / name, TABLES[name])
    return sorted(hashlib.blake2b(repr(sorted(row.items())).encode(), digest_size=16).digest() for row in table)


if __name__ == "__main__":
    main()
