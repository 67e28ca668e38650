"""Whether the names in params.yaml stand for something: detectors, models, presets, colour and blend methods, encoders.

Pydantic cannot know them, since one file adds one. `facemill check` and the first stage ask here, so that a misspelt
`convert.colour` is said before hours of training and not after.
"""

from __future__ import annotations

from collections.abc import Callable

from facemill.errors import FacemillError
from tasks.params import Params, WrongValues


def check_names(params: Params) -> None:
    """Asks each registry for what the parameters name.

    Raises:
        FacemillError: a line for each name that stands for nothing, with its path and the names that there are.
    """
    from facemill.swap.blend import blend_method
    from facemill.swap.colour import colour_method

    asked: list[tuple[str, Callable[[], object]]] = [
        ("extract.detector", lambda: _detector(params.extract.detector)),
        ("convert.detector", lambda: _detector(params.convert.detector)),
        ("train", lambda: _model(params.train.model, params.train.preset)),
        ("convert.colour", lambda: colour_method(params.convert.colour)),
        ("convert.blend", lambda: blend_method(params.convert.blend)),
        ("convert.encoder", lambda: _encoder(params.convert.encoder)),
    ]
    wrong = WrongValues()
    for path, ask in asked:
        with wrong.under(path):
            ask()
    wrong.complain()


def _detector(names: str) -> None:
    from facemill.detect import DETECTORS

    for name in names.split(","):
        DETECTORS[name.strip()]


def _model(name: str, preset: str) -> None:
    import torch

    from facemill.nets import build_model

    with torch.device("meta"):  # shapes without memory
        build_model(name, preset, ("a", "b"))


def _encoder(name: str) -> None:
    import av.codec

    try:
        av.codec.Codec(name, "w")
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        raise FacemillError(f"this FFmpeg has no encoder {name!r}; libx264 is always there") from error
