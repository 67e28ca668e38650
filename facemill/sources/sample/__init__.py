"""Source `sample`: two public-domain portraits that wheels bring along, animated into picture sets and videos.

    rgb, landmarks = render("hopper", Pose(mouth_open=0.4))         # one frame and its true landmarks
    for unit in plan("sample", "anna", person="hopper", pictures=150, seed=0, root=root): ...
    truth = picture_set("hopper", 150, seed=0)                      # what was planted where

A set holds good pictures and, in known places, exact duplicates, near duplicates, strangers, pictures without a face
and broken files, so that every later stage can be measured against the truth.

`portraits.py` holds the portraits; `animate.py` moves them by `warp.py` and adds what `mouth.py` and `looks.py` draw;
`pictures.py` plans and draws sets, `videos.py` writes the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from facemill.errors import FacemillError
from facemill.sources import Item, Unit, register
from facemill.sources.sample.animate import render
from facemill.sources.sample.pictures import Planted, PlantedKind, picture_bytes, picture_set, reference_bytes
from facemill.sources.sample.portraits import load_portrait, people
from facemill.sources.sample.pose import Pose

__all__ = ["Planted", "PlantedKind", "Pose", "load_portrait", "people", "picture_bytes", "picture_set", "render"]


@register("sample")
class SampleSource:
    """Options: `person`, `pictures`, `seed`. As role `reference` it gives the portrait itself."""

    def plan(
        self, identity: str, role: str, *, root: Path, person: str, pictures: int = 150, seed: int = 0
    ) -> list[Unit]:
        """One unit for each picture."""
        if person not in people():
            raise FacemillError(f"no sample person {person!r} (identity {identity}); there are {', '.join(people())}")
        if role == "reference":
            return [_unit(identity, role, f"sample:{person}/reference.png", person, 0, None)]
        return [
            _unit(identity, role, f"sample:{person}/{planted.name}", person, seed, (planted.index, pictures))
            for planted in picture_set(person, pictures, seed)
        ]

    def fetch(self, unit: Unit) -> Iterator[Item]:
        """Draws the picture."""
        person = unit.options["person"]
        if unit.role == "reference":
            shown, data = person, reference_bytes(person)
        else:
            planted = picture_set(person, unit.options["pictures"], unit.options["seed"])[unit.options["index"]]
            shown, data = planted.person, picture_bytes(planted, unit.options["seed"])
        portrait = load_portrait(shown)
        yield Item(
            identity=unit.identity,
            role=unit.role,
            source="sample",
            url=unit.key,
            page=portrait.page,
            licence=portrait.licence,
            author=portrait.author,
            data=data,
        )


def _unit(identity: str, role: str, key: str, person: str, seed: int, place: tuple[int, int] | None) -> Unit:
    options: dict[str, object] = {"person": person, "seed": seed}
    if place is not None:
        options |= {"index": place[0], "pictures": place[1]}
    return Unit(identity=identity, role=role, source="sample", key=key, options=options)
