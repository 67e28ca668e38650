"""`facemill attribution`: everybody who has to be named is, and what is missing is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from facemill import tables
from facemill.errors import FacemillError
from facemill.schema import DATASET
from tasks.commands.attribution import write_credits


def dataset(root: Path, *rows: dict[str, Any]) -> Path:
    full = [
        {"sample_id": f"{at}", "identity": "anna", "url": f"photos/{at}.jpg", "page": "", "status": "ok"} | row
        for at, row in enumerate(rows)
    ]
    tables.write_part(root / "data/dataset/00000.parquet", tables.from_rows(full, DATASET))
    return root


def test_works_are_listed_once_by_what_their_licences_ask(tmp_path: Path) -> None:
    own = {"licence": "https://creativecommons.org/licenses/by/4.0/", "author": "Ann <b>Other</b> [x](y)"}
    root = dataset(
        tmp_path,
        {**own, "page": "https://example.org/File:A.jpg"},
        {**own, "page": "https://example.org/File:A.jpg"},
        {"licence": "CC BY-SA 3.0", "author": "Bo", "url": "clips/talk.mp4#pts=1@1/25"},
        {"licence": "CC0", "author": "Cy"},
        {"licence": ""},
        {"licence": "CC BY 2.0", "author": "Fell", "status": "rejected", "error": "blurred"},
    )
    told = write_credits(root, tmp_path / "credits.md")
    text = (tmp_path / "credits.md").read_text()
    assert text.split("\n\n")[2:] == [
        "## Whose authors have to be named",
        "- <https://example.org/File:A.jpg> by Ann Other \\[x\\](y), "
        "[CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/) (2 faces)\n"
        "- clips/talk.mp4 by Bo, [CC-BY-SA-3.0](https://creativecommons.org/licenses/by-sa/3.0/) (1 face)",
        "## Free of conditions",
        "- photos/3.jpg by Cy, [CC0-1.0](https://creativecommons.org/publicdomain/zero/1.0/) (1 face)",
        "## Without a stated licence",
        "- photos/4.jpg by an author who is not stated, no licence stated (1 face)\n",
    ]
    assert told == [f"{tmp_path / 'credits.md'}: 2 works whose authors have to be named, 1 free, 1 unknown."]


def test_who_has_to_be_named_and_states_no_author_is_told(tmp_path: Path) -> None:
    root = dataset(tmp_path, {"licence": "CC BY 4.0", "author": ""})
    assert "1 have to be named and state no author, such as photos/0.jpg" in write_credits(root, tmp_path / "c.md")[1]


def test_without_a_dataset_it_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match="dataset"):
        write_credits(tmp_path, tmp_path / "c.md")
