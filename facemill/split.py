"""Which faces a model is trained on, and which are held out to validate it.

Whole duplicate clusters go to a side, so that no picture has its twin on the other, and each by a hash of its own name,
so that a face keeps its side when the dataset grows.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """Which clusters are for validation: those whose hash falls into the share, the same in every run.

    Each identity with two clusters or more has at least one on either side: `added` and `removed` are the few that had
    to change sides for that.
    """

    share: float
    added: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()

    def is_val(self, cluster: str) -> bool:
        """Whether a cluster is for validation."""
        return cluster in self.added or (_fraction(cluster) < self.share and cluster not in self.removed)

    @classmethod
    def of(cls, accepted: Iterable[tuple[str, str]], share: float, identities: Collection[str]) -> Split:
        """Decides over all accepted faces, given as (identity, cluster), in memory for a few clusters an identity."""
        sides = {identity: _Sides(share, len(identities)) for identity in sorted(identities)}
        for identity, cluster in accepted:
            sides[identity].see(cluster)
        added = {own.training[0][1] for own in sides.values() if own.several and not own.has_val}
        # Last, since nothing can be trained without: whoever has only clusters for validation gives one back. That
        # takes training faces from nobody.
        removed = {own.highest[1] for own in sides.values() if own.highest and own.is_all_val(added)}
        return cls(share, frozenset(added - removed), frozenset(removed))


class _Sides:
    """How the hashes spread one identity's clusters over the two sides.

    At most one cluster for each identity is ever added to validation. So of those for training it is enough to know
    the first few: whoever has more has some left.
    """

    def __init__(self, share: float, identities: int) -> None:
        self._share, self._enough = share, identities + 1
        self.training: list[tuple[float, str]] = []
        """The first of them by their hashes."""
        self.highest: tuple[float, str] | None = None
        self.has_val = self.several = False

    def see(self, cluster: str) -> None:
        """Takes note of a cluster, for the first time or again."""
        place = (_fraction(cluster), cluster)
        self.several = self.several or (self.highest is not None and self.highest != place)
        self.highest = max(self.highest or place, place)
        if place[0] < self._share:
            self.has_val = True
        elif place not in self.training:
            bisect.insort(self.training, place)
            del self.training[self._enough :]

    def is_all_val(self, added: Collection[str]) -> bool:
        """Whether none would be left for training."""
        return all(cluster in added for _, cluster in self.training)


def _fraction(cluster: str) -> float:
    """A number in 0…1 that depends on the cluster alone."""
    return int(hashlib.sha256(cluster.encode()).hexdigest()[:12], 16) / 16**12
