"""The credits of the pictures that a dataset is made of, as their licences ask for them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from facemill import tables
from facemill.files import write_bytes
from facemill.picture_licences import licence_of, work_of
from facemill.reasons import State
from facemill.schema import DATASET
from tasks.catalogue import Data


@dataclass(frozen=True, order=True)
class Credit:
    """One work that pictures of the dataset are taken from."""

    author: str
    licence: str
    address: str
    work: str  # the page that showed it, else where it came from
    asks_credit: bool

    @property
    def text(self) -> str:
        """The attribution as Markdown, on one line."""
        work = f"<{self.work}>" if re.match(r"https?://\S+$", self.work) else _plain(self.work)
        licence = _plain(self.licence) or "no licence stated"
        licence = f"[{licence}]({self.address})" if self.address else licence
        return f"{work} by {_plain(self.author) or 'an author who is not stated'}, {licence}"


def write_credits(root: Path, output: Path) -> list[str]:
    """Writes the credits of all accepted faces to a Markdown file, those first who have to be named.

    Returns:
        What a person should know, a line each: how many works there are, and what is missing to name somebody.

    Raises:
        FacemillError: no dataset, or one of another version.
    """
    credits = Counter(_credits(root))
    named = sorted(credit for credit in credits if credit.licence and credit.asks_credit)
    free = sorted(credit for credit in credits if credit.licence and not credit.asks_credit)
    unknown = sorted(credit for credit in credits if not credit.licence)
    parts = ["# Credits", "The pictures that this dataset, and every model trained on it, is made of."]
    for heading, some in (
        ("Whose authors have to be named", named),
        ("Free of conditions", free),
        ("Without a stated licence", unknown),
    ):
        if some:
            lines = [f"- {one.text} ({credits[one]} {'face' if credits[one] == 1 else 'faces'})" for one in some]
            parts += [f"## {heading}", "\n".join(lines)]
    write_bytes(output, ("\n\n".join(parts) + "\n").encode())
    told = [f"{output}: {len(named)} works whose authors have to be named, {len(free)} free, {len(unknown)} unknown."]
    if nobody := [credit for credit in named if not credit.author]:
        told.append(
            f"{len(nobody)} have to be named and state no author, such as {nobody[0].work}: add it to the source."
        )
    return told


def _credits(root: Path) -> Iterator[Credit]:
    """Whose picture each accepted face comes from, with a row group of the dataset in memory at a time."""
    columns = ["url", "page", "licence", "author", "status"]
    for row in tables.iterate_rows(root / Data.DATASET, DATASET, columns):
        if row["status"] == State.OK:
            licence = licence_of(row["licence"])
            work = work_of(row["page"], row["url"])
            yield Credit(row["author"] or "", licence.name, licence.address, work, licence.asks_credit)


def _plain(text: str) -> str:
    """On one line, and nothing that Markdown or HTML would read as more than text: sources bring both."""
    bare = re.sub(r"<[^>]*>", "", text)
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(bare.split()))
