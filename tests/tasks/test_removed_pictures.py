"""A picture that is taken out of its source leaves every table of the next version, its bytes and its traces too; and
whatever came, went, was replaced or forgotten, the tables are those of a project that begins today.
"""

from __future__ import annotations

import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facemill import tables
from facemill.pictures import sha256_hex
from facemill.schema import DATASET, FACES, RAW, UNIQUE
from facemill.sources.sample.pictures import picture_bytes, picture_set
from tasks import collect, curate, dedup, extract, inventory
from tasks.params import Params, parse_params
from tasks.work.forgotten import What, add_forgotten

SEED = 7
TABLES = {"raw": RAW, "unique": UNIQUE, "faces": FACES, "dataset": DATASET}
STAGES = (inventory, collect, dedup, extract, curate)


def params() -> Params:
    rights = {"basis": "public_domain", "evidence": "the portraits ship with wheels"}
    people = {
        "anna": {"rights": rights, "references": ["sample:hopper"], "sources": [{"kind": "folder", "path": "anna"}]},
        "bea": {"rights": rights, "references": ["sample:collins"], "sources": [{"kind": "folder", "path": "bea"}]},
    }
    return parse_params(
        {
            "seed": SEED,
            "identities": people,
            "archive": {"kind": "folder", "path": "archive"},
            "collect": {"rows_per_shard": 4, "failure_limit": 1.0},
            "extract": {"crop_px": 128, "failure_limit": 1.0},
            "convert": {"becomes": {"anna": "bea"}},
            "cluster": {"kind": "inline"},
        }
    )


def refresh(root: Path) -> None:
    for stage in STAGES:
        stage.run(params(), root)


def rows(root: Path, name: str) -> list[dict[str, Any]]:
    return tables.read_table(root / "data" / name, TABLES[name]).to_pylist()


def in_order(root: Path, name: str) -> list[dict[str, Any]]:
    return sorted(rows(root, name), key=lambda row: (row.get("face_id") or "", row["identity"], row["url"]))


def holding(root: Path, content: bytes) -> set[str]:
    """The tables in whose files these bytes stand; pictures lie in them as they are."""
    return {path.parent.name for path in (root / "data").rglob("*.parquet") if content in path.read_bytes()}


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which all refresh stages have run over two folders of sample pictures, duplicates among them."""
    root = tmp_path_factory.mktemp("removed") / "project"
    (root / "archive").mkdir(parents=True)
    (root / "archive" / "not a video.mp4").write_text("text")
    for folder, person, count in (("anna", "hopper", 12), ("bea", "collins", 4)):
        (root / folder).mkdir()
        for number, planted in enumerate(picture_set(person, count, SEED)):
            (root / folder / f"{number:02d}.jpg").write_bytes(picture_bytes(planted, SEED))
    refresh(root)
    return root


@pytest.mark.parametrize("which", ["a picture that stands for its duplicates", "an accepted one", "several at once"])
def test_a_removed_picture_leaves_all_tables_with_its_bytes_its_crop_and_its_traces(
    refreshed: Path, tmp_path: Path, which: str
) -> None:
    root = Path(shutil.copytree(refreshed, tmp_path / "project", symlinks=True))
    standing = {row["duplicate_of"] for row in rows(root, "unique") if row["duplicate_of"]}
    accepted = [row for row in rows(root, "dataset") if row["status"] == "ok" and row["role"] == "sample"]
    files = Counter(row["sample_id"] for row in rows(root, "raw"))
    accepted = [
        row for row in accepted if files[row["sample_id"]] == 1
    ]  # of others the same bytes stay in another file
    own = [row for row in accepted if row["identity"] == "anna"]
    chosen = {
        "a picture that stands for its duplicates": [row for row in own if row["sample_id"] in standing][:1],
        "an accepted one": [row for row in own if row["sample_id"] not in standing][:1],
        "several at once": [*own[:2], *[row for row in accepted if row["identity"] == "bea"][:1]],
    }[which]
    assert chosen
    for row in chosen:
        content = (root / row["url"]).read_bytes()
        assert sha256_hex(content) == row["sample_id"]
        assert holding(root, content) == {"raw", "unique"}
        assert holding(root, row["crop"]["bytes"]) == {"faces", "dataset"}
    gone = {row["sample_id"]: (row["url"], (root / row["url"]).read_bytes(), row["crop"]["bytes"]) for row in chosen}
    for url, *_ in gone.values():
        (root / url).unlink()

    refresh(root)
    for name in TABLES:
        for row in rows(root, name):
            traces = {str(value) for value in row.values()}
            assert not {*gone, *(url for url, *_ in gone.values())} & traces, (name, row["url"])
            assert not any(url in (row["detail"] or "") for url, *_ in gone.values()), (name, row["detail"])
    for _, content, crop in gone.values():
        assert holding(root, content) == holding(root, crop) == set()

    # And what is left is what a project would have that never saw them.
    fresh = tmp_path / "fresh"
    for folder in ("anna", "bea", "archive"):
        shutil.copytree(root / folder, fresh / folder)
    refresh(fresh)
    for name in TABLES:
        assert in_order(root, name) == in_order(fresh, name), name


PICTURES = 9
nights = st.lists(st.lists(st.integers(-1, PICTURES - 1), min_size=7, max_size=7), min_size=2, max_size=3)


@cache
def pool() -> list[bytes]:
    return [picture_bytes(planted, SEED) for planted in picture_set("hopper", PICTURES, SEED)]


def lay_out(root: Path, night: list[int]) -> None:
    """The sources as they are one night: which picture lies under each name, -1 for none."""
    for folder in ("anna", "bea", "archive"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "archive" / "not a video.mp4").write_text("text")
    (root / "bea" / "0.jpg").write_bytes(pool()[0])
    for name, which in enumerate([0, *night]):  # a folder with nothing in it is an error
        path = root / "anna" / f"{name}.jpg"
        path.unlink(missing_ok=True)
        if which >= 0:
            path.write_bytes(pool()[which])


@settings(max_examples=3, deadline=None)
@given(nights, st.lists(st.tuples(st.integers(0, 2), st.integers(1, PICTURES - 1)), max_size=2))
def test_whatever_came_went_was_replaced_or_forgotten_the_tables_are_those_of_a_rebuild(
    tmp_path_factory: pytest.TempPathFactory, nights: list[list[int]], forgotten: list[tuple[int, int]]
) -> None:
    grown, fresh = tmp_path_factory.mktemp("grown"), tmp_path_factory.mktemp("fresh")
    for number, night in enumerate(nights):
        lay_out(grown, night)
        for when, which in forgotten:
            if when == number:
                add_forgotten(grown, [(What.PICTURE, sha256_hex(pool()[which]))])
        refresh(grown)
    lay_out(fresh, nights[-1])
    if (grown / "forgotten.yaml").exists():
        shutil.copy(grown / "forgotten.yaml", fresh)
    refresh(fresh)
    for name in TABLES:
        assert in_order(grown, name) == in_order(fresh, name), name
    for when, which in forgotten:
        if when < len(nights):
            assert holding(grown, pool()[which]) == set()
