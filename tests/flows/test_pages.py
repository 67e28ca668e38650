"""What the Prefect page shows, without Prefect."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from facemill.coverage import KINDS, Coverage
from flows import pages
from tasks.versions.store import Version


def test_counts_stand_by_falling_number_with_their_meaning() -> None:
    metrics = {"in": 9, "ok": 4, "reasons": {"blurred": 2, "no_face": 3}, "seconds": 75.0, "per_worker_second": 0.12}
    table = pages.counts_table(metrics)
    assert [(row["state"], row["reason"], row["rows"]) for row in table] == [
        ("ok", "", 4),
        ("rejected", "no_face", 3),
        ("rejected", "blurred", 2),
        ("all", "", 9),
    ]
    assert table[1]["meaning"] == "the detector found no face"
    assert table[-1]["meaning"] == "1 min 15 s, 0.12/s a worker"


def test_each_reason_has_a_row_and_so_has_a_stage_without_any() -> None:
    table = pages.reasons_table({"collect": ["1 picture added (a.jpg)", "opencv 5.0.1 → 5.1.0"], "dedup": []})
    assert [(row["stage"], row["reason"]) for row in table] == [
        ("collect", "1 picture added (a.jpg)"),
        ("collect", "opencv 5.0.1 → 5.1.0"),
        ("dedup", "up to date"),
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (0.0, "0 of 0")),
        ({"done": 3, "total": 4, "unit": "shards"}, (75.0, "3 of 4 shards")),
        (
            {"done": 1, "total": 2, "unit": "steps", "rate": 2.5, "seconds_left": 4000, "note": "loss 0.1"},
            (50.0, "1 of 2 steps, 2.5/s, 1 h 6 min left (loss 0.1)"),
        ),
    ],
)
def test_progress_says_how_much_how_fast_and_how_long(values: dict[str, object], expected: tuple[float, str]) -> None:
    assert pages.progress_words(values) == expected


def test_a_name_cannot_break_out_of_its_caption() -> None:
    page = pages.picture_page("Faces", [("a](http://x) <b>|\n# c", b"\xff\xd8")])
    assert "**a\\](http://x) \\<b\\>\\| \\# c**" in page
    assert "\n# c" not in page


def test_a_picture_too_large_for_the_database_is_left_out() -> None:
    page = pages.picture_page("Faces", [("big", b"x" * (pages.MAX_PICTURE_BYTES + 1))])
    assert "left out: 400,001 bytes" in page
    assert len(page) < 200


def test_a_version_says_how_to_bring_it_back() -> None:
    version = Version("v2", "abc.dir", "f" * 40, datetime(2026, 1, 1, tzinfo=UTC), {"curate": {"in": 3, "ok": 2}}, True)
    page = pages.version_page(version)
    assert page.startswith("# Dataset v2 (new)\n")
    assert "| curate | 3 | 2 |  |  |" in page
    assert "`facemill version restore v2`" in page


def test_a_failed_video_shows_its_reason_and_no_frames() -> None:
    outcome = {"status": "failed", "error": "not_a_video", "detail": "no stream", "receipt": None}
    row = pages.video_row("a.mp4", outcome)
    assert (row["state"], row["reason"], row["frames"], row["seconds"]) == ("failed", "not_a_video", "", "")


def test_videos_that_went_wrong_stand_above_the_others_also_those_that_never_had_a_job() -> None:
    lost = {"video": "c.mp4", "status": "failed", "error": "empty_file", "detail": None}
    rows = pages.video_rows({"b.mp4": {"status": "ok"}, "a.mp4": {"status": "ok"}, "c.mp4": lost})
    assert [(row["video"], row["reason"]) for row in rows] == [("c.mp4", "empty_file"), ("a.mp4", ""), ("b.mp4", "")]


def test_coverage_is_a_map_of_poses_with_score_and_gaps() -> None:
    pose = np.zeros((5, 7), np.int64)
    pose[2, 3], pose[4, 0] = 1200, 1  # frontal; looking up, turned to the left
    counts = {kind: tuple([1201] + [0] * (len(bins) - 1)) for kind, bins in KINDS.items()}
    page = pages.coverage_page({"anna_b": Coverage(counts, pose)}, ["bert becomes anna, who is hardly ever smiling"])
    assert "- bert becomes anna, who is hardly ever smiling" in page
    assert "## anna\\_b: readiness" in page
    assert "| over 30° | 1 | · | · | · | · | · | · |" in page
    assert "| -15 to 15° | · | · | · | 1,200 | · | · | · |" in page
    assert page.index("over 30°") < page.index("| under -30°")  # looking up stands above
    assert "1,201 faces" in page
