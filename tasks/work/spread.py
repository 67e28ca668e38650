"""Which part of a growing table a row lies in: decided once, when the row comes in.

Known units stay where they are, new ones open new parts, and removed ones change only theirs. So a night that brings a
few pictures leaves all other parts, and all that was made of them, as they were. Nothing may depend on this spread:
sorted by id, a table equals that of a rebuild from nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from facemill.batches import batched_by_weight
from tasks.work.results import SHARD_BYTES, content_key

NAME_DIGITS = 16
SMALL_PARTS = 16
"""So many parts that are not half full are merged: seldom, so that a night rewrites no old part, and always before a
table of many nights is made of crumbs."""


@dataclass(frozen=True)
class PlannedPart:
    """A part's name, and the keys of the units in it, in their order."""

    name: str
    units: tuple[str, ...]


def spread(
    wanted: Sequence[str],
    present: Mapping[str, Sequence[str]],
    units_per_part: int,
    alone: Collection[str] = (),
    sizes: Mapping[str, int] | None = None,
) -> list[PlannedPart]:
    """The parts of a table.

    Args:
        wanted: keys of the units that it shall hold, in the order in which new ones are put into parts.
        present: the parts as they are, each with the keys of its units.
        units_per_part: how many units a new part takes.
        alone: keys of units that are large and get a part each.
        sizes: bytes of units, where known: a new part takes no more than `SHARD_BYTES` of them.

    Returns:
        Parts by name. What is wanted lies in exactly one of them, and nothing else does.
    """
    wanted_keys, alone_keys = set(wanted), set(alone)
    kept: dict[str, tuple[str, ...]] = {}
    placed: set[str] = set()
    for name, units in sorted(present.items()):
        staying = tuple(unit for unit in dict.fromkeys(units) if unit in wanted_keys and unit not in placed)
        placed.update(staying)
        if staying:
            kept[name] = staying
    fresh = [unit for unit in dict.fromkeys(wanted) if unit not in placed]
    small = {
        name: units
        for name, units in kept.items()
        if 2 * len(units) < units_per_part and not alone_keys.intersection(units)
    }
    if len(small) >= SMALL_PARTS:
        fresh = [*(unit for name in small for unit in small[name]), *fresh]
        kept = {name: units for name, units in kept.items() if name not in small}
    together = [unit for unit in fresh if unit not in alone_keys]
    known = sizes or {}
    groups = [
        tuple(group)
        for group in batched_by_weight(together, units_per_part, lambda unit: known.get(unit, 0), SHARD_BYTES)
    ]
    groups += [(unit,) for unit in fresh if unit in alone_keys]
    return sorted([*_parts(kept), *map(_new_part, groups)], key=lambda part: part.name)


def _parts(units_by_name: Mapping[str, Iterable[str]]) -> list[PlannedPart]:
    return [PlannedPart(name, tuple(units)) for name, units in units_by_name.items()]


def _new_part(units: tuple[str, ...]) -> PlannedPart:
    """Named by what it was opened with: the same units make the same name, in any clone."""
    return PlannedPart(content_key(units)[:NAME_DIGITS], units)
