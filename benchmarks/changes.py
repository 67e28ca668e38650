"""What runs again after each kind of change, in a copy of the project with small parameters. Some five minutes.

    python benchmarks/changes.py

118 pictures of the two sample people, tables in parts of 8 rows, a net trained for a few steps. For each change: the
stages that `dvc repro` runs, the items (pictures, parts, faces, videos) that they work, and how many parts of `faces`
get other bytes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refresh import PEOPLE, Pictures, clone, environment

from facemill.files import file_sha256

PICTURES = 59


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, pictures = Path(folder) / "project", Pictures(Path(folder) / "pictures", seed=1)
        pictures.add(2 * PICTURES, "first")
        clone(root, pictures.folder, small)
        print(f"first run: {_told(root, lambda: None)}")
        for name, change in _changes(root, pictures.folder).items():
            print(f"{name}: {_told(root, change)}", flush=True)


def small(values: dict[str, Any]) -> None:
    """Parts of 8 rows and a training of a few steps."""
    values["collect"]["rows_per_shard"] = values["extract"]["rows_per_shard"] = 8
    values["train"] |= {"steps": 12, "save_every": 6, "evaluate_every": 6, "batch": 8}
    values["report"] |= {"measured_frames": 1, "frames_per_video": 1}


def _changes(root: Path, pictures: Path) -> dict[str, Callable[[], object]]:
    some = sorted((pictures / PEOPLE[0]).rglob("*.jpg"))
    first, last = some[0], some[-1]
    spare = sorted((pictures / PEOPLE[1]).rglob("*.jpg"))[
        :2
    ]  # the other person's: pictures that are new under PEOPLE[0]

    def append(file: str, text: str) -> Callable[[], object]:
        path = root / file
        return lambda: path.write_text(path.read_text() + text)

    return {
        "one picture added at the head": lambda: shutil.copy(spare[0], first.parent / "0.jpg"),
        "one at the end": lambda: shutil.copy(spare[1], last.parent / "zz.jpg"),
        "a comment in the report's code": append("tasks/report.py", "\n# a comment\n"),
        "the report's code": append("tasks/report.py", "\nANOTHER = 1\n"),
        "the DSFD trainer": append("facemill/detector_training/engine.py", "\nANOTHER = 1\n"),
        "nets/gan.py": append("facemill/nets/gan.py", "\nANOTHER = 1\n"),
        "detector_training/evaluate.py": append("facemill/detector_training/evaluate.py", "\nANOTHER = 1\n"),
        "the blending of swaps": append("facemill/swap/blend.py", "\nANOTHER = 1\n"),
        "one picture removed": first.unlink,
        "nothing": lambda: None,
    }


def _told(root: Path, change: Callable[[], object]) -> str:
    before, times = _parts(root), root / ".work" / "times"
    change()
    shutil.rmtree(times, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=root, env=environment(root), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
    ran = [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")]
    after = _parts(root)
    words = [_worked(times / f"{stage}.json", stage) for stage in ran if stage != "inventory"]
    other = sum(before.get(name) != sha256 for name, sha256 in after.items())
    return f"{', '.join(words) or 'no stage'}; {other} of {len(after)} parts of faces are others"


def _worked(times: Path, stage: str) -> str:
    worked = json.loads(times.read_text())["worked"] if times.exists() else None
    return stage if worked is None else f"{stage} ({worked})"


def _parts(root: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in (root / "data" / "faces").glob("*.parquet")}


if __name__ == "__main__":
    main()
