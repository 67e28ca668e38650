"""Follows the faces of several people through one video: a finder for each, and no face that is two people.

Every finder knows the references of everybody else whom the model knows, so that a face which it looks at is taken by
whoever is nearer. It does not look in every frame, though: when two people cross, the finder of one can end up on the
face of the other. Where two finders give the same place, that face is embedded anew and stays with the nearer one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, tee
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.embeddings import DIMENSIONS
from facemill.swap.finder import Face, FaceTools, Finder, FrameSearch
from facemill.swap.settings import FinderSettings
from facemill.track.match import JUMP_IOU, overlap
from facemill.video import Frame

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Sightings:
    """A frame with the face of each wanted identity that is in it, and the first error that kept one from being seen.

    faces: by identity, in the order in which they were asked for.
    """

    frame: Frame
    faces: Mapping[str, Face]
    error: str | None = None


class PeopleFinder:
    """Follows several identities through one video. It has state, so each video wants one of its own."""

    def __init__(
        self,
        tools: FaceTools,
        wanted: Collection[str],
        references: Mapping[str, Array],
        settings: FinderSettings | None = None,
    ) -> None:
        """
        Args:
            wanted: the identities that are looked for, each of which has references.
            references: (K, 128) embeddings of everybody who is known, by identity.
        """
        self._settings = settings or FinderSettings()
        search = FrameSearch(tools, self._settings)
        self._finders = {
            identity: Finder(tools, references[identity], self._settings, _others(references, identity), search)
            for identity in wanted
        }

    def follow(self, frames: Iterable[Frame]) -> Iterator[Sightings]:
        """One answer for each frame, in order; at most `search_every` frames are held back."""
        # A finder may read a few frames before it answers for the first of them: `tee` keeps those for the others
        copies = tee(frames, len(self._finders))
        ways = [finder.follow(copy) for finder, copy in zip(self._finders.values(), copies, strict=True)]
        for sightings in zip(*ways, strict=True):
            named = zip(self._finders, sightings, strict=True)
            faces = {identity: sighting.face for identity, sighting in named if sighting.face is not None}
            error = next((sighting.error for sighting in sightings if sighting.error), None)
            yield Sightings(sightings[0].frame, self._settled(sightings[0].frame, faces), error)

    def _settled(self, frame: Frame, faces: dict[str, Face]) -> dict[str, Face]:
        """The faces without those of finders that had followed somebody else's."""
        for pair in combinations(faces, 2):
            if not all(identity in faces for identity in pair):
                continue  # one of the two lost to a third
            if overlap(faces[pair[0]].box, faces[pair[1]].box) < JUMP_IOU:
                continue
            now = {one: self._finders[one].distance(frame, faces[one].landmarks) for one in pair}
            nearer = min(pair, key=lambda identity: now[identity])
            for identity in pair:
                if identity != nearer or now[identity] > self._settings.identity_distance:
                    self._finders[identity].give_up(faces.pop(identity), now[identity])
        return faces


def _others(references: Mapping[str, Array], identity: str) -> npt.NDArray[np.float32]:
    known = [
        np.asarray(rows, np.float32).reshape(-1, DIMENSIONS) for name, rows in references.items() if name != identity
    ]
    return np.concatenate([np.zeros((0, DIMENSIONS), np.float32), *known])
