"""`make bench` runs every benchmark that needs nothing but the repository."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.frames import share_of

PROJECT = Path(__file__).resolve().parent.parent
USAGE = re.compile(r"^    python benchmarks/(?P<name>\w+)\.py(?P<rest>[^#\n]*)", re.MULTILINE)


def wants_data(usage: str) -> bool:
    """Whether a line of usage has a word that is no option, such as FOLDER."""
    return bool(re.sub(r"\[.*\]|--\S+( [a-z\d]\S*)*", "", usage).strip())


def test_make_bench_runs_all_benchmarks_that_want_no_data() -> None:
    first = {}  # the first line of usage says what has to be given
    for path in PROJECT.glob("benchmarks/*.py"):
        if found := USAGE.search(path.read_text()):
            assert found["name"] == path.stem
            first[path.stem] = found["rest"]
    assert len(first) == len(list(PROJECT.glob("benchmarks/*.py"))) - 1  # machine.py is what they share
    names = re.search(r"^BENCHMARKS := (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert names is not None
    assert names[1].split() == sorted(name for name, usage in first.items() if not wants_data(usage))


def test_where_no_frame_came_there_is_no_share_of_them() -> None:
    assert share_of(3, 4) == "3 (75%)"
    assert share_of(0, 0) == "0"
