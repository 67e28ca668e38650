"""A trained model as ONNX, for programs without torch; checked against torch before the file is there.

One file for each identity: a face of the net's input (N, 3, P, P) float32 RGB in 0…1 goes in as `face`, the same pose
as that identity comes out as `drawn`; N is free. The packages onnx, onnxscript (for the export) and onnxruntime (for
the check) are wanted only here.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facemill.errors import FacemillError
from facemill.files import atomic_path
from facemill.nets import SwapModel

OPSET = 20
TOLERANCE = 1e-3
"""Largest difference from torch that is put down to the order of sums, on values of 0…1."""
_CHECKED_FACES = (1, 3)


def export_onnx(model: SwapModel, identity: str, path: Path) -> float:
    """Writes `path` atomically.

    Args:
        model: trained, on the CPU.
        identity: whom the file draws.
        path: ends with `.onnx`.

    Returns:
        The largest difference between ONNX Runtime and torch on random faces, of 0…1.

    Raises:
        FacemillError: the packages are missing, an unknown identity, or the results differ by more than `TOLERANCE`.
    """
    onnxruntime = _packages()
    face = torch.rand(2, 3, model.input_px, model.input_px, generator=torch.Generator().manual_seed(0))
    drawer = _Drawer(model, identity).eval()
    with torch.inference_mode():
        drawer(face)  # an unknown identity is named here, by the model
    with atomic_path(path) as temporary:
        with _quiet():
            program = torch.onnx.export(
                drawer,
                (face,),
                input_names=["face"],
                output_names=["drawn"],
                opset_version=OPSET,
                dynamic_shapes={"face": {0: torch.export.Dim("faces", min=1)}},
                dynamo=True,
                verbose=False,
            )
            if program is None:
                raise FacemillError(f"torch exported nothing for {identity}")
            program.save(temporary, external_data=False)
        difference = _difference(onnxruntime, temporary, drawer, model.input_px)
        if not difference <= TOLERANCE:
            raise FacemillError(
                f"{path.name}: ONNX Runtime and torch differ by {difference:.2g}, more than {TOLERANCE}: not written; "
                "take another version of onnxscript, and tell us"
            )
    return difference


class _Drawer(nn.Module):
    """A model with its identity fixed, since ONNX knows no names."""

    def __init__(self, model: SwapModel, identity: str) -> None:
        super().__init__()
        self._model, self._identity = model, identity

    def forward(self, face: Tensor) -> Tensor:
        drawn: Tensor = self._model(face, self._identity)
        return drawn


def _difference(onnxruntime: Any, path: Path, drawer: nn.Module, input_px: int) -> float:
    """The largest over batches of several sizes; NaN where any value is NaN."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = 0.0
    for count in _CHECKED_FACES:
        faces = torch.rand(count, 3, input_px, input_px, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            wanted = drawer(faces).numpy()
        (got,) = session.run(None, {"face": faces.numpy()})
        found = float(np.maximum(found, np.abs(got - wanted).max()))
    return found


def _packages() -> Any:
    try:
        *_, onnxruntime = map(import_module, ("onnx", "onnxscript", "onnxruntime"))
    except ImportError as error:
        raise FacemillError(
            f"the export wants the package {error.name}: run `python deploy/install.py export` in the clone"
        ) from error
    return onnxruntime


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own internals, through both ways that Python has."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
