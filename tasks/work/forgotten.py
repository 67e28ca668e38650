"""What was asked to be forgotten: forgotten.yaml, which keeps it from being collected again.

    - {what: picture, sha256: 3f1a…, date: '2026-11-26'}
    - {what: address, sha256: 90c2…, date: '2026-11-26'}

It holds hashes alone, of a picture's bytes or of the words (an address, an author, an identity's name), so that the
record itself tells nobody what it was about. It belongs into git beside params.yaml; an entry that is taken out lets
its picture be collected again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import yaml

from facemill.errors import FacemillError
from facemill.files import write_bytes
from tasks.work.results import content_key

FORGOTTEN_FILE = "forgotten.yaml"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FRAME = "#pts="


class What(StrEnum):
    """What an entry's hash is of."""

    PICTURE = "picture"
    """The bytes of a picture: its sample_id."""
    ADDRESS = "address"
    """An address, or the page that shows a picture; that of a video stands for all its frames."""
    AUTHOR = "author"
    IDENTITY = "identity"


@dataclass(frozen=True)
class Forgotten:
    """Hashes of everything that is not to be collected, by what they are of. Picklable, for workers."""

    hashes: dict[What, frozenset[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.hashes.values())

    @property
    def key(self) -> str:
        """Hash of all of them; empty where there are none."""
        return content_key({what: sorted(self.hashes.get(what, ())) for what in What}) if self else ""

    @property
    def authors_key(self) -> str:
        """Hash of the authors alone; empty where there are none."""
        return content_key(sorted(authors)) if (authors := self.hashes.get(What.AUTHOR)) else ""

    def covers(
        self,
        *,
        identity: str | None = None,
        sample_id: str | None = None,
        addresses: Iterable[str | None] = (),
        author: str | None = None,
    ) -> bool:
        """Whether any of what is known of a picture was asked to be forgotten."""
        if not self:
            return False
        stated: list[tuple[What, str]] = [(What.ADDRESS, one) for each in addresses if each for one in _names(each)]
        stated += [(what, word) for what, word in ((What.AUTHOR, author), (What.IDENTITY, identity)) if word]
        return (sample_id or "") in self.hashes.get(What.PICTURE, ()) or any(
            hash_of(what, word) in self.hashes.get(what, ()) for what, word in stated
        )


def hash_of(what: What, word: str) -> str:
    """What stands in the record for a word; for a picture its SHA-256 itself. Spaces and an author's case are nothing.

    Raises:
        FacemillError: a picture's is no SHA-256.
    """
    plain = " ".join(word.split())
    if what is What.PICTURE:
        if not _SHA256.fullmatch(plain.lower()):
            raise FacemillError(
                f"{word!r} is no SHA-256 of a picture: 64 digits, as `sample_id` in the tables has them"
            )
        return plain.lower()
    return hashlib.sha256((plain.casefold() if what is What.AUTHOR else plain).encode()).hexdigest()


def read_forgotten(root: Path) -> Forgotten:
    """The record of a project; nothing where there is none.

    Raises:
        FacemillError: it cannot be read: what should be kept out would come in.
    """
    path = root / FORGOTTEN_FILE
    hashes: dict[What, set[str]] = {}
    try:
        for what, sha256, _ in _entries(path):
            hashes.setdefault(what, set()).add(sha256)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise FacemillError(
            f"{path} is not a list of what, sha256, date ({error}): mend it or bring it back with git; nothing is "
            "collected until it can be read"
        ) from error
    return Forgotten({what: frozenset(found) for what, found in hashes.items()})


def add_forgotten(root: Path, words: Iterable[tuple[What, str]]) -> int:
    """Adds to the record what is not in it, in one step; gives how many entries are new. Raises as `read_forgotten`."""
    known = read_forgotten(root).hashes
    path, today = root / FORGOTTEN_FILE, datetime.now(UTC).date().isoformat()
    fresh = {(what, hash_of(what, word)) for what, word in words}
    fresh = {(what, sha256) for what, sha256 in fresh if sha256 not in known.get(what, ())}
    if fresh:
        entries = [*_entries(path), *((what, sha256, today) for what, sha256 in sorted(fresh))]
        plain = [{"what": what.value, "sha256": sha256, "date": date} for what, sha256, date in entries]
        write_bytes(path, yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=200).encode())
    return len(fresh)


def _entries(path: Path) -> list[tuple[What, str, str]]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    entries = []
    for entry in found or []:
        if not _SHA256.fullmatch(entry["sha256"]):
            raise ValueError(f"{entry['sha256']!r} is no SHA-256")
        entries.append((What(entry["what"]), entry["sha256"], str(entry.get("date", ""))))
    return entries


def _names(address: str) -> set[str]:
    """An address, and of a frame also the video's."""
    return {address, address.partition(_FRAME)[0]}
