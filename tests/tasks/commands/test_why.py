"""`facemill why`: each thing that can make a stage stale is said by its name."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.files import as_json
from tasks.commands.why import (
    _of_files,
    code_reasons,
    describe,
    inventory_reasons,
    params_reasons,
    weights_reasons,
    why,
)
from tasks.curating.decisions import Decision, Verdict, as_content
from tasks.stages import STAGES

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def inventory(*names: str, sha256: str = "1", archive: tuple[str, ...] = (), portraits: str = "p") -> dict[str, Any]:
    entries = [{"identity": "anna", "role": "sample", "source": "folder", "name": n, "sha256": sha256} for n in names]
    videos = [{"name": name, "sha256": sha256} for name in archive]
    return {"format": 1, "sources": entries, "archive": videos, "portraits": {"hopper": portraits}}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (inventory("a"), inventory("a"), []),
        (inventory("a"), inventory("a", "b/c.jpg"), ["1 picture or film was added (b/c.jpg)"]),
        (inventory(*"abcde"), inventory(), ["5 pictures or films were removed (a, b, c and 2 more)"]),
        (inventory("a"), inventory("a", sha256="2"), ["1 picture or film was changed (a)"]),
        (inventory(archive=("x",)), inventory(), ["1 video of the archive was removed (x)"]),
        (inventory("a"), inventory("a", portraits="q"), ["the sample portraits have changed"]),
    ],
)
def test_what_lies_there_is_compared_by_name_and_content(old: dict, new: dict, said: list[str]) -> None:
    assert inventory_reasons(old, new) == said


def test_what_a_person_said_is_counted(tmp_path: Path) -> None:
    """As DVC's cache has the old content, and the inventory the new one."""
    old, new = (as_content([Decision(digit * 64, None, Verdict.DROP) for digit in digits]) for digits in ("ab", "bcde"))
    md5 = hashlib.md5(as_json(old)).hexdigest()
    cached = tmp_path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.parent.mkdir(parents=True)
    cached.write_bytes(as_json(old))
    entry = {"deps": [{"path": "data/decisions.json", "md5": md5}]}
    assert list(_of_files(tmp_path, entry, {"data/decisions.json": new})) == ["decisions: 3 new, 1 taken back"]
    assert list(_of_files(tmp_path, entry, {"data/decisions.json": old})) == []


def test_code_and_packages_are_named() -> None:
    old = {"code": {"facemill/align.py": "1", "facemill/old.py": "1"}, "packages": {"python": "3.11", "torch": "2.13"}}
    new = {"code": {"facemill/align.py": "2"}, "packages": {"python": "3.11", "torch": "2.14", "av": "18"}}
    assert code_reasons(old, new) == [
        "av was not used and is 18 now",
        "torch was 2.13 and is 2.14 now",
        "the code in facemill/align.py, facemill/old.py has changed",
    ]
    assert code_reasons(old, old) == []


def test_a_parameter_is_said_with_both_values() -> None:
    old = {"extract": {"crop_px": 256, "detector": "hog"}, "seed": 1}
    new = {"extract": {"crop_px": 128, "detector": "hog", "upsample": 1}, "seed": 1, "report": {"title": "x"}}
    assert params_reasons(old, new) == [
        "parameter extract.crop_px was 256 and is 128 now",
        "parameter extract.upsample was not set and is 1 now",
    ]


@given(st.dictionaries(st.text(max_size=4), PLAIN, max_size=3))
def test_what_is_the_same_gives_no_reason(values: dict) -> None:
    assert params_reasons(values, dict(reversed(values.items()))) == []
    assert weights_reasons("train", values, values) == []


def test_a_project_in_which_nothing_has_run_says_so(tmp_path: Path) -> None:
    project = Path(__file__).resolve().parents[3]
    (tmp_path / "params.yaml").write_text((project / "params.yaml").read_text())
    found = why(tmp_path)
    assert set(found) == set(STAGES) - {"inventory"}
    assert describe(found)[0] == "Stage collect will run again: it has never run here."
    assert describe({"dedup": []}) == ["Stage dedup is up to date."]
