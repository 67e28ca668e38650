"""What lies in front of a face stays in front of the new one. Methods by the name that `params.yaml` uses.

A method looks at the faces of a batch before anything is drawn over them. It says which pixels belong to a hand, a
microphone, a strand of hair, and gives a crop without them, so that the net draws the new face from a whole one. To add
one, write a class with `find` and register what builds it; the builder's keyword-only parameters are its options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from facemill.errors import FacemillError
from facemill.options import checked_options
from facemill.registry import Registry
from facemill.swap.detail.exemplars import Exemplars
from facemill.terms import Terms, Use

Picture = npt.NDArray[np.float32]
Crop = npt.NDArray[np.uint8]
Redraw = Callable[[Sequence[Crop], str], Sequence[Picture | None]]
"""(P, P, 3) RGB uint8 crops and an identity → the net's drawings as that identity, RGB in 0…1; None: no answer."""


@dataclass(frozen=True)
class FaceView:
    """A face before anything is drawn over it.

    Attributes:
        identity: whose face it is.
        crop: (P, P, 3) RGB uint8, what the net is shown.
        fine: (F, F, 3) RGB uint8, the same square at `painter.MASK_PX`.
        landmarks: (68, 2) in pixels of the crop.
        one_tone: whether the film is in black and white or another tone, so that colour says nothing.
        relit: whether the crop was brought to light that the net knows (`swap/light.py`), which it is then but nearly.
    """

    identity: str
    crop: Crop
    fine: Crop
    landmarks: npt.NDArray[Any]
    one_tone: bool = False
    relit: bool = False


@dataclass(frozen=True)
class InFront:
    """What was found in front of a face.

    Attributes:
        hidden: (F, F) in 0…1, how far a pixel of the square belongs to it.
        crop: (P, P, 3) RGB uint8, the face without it.
    """

    hidden: Picture
    crop: Crop


@dataclass(frozen=True)
class OcclusionNeeds:
    """What methods may be made of.

    Attributes:
        replaced: the identities whose faces are replaced.
        coverage: of the square that the net sees, see `facemill.align`.
        exemplars: by identity, those that travel with the model.
        redraw: the net.
    """

    replaced: Sequence[str]
    coverage: float
    exemplars: Mapping[str, Exemplars]
    redraw: Redraw


class OcclusionMethod:
    """Finds nothing; the base of the others."""

    def find(self, faces: Sequence[FaceView]) -> list[InFront | None]:
        """What lies in front of each face; None where nothing does."""
        return [None] * len(faces)

    def notes(self) -> list[str]:
        """What a person should know of what this method could not do."""
        return []


Builder = Callable[..., OcclusionMethod]
METHODS: Registry[Builder] = Registry("occlusion method")
register = METHODS.register


def occlusion_method(name: str, needs: OcclusionNeeds, options: Mapping[str, Any] | None = None) -> OcclusionMethod:
    """The method of that name.

    Args:
        options: its own, by name, as `convert.occlusion_options` has them.

    Raises:
        FacemillError: no such method or option, or a file that it cannot use; the message lists what there is.
    """
    builder = METHODS[name]
    return builder(needs, **checked_options(builder, options or {}, whose=name, key="convert.occlusion_options"))


def terms(options: Mapping[str, Any]) -> tuple[Terms, ...]:
    """Those of the net that somebody brought for `segments`; the other methods ask the model alone."""
    if not options.get("weights"):
        return ()
    remedy = "state under `terms` whose it is, or leave convert.occlusion at residual"
    licence = "that of whoever trained it"
    return (Terms("the net for segmentation", Use.UNKNOWN, licence, remedy=remedy, file=str(options["weights"])),)


@register("none")
def _none(needs: OcclusionNeeds) -> OcclusionMethod:
    """The new face lies over everything."""
    return OcclusionMethod()


@register("residual")
def _residual(needs: OcclusionNeeds) -> OcclusionMethod:
    """What the net does not draw when it draws the person who is in the frame."""
    from facemill.swap.occlusion.residual import ResidualOcclusion

    return ResidualOcclusion(needs)


@register("segments")
def _segments(
    needs: OcclusionNeeds,
    *,
    weights: Path | None = None,
    input_px: int = 256,
    face_classes: Sequence[int] | None = None,
    channels_last: bool = False,
    bgr: bool = False,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> OcclusionMethod:
    """What a net for segmentation from a file says is no face (`segments.py`)."""
    from facemill.swap.occlusion.segments import SegmentedOcclusion

    if weights is None:
        raise FacemillError(
            "convert.occlusion: segments needs a net: name its ONNX file as `occlusion_options: {weights: …}`"
        )
    return SegmentedOcclusion(
        weights,
        input_px=input_px,
        face_classes=face_classes,
        channels_last=channels_last,
        bgr=bgr,
        mean=mean,
        std=std,
    )
