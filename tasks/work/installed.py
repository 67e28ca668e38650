"""Whether what is installed is what constraints.txt names: the set of packages that is tested.

A package that decides bytes (`tasks.work.deciders`) makes other results with another version, and stages stale; any
other may at most behave otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from facemill.errors import FacemillError
from tasks.params import Params
from tasks.stages import STAGES
from tasks.work.deciders import NO_DISTRIBUTIONS, current_deciders

CONSTRAINTS_FILE = "constraints.txt"
NOTES = 10
"""So many packages that decide nothing are named one by one; of the rest the number is said."""
_PROJECT = "facemill"


@dataclass(frozen=True)
class Deviation:
    """A package that is not what constraints.txt says.

    Attributes:
        name: of the package.
        wanted: what constraints.txt asks for, such as `==2.13.0`; empty where it does not name the package.
        found: the version that is installed; empty where none is.
        decides: the stages whose bytes the package decides.
    """

    name: str
    wanted: str
    found: str
    decides: tuple[str, ...] = ()

    @property
    def is_warning(self) -> bool:
        """Whether other results are to be expected, or none."""
        return bool(self.decides) or not self.found

    def __str__(self) -> str:
        remedy = f"`pip install '{self.name}{self.wanted}'`"
        if not self.found:
            return f"warning: {self.name} is not installed, and something that facemill needs asks for it: {remedy}"
        if not self.wanted:
            said = f"{self.name} {self.found} is not in {CONSTRAINTS_FILE}"
            remedy = "install what is, in an environment of its own: `python deploy/install.py`"
        else:
            said = f"{self.name} is {self.found}, {CONSTRAINTS_FILE} has {self.wanted.removeprefix('==')}"
        if self.decides:
            return f"warning: {said}; it decides the bytes of {', '.join(self.decides)}, expect other ones: {remedy}"
        return f"note: {said}; it decides no bytes: {remedy}"


def describe_installed(root: Path, params: Params) -> list[str]:
    """A line for each package that is not what constraints.txt says, those first that decide bytes; or that all are.

    Raises:
        FacemillError: constraints.txt cannot be read.
    """
    path = root / CONSTRAINTS_FILE
    if not path.exists():
        return [f"packages: there is no {CONSTRAINTS_FILE} in {root}, so that versions are not compared"]
    wanted = read_constraints(path)
    found = deviations(wanted, installed(), needed(), deciding_packages(root, params))
    if not found:
        return [f"packages: what is installed is what {CONSTRAINTS_FILE} names"]
    warnings = [str(one) for one in found if one.is_warning]
    notes = [str(one) for one in found if not one.is_warning]
    more = [f"note: so are {len(notes) - NOTES} more that decide no bytes"] if len(notes) > NOTES else []
    return [*warnings, *notes[:NOTES], *more]


def deviations(
    wanted: Mapping[str, SpecifierSet],
    present: Mapping[str, str],
    needs: Mapping[str, SpecifierSet],
    decides: Mapping[str, tuple[str, ...]],
) -> list[Deviation]:
    """What differs, by name; all names are canonical (PEP 503).

    Args:
        wanted: which versions constraints.txt allows of each package.
        present: the version of each package that is installed.
        needs: what facemill and all that it brings ask for. Of others constraints.txt only says how they would be.
        decides: the stages whose bytes a package decides.
    """
    found = []
    for name in sorted({*wanted, *needs, *decides}):
        version, allowed, stages = present.get(name, ""), wanted.get(name), decides.get(name, ())
        if not version:
            if name in needs:
                found.append(Deviation(name, str(needs[name] if allowed is None else allowed), "", stages))
        elif (allowed is None and stages) or not _allows(allowed, version):
            found.append(Deviation(name, str(allowed or ""), version, stages))
    return found


def read_constraints(path: Path) -> dict[str, SpecifierSet]:
    """What a constraints file allows in this environment: package → versions. Options of pip are passed over.

    Raises:
        FacemillError: not readable, or a line that is none of pip's.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FacemillError(f"{path} cannot be read ({error}): bring it back with `git checkout {path}`") from error
    allowed: dict[str, SpecifierSet] = {}
    for line in text.replace("\\\n", " ").splitlines():
        entry = line.partition("#")[0].partition(" --")[0].strip()
        if not entry or entry.startswith("-"):
            continue
        try:
            requirement = Requirement(entry)
        except InvalidRequirement as error:
            raise FacemillError(f"{path}: {entry!r} is no constraint: write it as `name==version`") from error
        if requirement.marker is None or requirement.marker.evaluate():
            name = canonicalize_name(requirement.name)
            allowed[name] = allowed.get(name, SpecifierSet()) & requirement.specifier
    return allowed


def installed() -> dict[str, str]:
    """The version of each package in this environment: the first on Python's path, which is the one that counts."""
    found: dict[str, str] = {}
    for each in distributions():
        if each.name:  # a folder that a broken installation has left has none
            found.setdefault(canonicalize_name(each.name), each.version)
    return found


def needed() -> dict[str, SpecifierSet]:
    """What facemill asks for, and all that this brings along: package → versions that one of them takes."""
    asked: dict[str, list[str]] = {}
    for each in distributions():
        if each.name:
            asked.setdefault(canonicalize_name(each.name), each.requires or [])
    found: dict[str, SpecifierSet] = {}
    seen, waiting = set[tuple[str, str]](), [(_PROJECT, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, asked.get(name, ())):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                other = canonicalize_name(requirement.name)
                found.setdefault(other, requirement.specifier)
                waiting += [(other, own) for own in ("", *requirement.extras)]
    return found


def deciding_packages(root: Path, params: Params) -> dict[str, tuple[str, ...]]:
    """The stages whose bytes each package decides, in their order.

    Raises:
        FacemillError: accepted.yaml cannot be used.
    """
    return _by_package({stage: current_deciders(root, stage, params).packages for stage in STAGES})


def _by_package(packages: Mapping[str, Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for stage, versions in packages.items():
        for name in _names(versions):
            found[name] = (*found.get(name, ()), stage)
    return found


def _names(versions: Mapping[str, str]) -> Iterator[str]:
    yield from (canonicalize_name(name) for name in versions if name not in NO_DISTRIBUTIONS)


def _allows(allowed: SpecifierSet | None, version: str) -> bool:
    try:
        return allowed is None or allowed.contains(version, prereleases=True)
    except InvalidVersion:  # of a package that was built by hand
        return False
