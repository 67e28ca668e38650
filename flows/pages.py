"""What the Prefect page shows, made by pure functions: Markdown, table rows, the words beside a bar.

Pictures travel inside the Markdown as `data:` addresses, which both versions of Prefect's page show: an image artifact
would need a public address, and these pictures must not have one.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from facemill.coverage import PITCH_EDGES, YAW_EDGES, Coverage
from facemill.reasons import Reason
from tasks.versions.freshness import Freshness
from tasks.versions.store import Version
from tasks.work.terminal import duration

MAX_PICTURE_BYTES = 400_000
"""Artifacts lie in Prefect's database: a picture above this is left out."""


def counts_table(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A stage's rows by state and reason, with what each reason means.

    Args:
        metrics: a stage's data/metrics/STAGE.json.
    """
    known = {str(reason): reason for reason in Reason}
    rows = [{"state": "ok", "reason": "", "rows": metrics.get("ok", 0), "meaning": ""}]
    for name, count in sorted(metrics.get("reasons", {}).items(), key=lambda item: (-item[1], item[0])):
        reason = known.get(name)
        state, meaning = (str(reason.state), reason.sentence) if reason else ("?", "")
        rows.append({"state": state, "reason": name, "rows": count, "meaning": meaning})
    return [*rows, {"state": "all", "reason": "", "rows": metrics.get("in", 0), "meaning": _pace(metrics)}]


def reasons_table(reasons: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """What makes each stage run again, as rows of an artifact: one for each reason, one for a stage without any.

    Args:
        reasons: of each stage, in words (tasks.commands.why).
    """
    return [
        {"stage": stage, "reason": reason} for stage, found in reasons.items() for reason in found or ["up to date"]
    ]


def progress_words(values: Mapping[str, Any]) -> tuple[float, str]:
    """Percent (0…100) and the words beside the bar, from a stage's progress file (tasks.work.progress)."""
    done, total = int(values.get("done", 0)), int(values.get("total", 0))
    words = f"{done} of {total} {values.get('unit', '')}".strip()
    if values.get("rate"):
        words += f", {values['rate']:.3g}/s"
    if values.get("seconds_left"):
        words += f", {duration(values['seconds_left'])} left"
    if values.get("note"):
        words += f" ({values['note']})"
    return (100.0 * done / total if total else 0.0), words


def picture_page(title: str, pictures: Sequence[tuple[str, bytes]]) -> str:
    """Markdown that shows JPEG pictures, each below its caption."""
    parts = [f"# {title}"]
    for caption, jpeg in pictures:
        parts.append(f"**{_plain(caption)}**")
        if len(jpeg) > MAX_PICTURE_BYTES:
            parts.append(f"(left out: {len(jpeg):,} bytes)")
        else:
            parts.append(f"![{_plain(caption)}](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})")
    return "\n\n".join(parts) + "\n"


def version_page(version: Version) -> str:
    """Markdown about a dataset version: how to look at it and bring it back."""
    found = "new" if version.is_new else "nothing has changed since"
    lines = [
        f"# Dataset {version.name} ({found})",
        "| stage | in | ok | rejected | failed |",
        "|---|--:|--:|--:|--:|",
        *(
            f"| {stage} | " + " | ".join(str(counts.get(key, "")) for key in ("in", "ok", "rejected", "failed")) + " |"
            for stage, counts in version.totals.items()
        ),
        "",
        f"Tag `{version.tag}`, data `{version.dataset}`. `facemill version restore {version.name}` brings it back, "
        f"`facemill version compare OLDER {version.name}` shows what it changed.",
    ]
    return "\n".join(lines) + "\n"


def coverage_page(coverage: Mapping[str, Coverage], lacks: Sequence[str]) -> str:
    """Markdown about what the faces of each person show: a map of poses, a score with its parts, what is missing."""
    lines = ["# What the faces show", *(f"- {_plain(sentence)}" for sentence in lacks)]
    for identity, own in coverage.items():
        parts = ", ".join(f"{kind} {part:.0f}" for kind, part in own.parts.items())
        lines += [
            "",
            f"## {_plain(identity)}: readiness {own.readiness:.0f} of 100",
            f"{_plain(own.sentence(identity))} The parts of the score: {parts}.",
            "",
            "| pitch \\ yaw | " + " | ".join(_spans(YAW_EDGES)) + " |",
            "|---|" + "--:|" * (len(YAW_EDGES) + 1),
            *(
                f"| {span} | " + " | ".join(f"{count:,}" if count else "·" for count in counts) + " |"
                for span, counts in zip(reversed(_spans(PITCH_EDGES)), own.pose[::-1].tolist(), strict=True)
            ),
        ]
    return "\n".join(lines) + "\n"


def _spans(edges: Sequence[float]) -> list[str]:
    """Between which borders bins lie, in degrees: below the first, between two, above the last."""
    inner = [f"{low:g} to {high:g}°" for low, high in pairwise(edges)]
    return [f"under {edges[0]:g}°", *inner, f"over {edges[-1]:g}°"]


def freshness_page(found: Freshness) -> str:
    """Markdown about how old the dataset is; a heading that is seen at a glance if it is too old."""
    unknown, old, fresh = "⚠ Nobody knows how old the dataset is", "⚠ The dataset is too old", "The dataset is fresh"
    return f"# {unknown if found.age_h is None else fresh if found.is_fresh else old}\n\n{found}\n"


def video_rows(outcomes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the conversions table, by video; what went wrong stands on top."""
    rows = [video_row(video, outcome) for video, outcome in outcomes.items()]
    return sorted(rows, key=lambda row: (row["state"] == "ok", row["video"]))


def video_row(video: str, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the conversions table from a video's outcome (facemill.swap.job), or from the row of one without."""
    receipt = outcome.get("receipt") or {}
    return {
        "video": video,
        "state": outcome["status"],
        "reason": outcome.get("error") or "",
        "detail": outcome.get("detail") or "",
        "frames": receipt.get("frames_out", ""),
        "swapped": receipt.get("frames_swapped", ""),
        "untouched": receipt.get("frames_passed", ""),
        "failed": receipt.get("frames_failed", ""),
        "seconds": round(receipt["seconds"], 1) if "seconds" in receipt else "",
    }


def _pace(metrics: Mapping[str, Any]) -> str:
    if not metrics.get("seconds"):
        return ""
    pace = f", {metrics['per_worker_second']:.3g}/s a worker" if metrics.get("per_worker_second") else ""
    return f"{duration(metrics['seconds'])}{pace}"


def _plain(text: str) -> str:
    """Without what Markdown would take for its own."""
    return re.sub(r"[\\`*_\[\]<>|#!]", r"\\\g<0>", text.replace("\n", " ").replace("\r", " "))
