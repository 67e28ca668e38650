"""A trained model for programs without torch: `data/model` -> one ONNX file for each identity.

Not a stage: nothing depends on it. The files are checked against torch before they are there.
"""

from __future__ import annotations

from pathlib import Path

from facemill.errors import FacemillError
from tasks.catalogue import Data


def export(root: Path, output: Path | None = None, identity: str | None = None) -> dict[Path, float]:
    """Writes `IDENTITY.onnx` for one identity or for all.

    Args:
        root: the project's folder, with `data/model`.
        output: folder for the files; `data/export` in the project where none is given.
        identity: one that the model draws.

    Returns:
        The files, and the largest difference of each from torch, of 0…1.

    Raises:
        FacemillError: no model, an unknown identity, missing packages, or results that differ from torch.
    """
    from facemill.model_folder import load_model
    from facemill.train.export import export_onnx

    model, meta = load_model(root / Data.MODEL)
    wanted = [identity] if identity else list(meta["identities"])
    if identity and identity not in meta["identities"]:
        raise FacemillError(f"the model draws {', '.join(meta['identities'])}, not {identity!r}")
    folder = output or root / Data.EXPORT
    found: dict[Path, float] = {}
    for name in wanted:
        path = folder / f"{name}.onnx"
        found[path] = export_onnx(model, name, path)
    return found
