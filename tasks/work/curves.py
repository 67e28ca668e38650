"""Loss curves through DVCLive, which go on where a killed run was as if it had never stopped.

DVCLive keeps one tab-separated file for each metric below `plots/metrics` and the last values in `metrics.json`;
nothing here carries a time, so that equal trainings give equal files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import write_bytes


@contextmanager
def open_curves(folder: Path, step: int) -> Iterator[Curves]:
    """The curves in a folder, going on after `step`: what a killed run wrote beyond its checkpoint is cut off."""
    from dvclive.live import Live  # takes seconds to import: only a training pays for it
    from scmrepo.exceptions import SCMError

    if step:
        cut(folder / "plots" / "metrics", step)
    resume = step > 0 and (folder / "metrics.json").exists()
    try:
        live = Live(str(folder), resume=resume, save_dvc_exp=False, dvcyaml=False)
    except SCMError as error:
        raise FacemillError(
            f"DVCLive asks git for the last commit and got none ({error}): commit once, then again"
        ) from error
    with live:
        yield Curves(live)


class Curves:
    """Metrics by step. Made by `open_curves`."""

    def __init__(self, live: Any) -> None:
        self._live = live

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one point to each curve. Steps rise; two calls may share one."""
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(name, round(value, 6))
        self._live.make_summary()


def cut(folder: Path, step: int) -> None:
    """Drops the rows after `step` from every curve below a folder, atomically."""
    for path in folder.rglob("*.tsv"):
        header, *rows = path.read_text(encoding="utf-8").splitlines()
        at = header.split("\t").index("step")
        kept = [row for row in rows if row.count("\t") == header.count("\t") and int(row.split("\t")[at]) <= step]
        write_bytes(path, "".join(f"{line}\n" for line in (header, *kept)).encode())
