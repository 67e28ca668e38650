"""What the inventory would write if it were run now, told without running it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from facemill.files import as_json, read_json
from facemill.sources.sample.pictures import picture_bytes, picture_set
from tasks import inventory
from tasks.catalogue import Data, code_file, weights_file
from tasks.params import Params, parse_params
from tasks.work.deciders import ACCEPTED_FILE
from tasks.work.scratch import WORK_FOLDER

SEED = 7


def params(**changed: object) -> Params:
    rights = {"basis": "public_domain", "evidence": "the portraits ship with wheels"}
    people = {
        "anna": {"rights": rights, "references": ["sample:hopper"], "sources": [{"kind": "folder", "path": "anna"}]},
        "bea": {"rights": rights, "references": ["sample:collins"], "sources": [{"kind": "folder", "path": "bea"}]},
    }
    values = {"seed": SEED, "identities": people, "archive": {"kind": "sample", "seconds": 1.0}}
    return parse_params({**values, "convert": {"becomes": {"anna": "bea"}}, **changed})


def picture(number: int) -> bytes:
    return picture_bytes(picture_set("hopper", 8, SEED)[number], SEED)


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("looked") / "project"
    for number, name in enumerate(("anna/1.jpg", "anna/2.jpg", "bea/1.jpg")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(number))
    inventory.run(params(), root)
    return root


@pytest.fixture
def root(looked: Path, tmp_path: Path) -> Path:
    root = Path(shutil.copytree(looked, tmp_path / "project"))
    inventory.run(params(), root)  # the memory of files that lie elsewhere is of no use here
    return root


def found(root: Path, now: Params) -> dict[str, dict[str, object]]:
    return inventory.look(now, root).files(inventory.current_code(now, root))


def up_to_date(root: Path, now: Params | None = None) -> bool:
    now = now or params()
    return inventory.would_change_nothing(now, root, found(root, now))


def test_it_writes_what_it_would_write(root: Path) -> None:
    files = found(root, params())
    assert {Data.INVENTORY, weights_file("train"), code_file("curate")} <= set(files)
    assert {name: as_json(content) for name, content in files.items()} == {
        name: (root / name).read_bytes() for name in files
    }
    assert up_to_date(root)


def accept_something(root: Path) -> None:
    stage = {"stage": "train", "digest": inventory.current_code(params(), root)["train"].digest}
    told = {**stage, "stands_for": "1" * 64, "reason": "harmless", "date": "2026-01-01"}
    (root / ACCEPTED_FILE).write_text(yaml.safe_dump([told]))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a picture came": lambda root: (root / "anna" / "3.jpg").write_bytes(picture(3)),
    "a picture went": lambda root: (root / "anna" / "1.jpg").unlink(),
    "a picture changed": lambda root: (root / "anna" / "1.jpg").write_bytes(picture(4)),
    "somebody accepted another code": accept_something,
    "an output is gone": lambda root: (root / code_file("curate")).unlink(),
    "an output was cut off": lambda root: (root / Data.INVENTORY).write_bytes(b"{"),
    "an output says something else": lambda root: (root / weights_file("extract")).write_text('{"weights": "1"}'),
    "the parameters were not checked with this code": lambda root: (root / inventory.CHECKED_FILE).unlink(),
    "scratch is gone": lambda root: shutil.rmtree(root / WORK_FOLDER),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_it_has_to_be_run_and_then_no_more(root: Path, change: str) -> None:
    CHANGES[change](root)
    assert not up_to_date(root)
    inventory.run(params(), root)
    assert up_to_date(root)


def test_other_parameters_are_checked_before_they_count_as_known(root: Path) -> None:
    other = params(train={"steps": 7})
    assert read_json(root / Data.INVENTORY) == found(root, other)[Data.INVENTORY]
    assert not up_to_date(root, other)
    inventory.run(other, root)
    assert up_to_date(root, other)
