"""What is installed against constraints.txt: a line for each difference, a stronger word where bytes depend on it."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from facemill.errors import FacemillError
from tasks.commands.check import check
from tasks.params import load_params
from tasks.work.installed import NOTES, describe_installed, deviations, installed, needed, read_constraints

PROJECT = Path(__file__).resolve().parents[3]


def project(root: Path, constraints: str | None) -> Path:
    (root / ".dvc").mkdir()
    (root / "params.yaml").write_text((PROJECT / "params.yaml").read_text())
    if constraints is not None:
        (root / "constraints.txt").write_text(constraints)
    return root


def changed(**others: str) -> str:
    """The constraints of the repository with other versions of some packages."""
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    names = [line.partition("==")[0] for line in lines]
    assert set(others) <= set(names)
    return "\n".join(
        f"{name}=={others[name]}" if name in others else line for name, line in zip(names, lines, strict=True)
    )


def test_a_version_that_decides_bytes_is_a_warning_and_another_a_note(tmp_path: Path) -> None:
    root = project(tmp_path, changed(torch="1.0", rich="1.0"))
    lines = describe_installed(root, load_params(root))
    [torch] = [line for line in lines if " torch " in line]
    [rich] = [line for line in lines if " rich " in line]
    assert torch.startswith(f"warning: torch is {version('torch')}, constraints.txt has 1.0; it decides the bytes of ")
    assert "extract, train, track, convert" in torch
    assert torch.endswith("`pip install 'torch==1.0'`")
    assert rich.startswith("note: rich is ")
    assert lines.index(torch) < lines.index(rich)


def test_a_project_without_constraints_is_told_so_and_is_in_order(tmp_path: Path) -> None:
    lines = check(project(tmp_path, None))
    assert any("there is no constraints.txt" in line for line in lines)
    assert lines[-1] == "params.yaml is in order."


def test_constraints_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match=r"constraints.txt: 'torch=2' is no constraint"):
        check(project(tmp_path, "torch=2\n"))


def test_constraints_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text(
        "# tested\n--index-url https://localhost\n-r more.txt\nPy_Yaml.X==1 # why\nother==2 \\\n    --hash=sha256:00\n"
        "gone==3 ; python_version < '3'\ntwice>=1\ntwice<5\n"
    )
    assert {name: str(allowed) for name, allowed in read_constraints(path).items()} == {
        "py-yaml-x": "==1",
        "other": "==2",
        "twice": "<5,>=1",
    }


@pytest.mark.parametrize(
    ("wanted", "present", "needs", "decides", "said"),
    [
        ({"torch": "==2.13.0"}, {"torch": "2.13.0+cpu"}, ["torch"], ["torch"], ""),
        ({"torch": "==2.13.0"}, {}, ["torch"], ["torch"], "warning: torch is not installed"),
        ({"pytest": "==9"}, {}, [], [], ""),  # of an extra that was not asked for
        ({}, {"rich": "15"}, ["rich"], [], ""),  # nobody says which
        ({}, {"opencv-python": "4"}, [], ["opencv-python"], "warning: opencv-python 4 is not in constraints.txt; it"),
        ({"rich": "==15"}, {"rich": "15.1"}, [], [], "note: rich is 15.1, constraints.txt has 15"),
        ({"own": "==1"}, {"own": "as I built it"}, [], [], "note: own is as I built it"),
    ],
)
def test_what_differs_and_what_does_not(
    wanted: dict[str, str], present: dict[str, str], needs: list[str], decides: list[str], said: str
) -> None:
    allowed = {name: SpecifierSet(versions) for name, versions in wanted.items()}
    found = deviations(allowed, present, dict.fromkeys(needs, SpecifierSet()), dict.fromkeys(decides, ("train",)))
    assert len(found) == bool(said)
    assert all(str(one).startswith(said) for one in found)


def test_what_facemill_needs_is_what_it_asks_for_and_what_that_brings() -> None:
    found = needed()
    assert {"torch", "markupsafe", "aiosqlite"} <= found.keys()  # asked for; brought by Jinja; by sqlalchemy[asyncio]
    assert not {"pytest", "mypy", "onnx"} & found.keys()  # those are extras
    assert installed().keys() >= found.keys()


def test_many_notes_are_counted(tmp_path: Path) -> None:
    names = [
        "aiohttp",
        "alembic",
        "anyio",
        "attrs",
        "click",
        "dask",
        "dvc",
        "httpx",
        "prefect",
        "pytest",
        "ruff",
        "rich",
    ]
    root = project(tmp_path, changed(**dict.fromkeys(names, "0.0.1")))
    lines = describe_installed(root, load_params(root))
    assert len(lines) == NOTES + 1
    assert lines[-1] == "note: so are 2 more that decide no bytes"
