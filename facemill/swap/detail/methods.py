"""Fine detail of a new face, which a net of few pixels cannot draw. Methods by the name that `params.yaml` uses.

A method has two turns: on the drawing at the net's own size, and on the same once it is brought to the frame's pixels.
To add one, write a class with these turns and register what builds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.align import Affine
from facemill.registry import Registry
from facemill.swap.detail.exemplars import Exemplars
from facemill.swap.detail.from_exemplars import ExemplarDetail, FrameChoice
from facemill.swap.detail.match import match_detail

Picture = npt.NDArray[np.float32]  # RGB, H×W×3, 0…1


@dataclass(frozen=True)
class DetailNeeds:
    """What methods may be made of.

    Attributes:
        becomes: the identity that is replaced → the identity whose face is put there.
        coverage: of the square that the net sees, see `facemill.align`.
        sharpen: `convert.sharpen`, see `facemill.swap.settings`.
        exemplars: by identity, those that travel with the model.
    """

    becomes: Mapping[str, str]
    coverage: float
    sharpen: float
    exemplars: Mapping[str, Exemplars]


@dataclass(frozen=True)
class DrawnFace:
    """One face of one frame.

    Attributes:
        replaced: whose face it was.
        face: (P, P, 3) RGB in 0…1, the net's drawing in the frame's colours.
        old: likewise, the face that is replaced.
        mask: (P, P) in 0…1, the face.
        landmarks: (68, 2) in that square of P pixels, where the features lie in the drawing.
        affine: to that square from the rectangle of the frame that the face lies in.
        net_pixel: how many of the P pixels one of the net's own is wide.
        choice: which exemplars it takes; None where nobody chose any.
    """

    replaced: str
    face: Picture
    old: Picture
    mask: Picture
    landmarks: npt.NDArray[Any]
    affine: Affine
    choice: FrameChoice | None = None
    net_pixel: float = 1.0


class DetailMethod:
    """Leaves a face as it was drawn; the base of the others."""

    def in_crop(self, drawn: DrawnFace) -> Picture:
        """The drawing, (P, P, 3), before it is brought to the frame."""
        return drawn.face

    def in_frame(self, drawn: DrawnFace, new: Picture, ground: npt.NDArray[np.uint8], weight: Picture) -> Picture:
        """The drawing, (h, w, 3), in the rectangle of the frame.

        Args:
            new: what `in_crop` gave, brought there.
            ground: (h, w, 3) RGB uint8, what the frame shows there.
            weight: (h, w) in 0…1, where the new face will be seen.
        """
        return new

    def notes(self) -> list[str]:
        """What a person should know of what this method could not do."""
        return []


Builder = Callable[[DetailNeeds], DetailMethod]
METHODS: Registry[Builder] = Registry("detail method")
register = METHODS.register


def detail_method(name: str, needs: DetailNeeds) -> DetailMethod:
    """The method of that name.

    Raises:
        FacemillError: no such method; the message lists those there are.
    """
    return METHODS[name](needs)


@register("none")
def _none(needs: DetailNeeds) -> DetailMethod:
    return DetailMethod()


@register("match")
class MatchOld(DetailMethod):
    """The old face's amount of detail, of what the net drew (`match.py`)."""

    def __init__(self, needs: DetailNeeds) -> None:
        self._most = needs.sharpen

    def in_crop(self, drawn: DrawnFace) -> Picture:
        """The drawing, sharpened or softened until its fine detail is as strong as the old face's."""
        return match_detail(drawn.face, drawn.old, drawn.mask, self._most, drawn.net_pixel)


@register("exemplars")
class FromExemplars(MatchOld):
    """The new person's own, from pictures that travel with the model; where there are none, as `match`."""

    def __init__(self, needs: DetailNeeds) -> None:
        super().__init__(needs)
        self._without = sorted({new for new in needs.becomes.values() if new not in needs.exemplars})
        known = {new: ExemplarDetail(own, needs.coverage) for new, own in needs.exemplars.items()}
        self._details = {old: known[new] for old, new in needs.becomes.items() if new in known}

    def in_crop(self, drawn: DrawnFace) -> Picture:
        """The drawing as it is where exemplars will lend it detail, else as `match` has it."""
        return drawn.face if drawn.choice and drawn.replaced in self._details else super().in_crop(drawn)

    def in_frame(self, drawn: DrawnFace, new: Picture, ground: npt.NDArray[np.uint8], weight: Picture) -> Picture:
        """The drawing with the detail of the exemplars that were chosen for this frame."""
        if drawn.choice is None or drawn.replaced not in self._details:
            return new
        add = self._details[drawn.replaced].add
        return add(new, ground, weight, drawn.affine, drawn.face, drawn.landmarks, drawn.choice)

    def notes(self) -> list[str]:
        """Whose pictures do not travel with the model."""
        return [
            f"the model has no exemplars of {name}, so its faces have the detail that the net draws: train it again "
            "with train.exemplars above 0"
            for name in self._without
        ]
