"""How old the dataset is: when somebody last looked for something new, and whether that is longer ago than it may be.

The clock of the last completed refresh lies in `.work`, not in git: it says nothing of the data, only of this machine.
Where it is missing or speaks of another dataset than the one that lies there, the date of that dataset's version
counts, and where it has none that of the newest version. A date in the future does not count: the clock was set back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import read_json, write_json
from tasks.params import Params
from tasks.versions import dvc_lock
from tasks.versions.store import Version, list_versions
from tasks.work.scratch import WORK_FOLDER

CLOCK_FILE = "refreshed.json"
_LIMIT = "freshness.max_age_h"
_SKEW = timedelta(minutes=1)
"""So far two machines' clocks may differ."""
_REMEDY = "`facemill run refresh` brings it up to date, `facemill serve` does so every night"


@dataclass(frozen=True)
class Freshness:
    """How old the dataset is.

    Attributes:
        now: when that was asked.
        since: when it was last known to hold all that its sources had; None if that has never been, or nobody knows.
        by: how that is known, in words.
        limit_h: how old it may be, in hours.
        future: dates that do not count since they lie in the future, in words.
    """

    now: datetime
    since: datetime | None
    by: str
    limit_h: float
    future: tuple[str, ...] = ()

    @property
    def age_h(self) -> float | None:
        """How old it is, in hours; None where nobody knows."""
        return None if self.since is None else max(0.0, (self.now - self.since) / timedelta(hours=1))

    @property
    def is_fresh(self) -> bool:
        """Whether it is known to be no older than it may be."""
        return self.age_h is not None and self.age_h <= self.limit_h

    def __str__(self) -> str:
        limit = f"{self.limit_h:g} h ({_LIMIT})"
        if self.age_h is None:
            said = f"Nobody knows how old the dataset is, {self.by}: {_REMEDY}."
        elif self.is_fresh:
            said = f"The dataset is fresh: {self.by} {self.age_h:.1f} h ago, and may be {limit} old."
        else:
            said = f"The dataset is too old: {self.by} {self.age_h:.1f} h ago, and may be {limit} old. {_REMEDY}."
        return " ".join([*self.future, said])


def freshness(root: Path, params: Params, now: datetime | None = None) -> Freshness:
    """How old a project's dataset is; nothing is written.

    Args:
        root: the project's folder.
        params: with the limit.
        now: the time to compare with, in any time zone; by default that of the clock.

    Raises:
        FacemillError: no git or DVC repository, or a dvc.lock that cannot be read.
    """
    now = now or datetime.now(UTC)
    limit_h = params.freshness.max_age_h
    dataset = dvc_lock.dataset_hash(dvc_lock.read(root))
    versions = list_versions(root)
    if dataset is None:
        return Freshness(now, None, "since none has been made here", limit_h)
    dates = _dates(_read_clock(root), dataset, versions)
    future = tuple(
        f"{said[:1].upper()}{said[1:]} at {when:%Y-%m-%d %H:%M} UTC, which is in the future and does not count: this "
        "machine's clock has been set back, or was ahead then."
        for when, said in dates
        if when > now + _SKEW
    )
    if past := [each for each in dates if each[0] <= now + _SKEW]:
        return Freshness(now, *max(past), limit_h, future)
    return Freshness(now, None, "since no refresh has ended here and it is no version", limit_h, future)


def note_refresh(root: Path, version: Version) -> None:
    """Keeps that a refresh has ended just now, and what it brought.

    Args:
        root: the project's folder.
        version: the dataset's, with `is_new` as `save_version` says it.
    """
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    told = {"ended": now, "dataset": version.dataset, "version": version.name, "brought_new": version.is_new}
    write_json(root / WORK_FOLDER / CLOCK_FILE, told)


def _dates(clock: dict[str, Any], dataset: str, versions: list[Version]) -> list[tuple[datetime, str]]:
    """When this dataset was known to hold everything, each with how that is known; else when versions were named."""
    dates = []
    if clock.get("dataset") == dataset:
        found = f"brought {clock['version']}" if clock["brought_new"] else "found nothing new"
        dates.append((clock["ended"], f"the last refresh {found}"))
    dates += [(each.created, f"its version {each.name} was named") for each in versions if each.dataset == dataset]
    return dates or [(each.created, f"it has no name, and version {each.name} was named") for each in versions]


def _read_clock(root: Path) -> dict[str, Any]:
    """What the last refresh has kept; nothing where there was none, or where it cannot be read."""
    try:
        told = read_json(root / WORK_FOLDER / CLOCK_FILE)
        return {
            "ended": datetime.fromisoformat(told["ended"]).astimezone(UTC),
            "dataset": str(told["dataset"]),
            "version": str(told["version"]),
            "brought_new": bool(told["brought_new"]),
        }
    except (FacemillError, KeyError, TypeError, ValueError, OSError):
        return {}
