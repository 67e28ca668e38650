"""Names of versions that other clones have given: brought from the git remote before a new one is made.

Without that two clones would make two `v2`, and a clone without tags (a shallow one has none) would give a second name
to data that has one. The names travel as tags; branches, index and work tree stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from facemill.errors import FacemillError
from tasks.versions import git

_ASK_S, _BRING_S = 30.0, 600.0


def bring_names(root: Path, prefix: str) -> Iterator[str]:
    """Brings the version tags of the git remote that this clone lacks.

    Args:
        root: the top of the work tree.
        prefix: of the tags of versions.

    Yields:
        What a person should know, a sentence each: names that stand for two different versions, with the way out; a
        remote that could not be asked.
    """
    remote = git.remote(root)
    if remote is None:
        if git.is_shallow(root) and not git.tag_ids(root, prefix):
            yield "This clone is shallow and has no remote: versions that were named elsewhere are not known here."
        return
    try:
        there = git.remote_tag_ids(root, remote, prefix, _ASK_S)
        here = git.tag_ids(root, prefix)
        if absent := sorted(there.keys() - here.keys()):
            git.fetch_tags(root, remote, absent, _BRING_S)
    except FacemillError as error:
        known = "" if git.tag_ids(root, prefix) else " This clone knows no version at all, so even v1 may be taken."
        yield (
            f"The git remote {remote} could not be asked which versions others have named; should one have the same "
            f"name, the next call says how to rename yours.{known} ({error})"
        )
        return
    for tag in sorted(there.keys() & here.keys()):
        if there[tag] != here[tag]:
            yield _clash(tag, remote, {*here, *there}, prefix)


def _clash(tag: str, remote: str, taken: set[str], prefix: str) -> str:
    number = 2
    while (other := f"{tag}-{number}") in taken:
        number += 1
    name, new = tag.removeprefix(prefix), other.removeprefix(prefix)
    return (
        f"Version {name} here and version {name} of the git remote {remote} are not the same. To name yours {new} and "
        f"have both: `git tag {other} {tag}`, `git tag --delete {tag}`, `git fetch {remote} tag {tag}`."
    )
