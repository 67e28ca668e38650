"""Source `sample`: two public-domain portraits that wheels bring along, animated into picture sets and videos.

    rgb, landmarks = render("hopper", Pose(mouth_open=0.4))         # one frame and its true landmarks
    for unit in SampleSource(person="hopper", pictures=150).plan("anna", "sample", Surroundings(seed=0)): ...
    truth = picture_set("hopper", 150, seed=0)                      # what was planted where

A set holds good pictures and, in known places, exact duplicates, near duplicates, strangers, pictures without a face
and broken files, so that every later stage can be measured against the truth.

`portraits.py` holds the portraits; `animate.py` moves them by `warp.py` and adds what `mouth.py` and `looks.py` draw;
`pictures.py` plans and draws sets, `videos.py` writes the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from facemill.errors import FacemillError
from facemill.sources import Item, References, Source, Surroundings, Unit, register
from facemill.sources.sample.animate import render
from facemill.sources.sample.pictures import Planted, PlantedKind, picture_bytes, picture_set, reference_bytes
from facemill.sources.sample.portraits import LICENCE, load_portrait, people, portrait_file
from facemill.sources.sample.pose import Pose

__all__ = [
    "Planted",
    "PlantedKind",
    "Pose",
    "SampleSource",
    "load_portrait",
    "people",
    "picture_bytes",
    "picture_set",
    "render",
]

PREFIX = "sample:"
"""How the references and the addresses of sample pictures begin."""


@register
@dataclass(frozen=True, kw_only=True)
class SampleSource(Source):
    """Pictures of a sample person; as a reference the portrait itself."""

    references: ClassVar[References] = References(prefix=PREFIX)
    kind: Literal["sample"] = "sample"
    person: str
    """Which one, see `people`."""
    pictures: Annotated[int, Field(ge=4, le=100_000)] = 150
    """How many, planted duplicates, strangers, faceless and broken ones included."""

    @property
    def stated_licence(self) -> str:
        """Licence of the two portraits that all pictures of this source are rendered from."""
        return LICENCE

    def plan(self, identity: str, role: str, around: Surroundings) -> list[Unit]:
        """One unit for each picture; the portrait that it is drawn from decides what it shows."""
        if self.person not in people():
            raise FacemillError(
                f"no sample person {self.person!r} (identity {identity}); there are {', '.join(people())}"
            )
        common: dict[str, Any] = {"identity": identity, "role": role, "source": self.kind}
        if role == "reference":
            key = f"{PREFIX}{self.person}/reference.png"
            return [Unit(key=key, path=portrait_file(self.person), options={"person": self.person}, **common)]
        files = {person: portrait_file(person) for person in people()}
        drawn = {"person": self.person, "pictures": self.pictures, "seed": around.seed}
        return [
            Unit(
                key=f"{PREFIX}{self.person}/{planted.name}",
                path=files[planted.person],
                options=drawn | {"index": planted.index},
                **common,
            )
            for planted in picture_set(self.person, self.pictures, around.seed)
        ]

    @staticmethod
    def fetch(unit: Unit) -> Iterator[Item]:
        """Draws the picture of a unit, the same bytes in each run; as a reference the portrait itself."""
        person = unit.options["person"]
        if unit.role == "reference":
            shown, data = person, reference_bytes(person)
        else:
            planted = picture_set(person, unit.options["pictures"], unit.options["seed"])[unit.options["index"]]
            shown, data = planted.person, picture_bytes(planted, unit.options["seed"])
        portrait = load_portrait(shown)
        yield unit.item(page=portrait.page, licence=portrait.licence, author=portrait.author, data=data)

    @classmethod
    def from_reference(cls, text: str) -> SampleSource:
        """The source for a reference that is written `sample:NAME`."""
        return cls(person=text.removeprefix(PREFIX))
