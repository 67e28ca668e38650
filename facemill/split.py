"""Which faces a model is trained on, and which are held out to validate it.

Whole clusters go to a side, so that no picture has its twin on the other, and each by a hash of its own name, so that a
face keeps its side when the dataset grows. A cluster is a picture with all its copies, or the shot of a video that a
frame is from.

The faces of one person that are held out are as many as asked, within 0.4 and 2.5 times that; where the hashes give
fewer or more, the few clusters that are missing change sides. A shot that is longer than that is cut into stretches of
time where nothing else is left to hold out: of a few seconds, since the frames beside a cut are alike, and shorter ones
where those would be too much of the shot.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

STRETCH = "~"
"""Between the name of a shot and the number of a stretch of it."""
TOGETHER = 5
"""Stretches of a long shot that go to a side together, as named by `Split.of`'s caller."""
LEAST, MOST = 0.4, 2.5
"""Between so many times what is asked nobody changes sides."""


@dataclass(frozen=True)
class Split:
    """Which clusters are for validation: those whose hash falls into the share, the same in every run.

    Each identity with two clusters or more has at least one on either side: `added` and `removed` are the few that had
    to change sides for that, and for the size that is asked. `cut` are the shots of which so many stretches at a time
    are a cluster. `joined` says of clusters and shots that go to a side with another one which.
    """

    share: float
    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()
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
        return self._holds_out(self.cluster_of(name))

    @classmethod
    def of(
        cls,
        accepted: Iterable[tuple[str, str]],
        share: float,
        identities: Collection[str],
        twins: Iterable[tuple[str, str]] = (),
    ) -> Split:
        """Decides over all accepted faces, given as (identity, cluster); in memory a number for each cluster.

        A stretch of a shot is named as the shot, `STRETCH`, and its number in time. `twins` are pairs of clusters that
        go to one side: such shots are not cut.
        """
        joined = _joined(twins)
        faces: dict[str, Counter[str]] = {identity: Counter() for identity in sorted(identities)}
        for identity, name in accepted:
            faces[identity][name] += 1
        cut = dict(sorted(pair for own in faces.values() for pair in _shots_to_cut(own, share).items()))
        split = cls(share, cut={shot: cut[shot] for shot in cut.keys() - joined.keys()}, joined=joined)
        clusters = {identity: split._clusters(own) for identity, own in faces.items()}
        for own in clusters.values():
            split = split._sized(own)
        for own in clusters.values():
            split = split._with_both_sides(own)
        for own in clusters.values():  # last, since nothing can be trained without
            split = split._with_training(own)
        return split

    def _holds_out(self, cluster: str) -> bool:
        """Whether a cluster, as `cluster_of` gives it, is for validation. The path in its name may hold any sign."""
        return cluster in self.added or (_fraction(cluster) < self.share and cluster not in self.removed)

    def _clusters(self, faces: Counter[str]) -> Counter[str]:
        clusters = Counter[str]()
        for name, count in faces.items():
            clusters[self.cluster_of(name)] += count
        return clusters

    def _sized(self, clusters: Counter[str]) -> Split:
        """With as many of a person's faces held out as are asked, as nearly as whole clusters allow.

        No further than the nearer limit: the more clusters change sides, the more change back in a larger dataset.
        """
        asked = self.share * clusters.total()
        held = sum(count for cluster, count in clusters.items() if self._holds_out(cluster))
        split = self
        if held > max(MOST * asked, 1):
            for cluster in sorted(filter(self._holds_out, clusters), key=_fraction, reverse=True):
                if held <= MOST * asked:
                    break
                if held - clusters[cluster] >= LEAST * asked:
                    split, held = split._moved(cluster, val=False), held - clusters[cluster]
        if held < LEAST * asked:
            for cluster in sorted(clusters, key=_fraction):
                if not split._holds_out(cluster) and held + clusters[cluster] <= max(MOST * asked, 1):
                    split, held = split._moved(cluster, val=True), held + clusters[cluster]
                if held >= LEAST * asked:
                    break
        return split

    def _with_both_sides(self, clusters: Counter[str]) -> Split:
        if len(clusters) < 2 or any(map(self._holds_out, clusters)):
            return self
        # the smallest: the fewest faces over what is asked
        return self._moved(min(clusters, key=lambda one: (clusters[one], _fraction(one))), val=True)

    def _with_training(self, clusters: Counter[str]) -> Split:
        """Whoever has only clusters for validation gives one back. That takes training faces from nobody."""
        if not clusters or not all(map(self._holds_out, clusters)):
            return self
        return self._moved(max(clusters, key=lambda one: (clusters[one], _fraction(one))), val=False)

    def _moved(self, cluster: str, *, val: bool) -> Split:
        one = frozenset({cluster})
        if val:
            return replace(self, added=self.added | one, removed=self.removed - one)
        return replace(self, added=self.added - one, removed=self.removed | one)


def _shots_to_cut(faces: Counter[str], share: float) -> dict[str, int]:
    """The shots that are too long to be held out, where what is left is too little to hold out: how many stretches of
    each go together, so that they are about the share that is asked at most."""
    clusters, stretches = Counter[str](), Counter[str]()
    for name, count in faces.items():
        shot, stretch = _parted(name)
        clusters[shot] += count
        stretches[shot] += stretch is not None
    asked = share * clusters.total()
    small = sum(count for count in clusters.values() if count <= max(MOST * asked, 1))
    if small >= asked:
        return {}
    long = (shot for shot in stretches if stretches[shot] and clusters[shot] > max(MOST * asked, 1))
    return {shot: max(1, min(TOGETHER, int(share * stretches[shot]))) for shot in long}


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
    return (shot, int(stretch)) if mark and stretch.isascii() and stretch.isdecimal() else (name, None)


def _fraction(cluster: str) -> float:
    """A number in 0…1 that depends on the cluster alone."""
    return int(hashlib.sha256(cluster.encode()).hexdigest()[:12], 16) / 16**12
