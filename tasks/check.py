"""Whether what params.yaml names is there: plug-ins by their names, encoders, the cluster's class, folders and files.

Pydantic cannot know that, since one file adds a plug-in and folders come and go. `facemill check` and the first stage
ask here, so that a misspelt `convert.colour` is said before hours of training and not after.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from facemill.errors import FacemillError
from facemill.swap.settings import SwapSettings
from tasks.params import ClusterParams, Params
from tasks.work.plugin_files import (
    LooksForFaces,
    occlusion_weights,
    placed_occlusion,
    placed_options,
    plugin_weights,
)
from tasks.work.wrong_values import WrongValues

LEAST_FACE_PX = 80
"""What the detectors are built for that are only looked at: their options are good or bad for any size."""


def check_project(params: Params, root: Path) -> None:
    """`check_names`, and whether every folder and file that is named is there and holds what it should.

    Raises:
        FacemillError: a line for each value that is wrong, with its key.
    """
    from tasks.collect_videos import archive_videos
    from tasks.collecting.planning import plan_units
    from tasks.licences import check_asked
    from tasks.training.weight_files import weight_files

    wrong = WrongValues()
    with wrong.under(""):
        check_names(params, root)
    with wrong.under(""):
        plan_units(params, root)
    with wrong.under("archive.path"):
        archive_videos(params, root)
    with wrong.under(""):
        weight_files(params.train, root)
    with wrong.under(""):
        check_asked(params, root)
    wrong.complain()


def check_names(params: Params, root: Path) -> None:
    """Asks each registry for what the parameters name, builds the detectors and opens the encoder.

    Args:
        params: what names it.
        root: where relative paths of options lie.

    Raises:
        FacemillError: a line for each name that stands for nothing, with its key and the names that there are.
    """
    from facemill.swap.blend import blend_method
    from facemill.swap.colour import colour_method
    from facemill.swap.detail.methods import METHODS as DETAIL
    from facemill.train.objectives import objective_options
    from facemill.video import check_encoder
    from tasks.converting.corrections import read_corrections

    asked: list[tuple[str, Callable[[], object]]] = [
        ("extract.detector", lambda: _detector(params.extract, root)),
        ("track.detector", lambda: _detector(params.track, root)),
        ("extract.landmarks", lambda: _predictor(params.extract, root)),
        ("track.landmarks", lambda: _predictor(params.track, root)),
        ("train", lambda: _model(params)),
        ("", lambda: objective_options(params.train.model, params.train.options)),
        ("convert.colour", lambda: colour_method(params.convert.colour)),
        ("convert.blend", lambda: blend_method(params.convert.blend)),
        ("convert.detail", lambda: DETAIL[params.convert.detail]),
        ("convert.occlusion", lambda: _occlusion(params.convert, root)),
        ("convert.encoder", lambda: check_encoder(params.convert.encoder)),
        ("", lambda: read_corrections(root, params.identities)),
        ("cluster", lambda: _cluster(params.cluster)),
    ]
    wrong = WrongValues()
    for key, ask in asked:
        with wrong.under(key):
            ask()
    wrong.complain()


def _detector(group: LooksForFaces, root: Path) -> None:
    """Builds it, as far as that goes without a picture: only then all options are known to be good."""
    plugin_weights(group, root)  # every file is there
    _build_detector(group.detector, json.dumps(placed_options(group, root).detector))


def _occlusion(convert: SwapSettings, root: Path) -> None:
    """Builds it without a model: only then its file and its options are known to be good."""
    from facemill.swap.occlusion.methods import OcclusionNeeds, occlusion_method

    occlusion_weights(convert, root)  # the file is there
    needs = OcclusionNeeds((), 1.0, {}, lambda crops, identity: [None] * len(crops))
    occlusion_method(convert.occlusion, needs, placed_occlusion(convert, root))


def _predictor(group: LooksForFaces, root: Path) -> None:
    from facemill.landmarks import build_predictor

    build_predictor(group.landmarks, **placed_options(group, root).landmarks)


@lru_cache(maxsize=4)
def _build_detector(name: str, options: str) -> None:
    """Once a process for the same options: dlib takes half a second to make its HOG detector."""
    from facemill.detect import build_detector

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is slow here is said when it is used
        build_detector(name, min_face_px=LEAST_FACE_PX, **json.loads(options))


def _model(params: Params) -> None:
    import torch
    from torch.overrides import TorchFunctionMode

    from facemill.nets import build_model

    class Unfilled(TorchFunctionMode):
        """Lets random numbers be: what has no memory needs none, and asking for them loads half of torch (2 s)."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(function, "__name__", "") in ("normal_", "uniform_"):
                return args[0] if args else kwargs["tensor"]
            return function(*args, **(kwargs or {}))

    with torch.device("meta"), Unfilled():  # shapes without memory
        build_model(params.train.model, params.train.preset, [*params.identities])


def _cluster(params: ClusterParams) -> None:
    from tasks.work.cluster import cluster_class

    if params.kind == "class" and params.cluster_class:
        cluster_class(params.cluster_class)
    if params.tls is not None:
        from tasks.work.tls import stated_security

        stated_security(params.tls)
    if params.kind == "address" and params.address:
        from distributed.comm.addressing import parse_address, parse_host_port
        from distributed.comm.registry import get_backend

        try:
            scheme, place = parse_address(params.address, strict=True)
            get_backend(scheme)
            parse_host_port(place)
        except ValueError as error:
            raise FacemillError(f"address: {params.address!r} is none, such as tcp://host:8786 ({error})") from error
