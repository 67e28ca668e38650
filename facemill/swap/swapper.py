"""The net's part: aligned crops of the source identity in, the target identity's face with the same expression out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from facemill.device import choose_device, settings_for
from facemill.errors import FacemillError
from facemill.files import folder_sha256
from facemill.model_folder import load_model
from facemill.nets import SwapModel


@dataclass(frozen=True)
class Swapper:
    """A model set up for one pair of identities.

    Attributes:
        coverage: of the crops it was trained on, see `facemill.align`.
        references: (K, 128) embeddings of the source identity.
        model_sha256: over the files of the model folder.
        dataset: fingerprint of the dataset that it was trained on.
        others: (M, 128) embeddings of the model's other identities: a face nearer to one of them is not the source's.
    """

    model: SwapModel
    device: str
    source: str
    target: str
    coverage: float
    references: npt.NDArray[np.float32]
    model_sha256: str = ""
    dataset: str = ""
    others: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 128), np.float32))

    @property
    def input_px(self) -> int:
        """Side of the crops."""
        return int(self.model.input_px)

    def swap(self, crops: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32] | None]:
        """RGB uint8 crops of `input_px` to RGB float32 faces in 0…1; None where the net's answer is not finite."""
        if not crops:
            return []
        batch = torch.from_numpy(np.stack(crops)).to(self.device)  # (N, P, P, 3)
        with torch.inference_mode():
            faces = self.model(batch.permute(0, 3, 1, 2).float().div_(255), self.target)  # (N, 3, P, P)
            array: Any = faces.float().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return [np.clip(face, 0.0, 1.0) if np.isfinite(face).all() else None for face in array]


def load_swapper(model_dir: Path, source: str, target: str, device: str = "auto") -> Swapper:
    """Reads a model folder.

    Raises:
        FacemillError: no model there, an identity that it was not trained on, or no references of the source.
    """
    torch_device = choose_device(device, "convert.device")
    model, meta = load_model(model_dir, torch_device)
    settings_for(torch_device, sum(p.numel() for p in model.parameters()), precision="fp32").place(model)
    for identity in (source, target):
        if identity not in model.identities:
            known = ", ".join(model.identities)
            raise FacemillError(f"the model in {model_dir} does not know {identity!r}: it was trained on {known}")
    references = _references(meta, source)
    if len(references) == 0:
        raise FacemillError(
            f"the model in {model_dir} has no references of {source!r}: name some in params.yaml and train again"
        )
    return Swapper(
        model=model,
        device=str(torch_device),
        source=source,
        target=target,
        coverage=float(meta["train_coverage"]),
        references=references,
        model_sha256=folder_sha256(model_dir),
        dataset=str(meta.get("dataset", "")),
        others=_references(meta, *(identity for identity in model.identities if identity != source)),
    )


def _references(meta: dict[str, Any], *identities: str) -> npt.NDArray[np.float32]:
    found = [embedding for identity in identities for embedding in meta.get("references", {}).get(identity, [])]
    return np.asarray(found, np.float32).reshape(-1, 128)
