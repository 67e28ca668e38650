"""The detector that suits the device: on CUDA the strongest there are weights for, on a CPU the strongest it can bear.

| device | weights of DSFD | detector |
|---|---|---|
| cuda | given, and there | dsfd |
| cuda | none | mtcnn |
| cpu | whatever | mtcnn: DSFD's 370 GFLOP for a picture of 640 px take a CPU seconds |
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from facemill.detect import DETECTORS, Detector, build_detector, register
from facemill.terms import Terms, terms_of

CHOICES = ("dsfd", "mtcnn")
LOG = logging.getLogger(__name__)


def terms(options: Mapping[str, Any]) -> tuple[Terms, ...]:
    """Those of every detector that it may choose with these options."""
    names = CHOICES if options.get("weights") else CHOICES[1:]
    return tuple(
        each
        for name in names
        for each in terms_of(DETECTORS.module(name), f"the detector {name}", options_of(name, options))
    )


@register("auto")
def build(
    min_face_px: int, device: str = "cpu", *, weights: Path | str | None = None, sha256: str | None = None
) -> Detector:
    """The detector that `choose` names; it keeps its own name.

    Args:
        min_face_px: about the shortest side of a face worth finding.
        device: where its net runs.
        weights: of DSFD, and so is `sha256`; as `dsfd.build` takes them.
    """
    chosen = choose(device, weights)
    options = options_of(chosen, {"weights": weights, "sha256": sha256})
    return build_detector(chosen, min_face_px=min_face_px, device=device, **options)


def options_of(chosen: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the detector that it chooses gets of its own options: DSFD all of them, MTCNN none."""
    return options if chosen == "dsfd" else {}


def choose(device: str, weights: Path | str | None = None) -> str:
    """ "dsfd" or "mtcnn" by the table above; weights that are named but not there are logged."""
    if not device.startswith("cuda"):
        return "mtcnn"
    if weights is None:
        return "mtcnn"
    if Path(weights).exists():
        return "dsfd"
    LOG.warning("no DSFD weights at %s: detecting with mtcnn", weights)
    return "mtcnn"
