"""What all sources and references of a project will give, before anything is fetched."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from facemill.errors import FacemillError
from facemill.foreign_files import valid_name
from facemill.media_files import Tell, tell_nobody
from facemill.rights import rights_text
from facemill.sources import Surroundings, Unit, reference_source
from tasks.params import Params, ReferencePicture
from tasks.paths import place
from tasks.work.forgotten import FORGOTTEN_FILE, read_forgotten
from tasks.work.wrong_values import WrongValues


def plan_units(
    params: Params, root: Path, collected: Mapping[str, Sequence[str]] | None = None, tell: Tell = tell_nobody
) -> list[Unit]:
    """Everything that all sources and references will give, in the order of params.yaml, but what is to be forgotten.

    Args:
        collected: for each identity, addresses that need not be asked again.
        tell: gets what a person should know, such as what is skipped.

    Raises:
        FacemillError: a folder that is missing or empty, an identity that is to be forgotten, and whatever else a
            source finds wrong beforehand; a line for each wrong source, with its key.
    """
    units: list[Unit] = []
    wrong, forgotten = WrongValues(), read_forgotten(root)
    for identity, person in params.identities.items():
        with wrong.under(f"identities.{identity}"):
            if forgotten.covers(identity=identity):
                raise FacemillError(
                    f"this identity was asked to be forgotten ({FORGOTTEN_FILE}): take it out of params.yaml, here and "
                    "in convert.becomes"
                )
        around = Surroundings(
            place=partial(place, root=root),
            seed=params.seed,
            max_file_bytes=params.collect.max_file_bytes,
            collected=tuple((collected or {}).get(identity, ())),
            tell=tell,
        )
        for n, reference in enumerate(person.references):
            with wrong.under(f"identities.{identity}.references.{n}"):
                planned = _reference_units(reference, identity, around)
                units += [replace(unit, rights=rights_text(None, person.rights)) for unit in planned]
        for n, source in enumerate(person.sources):
            with wrong.under(f"identities.{identity}.sources.{n}"):
                planned = source.plan(identity, "sample", around)
                units += [replace(unit, rights=rights_text(source.rights, person.rights)) for unit in planned]
    wrong.complain()
    return [unit for unit in _told_apart(units) if not forgotten.covers(addresses=[unit.key])]


def _reference_units(reference: str | ReferencePicture, identity: str, around: Surroundings) -> list[Unit]:
    if isinstance(reference, str):
        return reference_source(reference).plan(identity, "reference", around)
    units = reference_source(reference.path).plan(identity, "reference", around)
    if len(units) != 1 or not units[0].single:
        raise FacemillError(f"`face` names a face of one picture, and {reference.path} is more than one")
    return [replace(units[0], face=reference.stated)]


def _told_apart(units: Sequence[Unit]) -> list[Unit]:
    """The units with names that mean one file each: `p1/photos/a.jpg` where two sources have a `photos/a.jpg`."""
    files: dict[tuple[str, str], set[Path]] = {}
    for unit in units:
        if unit.path is not None:
            files.setdefault((unit.source, unit.key), set()).add(unit.path)
    return [
        replace(unit, key=_longer_name(unit.key, unit.path, others))
        if unit.path is not None and len(others := files[(unit.source, unit.key)]) > 1
        else unit
        for unit in units
    ]


def _longer_name(key: str, path: Path, others: Collection[Path]) -> str:
    """A name with as many of the folders above as tell a file from the others of that name."""
    known = PurePosixPath(key).parts
    for count in range(len(known) + 1, len(path.parts) + 1):
        if len({each.parts[-count:] for each in others}) == len(others):
            above = "/".join(path.parts[-count : len(path.parts) - len(known)]).strip("/")
            return valid_name(f"{above}/{key}")
    return valid_name(f"{path.as_posix()}/{key}")
