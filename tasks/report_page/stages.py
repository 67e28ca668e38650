"""The report's tables on the stages: rows by state and reason, from `data/metrics`.

How long a stage took is not here: the same data give the same page. Prefect's page and `.work/times` have it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from facemill.files import read_object
from facemill.reasons import State
from tasks.report_page.dataset import sentence
from tasks.stages import STAGES

_KNOWN = {"in", "ok", "rejected", "failed", "reasons"}


@dataclass(frozen=True)
class StageLine:
    """One stage's metrics; `ran` is false where its file is missing."""

    name: str
    unit: str
    ran: bool
    rows_in: int = 0
    states: dict[str, int] = field(default_factory=dict)
    reasons: list[tuple[str, str, int]] = field(default_factory=list)
    """(code in words, what it means, rows), most frequent first."""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def shares(self) -> list[tuple[str, float]]:
        """For a bar of the states: (state, percent of all rows), without empty states."""
        return [(state, 100 * count / self.rows_in) for state, count in self.states.items() if count and self.rows_in]

    @property
    def counts(self) -> list[tuple[str, float]]:
        """(`frames_swapped` in words, value): what the stage says beside its rows.

        Measures of one identity ("val_ssim/NAME") are left out: the page on training shows them.
        """
        return [
            (name.replace("_", " "), value)
            for name, value in self.extra.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and "/" not in name
        ]


def gather_stages(root: Path) -> list[StageLine]:
    """One line a stage, in the order of the pipeline.

    Raises:
        FacemillError: a file of metrics is broken.
    """
    return [
        _line(root / stage.metrics, stage.name, stage.rows)
        for stage in STAGES.values()
        if stage.metrics is not None and stage.rows is not None
    ]


def stages_metrics(lines: list[StageLine]) -> dict[str, Any]:
    """Rows by stage and state, as plain values."""
    return {line.name: {"in": line.rows_in, **line.states} for line in lines if line.ran}


def _line(path: Path, name: str, unit: str) -> StageLine:
    if not path.is_file():
        return StageLine(name, unit, ran=False)
    values = read_object(path)
    reasons = sorted(values.get("reasons", {}).items(), key=lambda item: (-item[1], item[0]))
    return StageLine(
        name,
        unit,
        ran=True,
        rows_in=int(values.get("in", 0)),
        states={str(state): int(values.get(str(state), 0)) for state in State},
        reasons=[(code.replace("_", " "), sentence(code), count) for code, count in reasons],
        extra={key: value for key, value in values.items() if key not in _KNOWN},
    )
