"""When a picture of the network was there last, what its host said of it then, and which pictures it has withdrawn.

Kept below `.work`, by the keys of pictures' rows: no table depends on when somebody looked. Without this file, in a new
clone say, the time of every picture begins anew, so that no host is asked for all that is known already.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.files import read_json, write_json
from tasks.work.scratch import WORK_FOLDER

_DAY_S = 24 * 3600.0


@dataclass
class Checks:
    """What is known of pictures beside their rows.

    Attributes:
        seen: keys of pictures, each with the time (seconds since 1970) when it was there, and `Item.said`.
        withdrawn: keys of pictures that are no longer what their address gives. Results of earlier runs may hold them
            still, and they shall not come back from there.
    """

    seen: dict[str, tuple[float, Mapping[str, str]]] = field(default_factory=dict)
    withdrawn: set[str] = field(default_factory=set)

    def is_due(self, key: str, days: float | None) -> bool:
        """Whether a picture was not there within so many days; never with None or 0. The time of one of which nothing
        is known begins now."""
        if not days:
            return False
        if key not in self.seen:
            self.seen[key] = (time.time(), {})
            return False
        return not 0 <= time.time() - self.seen[key][0] < days * _DAY_S

    def said(self, key: str) -> Mapping[str, str]:
        """What the host of a picture said of it; nothing where that is not known."""
        return self.seen[key][1] if key in self.seen else {}

    def note(self, said: Mapping[str, Mapping[str, str]], withdrawn: Iterable[str]) -> None:
        """Takes note of pictures that are there now, each with what its host said, and of those that are not."""
        now = time.time()
        self.withdrawn = (self.withdrawn | set(withdrawn)) - said.keys()
        self.seen |= {key: (now, each) for key, each in said.items()}

    def save(self, root: Path, present: Collection[str]) -> None:
        """Keeps what is known of pictures that are there, or withdrawn: of one that is forgotten nothing is left."""
        seen = {key: each for key, each in self.seen.items() if key in present and key not in self.withdrawn}
        write_json(_file(root), {"seen": seen, "withdrawn": sorted(self.withdrawn)})


def read_checks(root: Path) -> Checks:
    """What earlier runs have noted; nothing where there is no such file, or none of ours."""
    try:
        told: Any = read_json(_file(root))
        seen: dict[str, tuple[float, Mapping[str, str]]] = {
            key: (float(at), dict(said)) for key, (at, said) in told["seen"].items()
        }
        return Checks(seen, set(told["withdrawn"]))
    except (FacemillError, AttributeError, KeyError, TypeError, ValueError):
        return Checks()


def _file(root: Path) -> Path:
    folder = root / WORK_FOLDER / "collect-checks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "checks.json"
