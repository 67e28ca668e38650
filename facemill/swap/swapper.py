"""The net's part: aligned crops of the people who are replaced in, who they become with the same expression out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from facemill.device import choose_device, settings_for
from facemill.device_choice import Device, DeviceChoice
from facemill.errors import FacemillError
from facemill.files import folder_sha256
from facemill.model_folder import EXEMPLARS_FILE, load_model, read_meta, references_of
from facemill.nets import SwapModel
from facemill.swap.detail.exemplars import Exemplars, read_exemplars


@dataclass(frozen=True, kw_only=True)
class ModelOrigin:
    """Which model of which dataset is used, and for whom: what receipts say of a conversion.

    Attributes:
        becomes: the identity that is replaced → the identity whose face is put there.
        model_sha256: over the files of the model folder.
        dataset: fingerprint of the dataset that it was trained on.
    """

    becomes: Mapping[str, str]
    model_sha256: str = ""
    dataset: str = ""


@dataclass(frozen=True, kw_only=True)
class Swapper:
    """A model set up for the people of a conversion: one net for all of them.

    Attributes:
        becomes: the identity that is replaced → the identity whose face is put there.
        coverage: of the crops it was trained on, see `facemill.align`.
        exemplars: by identity, the pictures that travel with the model, of those who are replaced or put there.
    """

    model: SwapModel
    device: str
    becomes: Mapping[str, str]
    coverage: float
    exemplars: Mapping[str, Exemplars] = field(default_factory=dict)

    @property
    def input_px(self) -> int:
        """Side in pixels of the square crops that the model takes and gives."""
        return int(self.model.input_px)

    def swap(
        self, crops: Sequence[npt.NDArray[np.uint8]], replaced: Sequence[str]
    ) -> list[npt.NDArray[np.float32] | None]:
        """Draws who the people in the crops become.

        Args:
            crops: RGB uint8, `input_px` wide and high.
            replaced: for each crop who is in it, a key of `becomes`.

        Returns:
            RGB float32 faces in 0…1; None where the net's answer is not finite.
        """
        faces: list[npt.NDArray[np.float32] | None] = [None] * len(crops)
        new = [self.becomes[identity] for identity in replaced]
        for identity in dict.fromkeys(new):
            rows = [row for row, name in enumerate(new) if name == identity]
            for row, face in zip(rows, self._drawn([crops[row] for row in rows], identity), strict=True):
                faces[row] = face
        return faces

    def redraw(self, crops: Sequence[npt.NDArray[np.uint8]], identity: str) -> list[npt.NDArray[np.float32] | None]:
        """Draws crops as that identity, whoever is in them.

        Returns:
            As `swap`; None also where the net fails on a crop.
        """
        try:
            return self._drawn(crops, identity)
        except RuntimeError:
            if len(crops) <= 1:
                return [None] * len(crops)
            return [self.redraw([crop], identity)[0] for crop in crops]

    def _drawn(self, crops: Sequence[npt.NDArray[np.uint8]], identity: str) -> list[npt.NDArray[np.float32] | None]:
        batch = torch.from_numpy(np.stack(crops)).to(self.device)  # (N, P, P, 3)
        with torch.inference_mode():
            faces = self.model(batch.permute(0, 3, 1, 2).float().div_(255), identity)  # (N, 3, P, P)
            array: Any = faces.float().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return [np.clip(face, 0.0, 1.0) if np.isfinite(face).all() else None for face in array]


def load_swapper(model_dir: Path, becomes: Mapping[str, str], device: Device = "auto") -> Swapper:
    """Reads a model folder.

    Args:
        becomes: the identity that is replaced → the identity whose face is put there; at least one pair.

    Raises:
        FacemillError: no model there, or an identity that it was not trained on.
    """
    torch_device = choose_device(device, "convert.device")
    model, meta = load_model(model_dir, torch_device)
    settings_for(torch_device, sum(p.numel() for p in model.parameters()), DeviceChoice(precision="fp32")).place(model)
    _check_known(model_dir, model.identities, becomes)
    return Swapper(
        model=model,
        device=str(torch_device),
        becomes=dict(becomes),
        coverage=float(meta["train_coverage"]),
        exemplars=exemplars_of(model_dir, becomes),
    )


def exemplars_of(model_dir: Path, becomes: Mapping[str, str]) -> dict[str, Exemplars]:
    """The pictures that travel with a model, of those who are replaced or put there; none where there are none.

    Raises:
        FacemillError: their file is damaged.
    """
    path = model_dir / EXEMPLARS_FILE
    return read_exemplars(path, [*becomes, *becomes.values()]) if path.is_file() else {}


def check_becomes(model_dir: Path, becomes: Mapping[str, str]) -> ModelOrigin:
    """Reads of a model folder what a plan needs, without its weights.

    Args:
        becomes: the identity that is replaced → the identity whose face is put there; at least one pair.

    Raises:
        FacemillError: no model there, an identity that it was not trained on, or no references of one who is replaced.
    """
    meta = read_meta(model_dir)
    _check_known(model_dir, meta["identities"], becomes)
    references = references_of(meta)
    for identity in becomes:
        if identity not in references:
            raise FacemillError(
                f"the model in {model_dir} has no references of {identity!r}: name some in params.yaml and train again"
            )
    return ModelOrigin(
        becomes=dict(becomes), model_sha256=folder_sha256(model_dir), dataset=str(meta.get("dataset", ""))
    )


def _check_known(model_dir: Path, identities: Sequence[str], becomes: Mapping[str, str]) -> None:
    if not becomes:
        raise FacemillError("nobody is to be replaced: name at least one pair of identities")
    for identity in dict.fromkeys([*becomes, *becomes.values()]):
        if identity not in identities:
            known = ", ".join(identities)
            raise FacemillError(f"the model in {model_dir} does not know {identity!r}: it was trained on {known}")
