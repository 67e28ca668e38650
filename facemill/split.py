"""Which faces a model is trained on, and which are held out to validate it.

Whole clusters go to a side, so that no picture has its twin on the other, and each by a hash of its own name, so that a
face keeps its side when the dataset grows. A cluster is a picture with all its copies, or the shot of a video that a
frame is from.

The faces of one person that are held out are as many as asked, within 0.4 and 2.5 times that; where the hashes give
fewer or more, the few clusters that are missing change sides. A shot that is longer than that is cut into stretches of
time where nothing else is left to hold out: of a few seconds, since the frames beside a cut are alike, and shorter ones
where those would be too much of the shot.

A cluster goes by a number, 64 bits of its name's SHA-256: of a million faces the names alone would take 200 MB. Two of
a million clusters have the same number once in some thirty million datasets, and would then go to the same side.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

STRETCH = "~"
"""Between the name of a shot and the number of a stretch of it."""
TOGETHER = 5
"""Stretches of a long shot that go to a side together, as named by `Split.of`'s caller."""
LEAST, MOST = 0.4, 2.5
"""Between so many times what is asked nobody changes sides."""

_MOST_DIGITS = 18  # of a stretch: more seconds than that are none, and would not fit into 64 bits

Numbers = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Which clusters are for validation: those whose hash falls into the share, the same in every run.

    Each identity with two clusters or more has at least one on either side: `added` and `removed` are the numbers of
    the few that had to change sides for that, and for the size that is asked. `cut` are the shots of which so many
    stretches at a time are a cluster. `joined` says of clusters and shots that go to a side with another one which.
    """

    share: float
    added: frozenset[int] = frozenset()
    removed: frozenset[int] = frozenset()
    cut: Mapping[str, int] = field(default_factory=dict)
    joined: Mapping[str, str] = field(default_factory=dict)

    def cluster_of(self, name: str) -> str:
        """What goes to a side as a whole: a name itself, or the shot that it is a stretch of."""
        shot, stretch = _parted(name)
        if stretch is None or shot not in self.cut:
            return self.joined.get(shot, shot)
        return f"{shot}{STRETCH}{stretch - stretch % self.cut[shot]}"

    def is_val(self, name: str) -> bool:
        """Whether what is named is for validation: a cluster of stills, or a stretch of a shot as `of` was given it."""
        return self._holds_out(_number(self.cluster_of(name)))

    @classmethod
    def of(
        cls,
        accepted: Iterable[tuple[str, str]],
        share: float,
        identities: Collection[str],
        twins: Iterable[tuple[str, str]] = (),
    ) -> Split:
        """Decides over all accepted faces, given as (identity, cluster); in memory two numbers for each face.

        A stretch of a shot is named as the shot, `STRETCH`, and its number in time. `twins` are pairs of clusters that
        go to one side: such shots are not cut.
        """
        joined = _joined(twins)
        faces, shots = _gathered(accepted, identities)
        cut = dict(sorted((shots[shot], size) for own in faces for shot, size in _shots_to_cut(own, share).items()))
        split = cls(share, cut={shot: cut[shot] for shot in cut.keys() - joined.keys()}, joined=joined)
        clusters = [split._clusters(own, shots) for own in faces]
        for own in clusters:
            split = split._sized(own)
        for own in clusters:
            split = split._with_both_sides(own)
        for own in clusters:  # last, since nothing can be trained without
            split = split._with_training(own)
        return split

    def _holds_out(self, cluster: int) -> bool:
        """Whether a cluster is for validation: by the leading 48 bits of its number, unless it has changed sides."""
        return cluster in self.added or ((cluster >> 16) / 2**48 < self.share and cluster not in self.removed)

    def _held_out(self, clusters: Numbers) -> npt.NDArray[np.bool_]:
        """(C,) which clusters are for validation."""
        return np.fromiter(map(self._holds_out, clusters.tolist()), bool, len(clusters))

    def _clusters(self, faces: _Faces, shots: Mapping[int, str]) -> _Clusters:
        numbers = faces.shots.copy()
        together = {_number(name): _number(other) for name, other in self.joined.items()}
        if together:
            for at in np.flatnonzero(np.isin(numbers, np.fromiter(together, np.uint64, len(together)))).tolist():
                numbers[at] = together[int(numbers[at])]
        cut = np.array([_number(shot) for shot in self.cut], np.uint64)
        for at in np.flatnonzero(np.isin(faces.shots, cut) & (faces.stretches >= 0)).tolist():
            shot, stretch = shots[int(faces.shots[at])], int(faces.stretches[at])
            numbers[at] = _number(f"{shot}{STRETCH}{stretch - stretch % self.cut[shot]}")
        return _Clusters.of(numbers, faces.counts)

    def _sized(self, clusters: _Clusters) -> Split:
        """With as many of a person's faces held out as are asked, as nearly as whole clusters allow.

        No further than the nearer limit: the more clusters change sides, the more change back in a larger dataset.
        """
        asked = self.share * int(clusters.counts.sum())
        out = self._held_out(clusters.numbers)
        held = int(clusters.counts[out].sum())
        back, forth = [], []
        if held > max(MOST * asked, 1):
            for at in np.flatnonzero(out)[::-1].tolist():
                if held <= MOST * asked:
                    break
                if held - int(clusters.counts[at]) >= LEAST * asked:
                    back.append(at)
                    held -= int(clusters.counts[at])
        if held < LEAST * asked:
            out[back] = False
            for at in np.flatnonzero(~out).tolist():
                if held + int(clusters.counts[at]) <= max(MOST * asked, 1):
                    forth.append(at)
                    held += int(clusters.counts[at])
                if held >= LEAST * asked:
                    break
        return self._moved(clusters.numbers[back], val=False)._moved(clusters.numbers[forth], val=True)

    def _with_both_sides(self, clusters: _Clusters) -> Split:
        if len(clusters.numbers) < 2 or self._held_out(clusters.numbers).any():
            return self
        # the smallest: the fewest faces over what is asked
        return self._moved(clusters.numbers[clusters.by_size[:1]], val=True)

    def _with_training(self, clusters: _Clusters) -> Split:
        """Whoever has only clusters for validation gives one back. That takes training faces from nobody."""
        if not len(clusters.numbers) or not self._held_out(clusters.numbers).all():
            return self
        return self._moved(clusters.numbers[clusters.by_size[-1:]], val=False)

    def _moved(self, clusters: Numbers, *, val: bool) -> Split:
        moved = frozenset(clusters.tolist())
        if val:
            return replace(self, added=self.added | moved, removed=self.removed - moved)
        return replace(self, added=self.added - moved, removed=self.removed | moved)


@dataclass(frozen=True)
class _Faces:
    """One identity's faces by name.

    Attributes:
        shots: (D,) numbers of the shots or clusters of stills.
        stretches: (D,) of the shot; -1 for what is none.
        counts: (D,) faces.
    """

    shots: Numbers
    stretches: Counts
    counts: Counts


@dataclass(frozen=True)
class _Clusters:
    """One identity's clusters: (C,) numbers, ascending, and (C,) faces of each."""

    numbers: Numbers
    counts: Counts

    @classmethod
    def of(cls, numbers: Numbers, counts: Counts) -> _Clusters:
        distinct, which = np.unique(numbers, return_inverse=True)
        together = np.zeros(len(distinct), np.int64)
        np.add.at(together, which, counts)
        return cls(distinct, together)

    @property
    def by_size(self) -> npt.NDArray[np.intp]:
        return np.lexsort((self.numbers, self.counts))


