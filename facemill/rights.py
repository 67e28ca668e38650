"""On what ground pictures of a person may be used, as `params.yaml` states it for an identity or for one source of it.

What a source states stands above what its identity states, for the pictures that it brings. Tables carry it as text:
the basis alone where the identity states it (`consent`), the evidence with it where the source does (`licensed: stock
agency, invoice 2026-77`), so that a row whose source has been taken out of `params.yaml` still says on what ground it
was collected, and what was said of one source never covers another's pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import StringConstraints

_BEHIND_BASIS = ": "


@dataclass(frozen=True, kw_only=True)
class Rights:
    """On what ground a person's face may be used. Without it params.yaml is refused, and no stage runs."""

    basis: Literal["consent", "own", "licensed", "public_domain", "synthetic"]
    """consent: of the person. own: the face is yours. synthetic: it is nobody's."""
    evidence: Annotated[str, StringConstraints(strip_whitespace=True, min_length=8)]
    """Where that can be checked: a contract number, a licence and address, a catalogue entry."""

    @property
    def words(self) -> str:
        """For a person to read: `public domain (catalogue entry 4)`."""
        return f"{self.basis.replace('_', ' ')} ({self.evidence})"


def rights_text(of_source: Rights | None, of_identity: Rights) -> str:
    """What tables say of the pictures of a source."""
    return of_identity.basis if of_source is None else f"{of_source.basis}{_BEHIND_BASIS}{of_source.evidence}"


def source_rights(text: str | None) -> str:
    """What a table's text says that the source itself states; empty where that is left to the identity, of which
    `params.yaml` knows more: a person may have moved the face to another one."""
    return text if text and _BEHIND_BASIS in text else ""
