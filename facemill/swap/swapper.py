"""The net's part: aligned crops of the people who are replaced in, who they become with the same expression out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from facemill.device import choose_device, settings_for
from facemill.device_choice import Device, DeviceChoice
from facemill.embeddings import DIMENSIONS
from facemill.errors import FacemillError
from facemill.files import folder_sha256
from facemill.model_folder import load_model
from facemill.nets import SwapModel


@dataclass(frozen=True, kw_only=True)
class Swapper:
    """A model set up for the people of a conversion: one net for all of them.

    Attributes:
        becomes: the identity that is replaced → the identity whose face is put there.
        coverage: of the crops it was trained on, see `facemill.align`.
        references: (K, 128) embeddings of every identity that has some, at least of those who are replaced. Those of
            the others keep a face that is nearer to one of them from being taken for somebody else's.
        model_sha256: over the files of the model folder.
        dataset: fingerprint of the dataset that it was trained on.
    """

    model: SwapModel
    device: str
    becomes: Mapping[str, str]
    coverage: float
    references: Mapping[str, npt.NDArray[np.float32]]
    model_sha256: str = ""
    dataset: str = ""

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
        FacemillError: no model there, an identity that it was not trained on, or no references of one who is replaced.
    """
    if not becomes:
        raise FacemillError("nobody is to be replaced: name at least one pair of identities")
    torch_device = choose_device(device, "convert.device")
    model, meta = load_model(model_dir, torch_device)
    settings_for(torch_device, sum(p.numel() for p in model.parameters()), DeviceChoice(precision="fp32")).place(model)
    for identity in dict.fromkeys([*becomes, *becomes.values()]):
        if identity not in model.identities:
            known = ", ".join(model.identities)
            raise FacemillError(f"the model in {model_dir} does not know {identity!r}: it was trained on {known}")
    stored = meta.get("references", {})
    references = {
        name: np.asarray(stored[name], np.float32).reshape(-1, DIMENSIONS)
        for name in model.identities
        if stored.get(name)
    }
    for identity in becomes:
        if identity not in references:
            raise FacemillError(
                f"the model in {model_dir} has no references of {identity!r}: name some in params.yaml and train again"
            )
    return Swapper(
        model=model,
        device=str(torch_device),
        becomes=dict(becomes),
        coverage=float(meta["train_coverage"]),
        references=references,
        model_sha256=folder_sha256(model_dir),
        dataset=str(meta.get("dataset", "")),
    )