def _gathered(accepted: Iterable[tuple[str, str]], identities: Collection[str]) -> tuple[list[_Faces], dict[int, str]]:
    """The faces of each identity, in the order of the names, and the shots that have stretches by their numbers."""
    shots: dict[int, str] = {}
    gathered = {identity: (array("Q"), array("q")) for identity in sorted(identities)}
    for identity, name in accepted:
        shot, stretch = _parted(name)
        number = _number(shot)
        if stretch is not None:
            shots.setdefault(number, shot)
        gathered[identity][0].append(number)
        gathered[identity][1].append(-1 if stretch is None else stretch)
    return [_faces(*own) for own in gathered.values()], shots


def _faces(shots: array[int], stretches: array[int]) -> _Faces:
    both = np.empty(len(shots), [("shot", np.uint64), ("stretch", np.int64)])
    both["shot"], both["stretch"] = np.frombuffer(shots, np.uint64), np.frombuffer(stretches, np.int64)
    distinct, counts = np.unique(both, return_counts=True)
    return _Faces(distinct["shot"], distinct["stretch"], counts.astype(np.int64))


def _shots_to_cut(faces: _Faces, share: float) -> dict[int, int]:
    """The shots that are too long to be held out, where what is left is too little to hold out: how many stretches of
    each go together, so that they are about the share that is asked at most."""
    shots = _Clusters.of(faces.shots, faces.counts)
    stretches = _Clusters.of(faces.shots, (faces.stretches >= 0).astype(np.int64)).counts
    asked = share * int(shots.counts.sum())
    small = int(shots.counts[shots.counts <= max(MOST * asked, 1)].sum())
    if small >= asked:
        return {}
    long = np.flatnonzero((stretches > 0) & (shots.counts > max(MOST * asked, 1))).tolist()
    return {int(shots.numbers[at]): max(1, min(TOGETHER, int(share * int(stretches[at])))) for at in long}


def _joined(twins: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each cluster of a pair the first, by name, of all that pairs join it with."""
    groups: dict[str, set[str]] = {}
    for pair in twins:
        both = {_shot(name) for name in pair}
        if len(both) == 1:  # of one shot, which is cut only where there is nothing else to hold out
            continue
        group = both.union(*(groups.get(name, set()) for name in both))
        groups.update(dict.fromkeys(group, group))
    return {name: min(group) for name, group in groups.items()}


def _shot(name: str) -> str:
    return _parted(name)[0]


def _parted(name: str) -> tuple[str, int | None]:
    """A shot and the number of the stretch, or the name itself. The path in it may hold any sign."""
    shot, mark, stretch = name.rpartition(STRETCH)
    is_number = stretch.isascii() and stretch.isdecimal() and len(stretch) <= _MOST_DIGITS
    return (shot, int(stretch)) if mark and is_number else (name, None)


def _number(cluster: str) -> int:
    """64 bits that depend on the cluster alone."""
    return int.from_bytes(hashlib.sha256(cluster.encode()).digest()[:8])
