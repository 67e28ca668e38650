"""Whether the project is in order: every value of params.yaml, that what it names exists, room, and packages."""

from __future__ import annotations

from pathlib import Path

from facemill.errors import FacemillError
from tasks.check import check_project
from tasks.licences import check_made
from tasks.params import Params, check_groups, load_params
from tasks.stages import PARAM_GROUPS
from tasks.versions.freshness import freshness
from tasks.versions.leftovers import mend
from tasks.versions.remote import describe_remote
from tasks.work.installed import describe_installed
from tasks.work.room import check_room


def check(root: Path) -> list[str]:
    """Asks for everything that a run would stumble over later, room included, and mends what a killed DVC has left.

    Args:
        root: the project's folder.

    Returns:
        What the parameters ask for, how much room there is, which packages are not what constraints.txt names, and
        how old the dataset is, a line each.

    Raises:
        FacemillError: no room, wrong values, unknown names, sources or files that are not there.
    """
    rooms = check_room(root)
    mend(root)
    params = load_params(root)
    check_groups(root, PARAM_GROUPS)
    check_project(params, root)
    check_made(params, root)
    lines = [
        f"{name}: {'; '.join([identity.rights.words, *identity.exceptions])}; "
        f"sources: {', '.join(source.kind for source in identity.sources)}"
        for name, identity in params.identities.items()
    ]
    becomes = ", ".join(f"{replaced} becomes {new}" for replaced, new in params.convert.becomes.items())
    return [
        *lines,
        f"archive: {params.archive.kind}; {becomes}",
        *describe_installed(root, params),
        _age(root, params),
        f"remote: {describe_remote(root)}",
        *(f"room: {room.free_bytes / 1e9:.1f} GB on the disk of {room.folder}" for room in rooms),
        "params.yaml is in order.",
    ]


def _age(root: Path, params: Params) -> str:
    try:
        return f"dataset: {freshness(root, params)}"
    except FacemillError as error:  # of a project that is no repository yet
        return f"dataset: its age cannot be told: {error}"
