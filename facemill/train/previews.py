"""Pictures of what a model can do so far: every face as itself, and as everybody else.

For two identities the columns are A, A→A, A→B, B, B→B, B→A; each row shows one face of A and one of B
that the model was not trained on, if there are any.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facemill.files import write_bytes
from facemill.nets import SwapModel
from facemill.pictures import RGB, encode_jpeg, encode_png
from facemill.train.data import FaceSet
from facemill.train.evaluate import in_parts

TILE_PX = 128
_HEADER_PX = 22
_INK, _PAPER = (40, 40, 40), 250


def preview_grid(model: SwapModel, sets: Mapping[str, FaceSet], rows: int = 6) -> RGB:
    """The picture grid, with a line of names above.

    Args:
        model: in any mode; it is left in the mode it was in.
        sets: faces of each identity, on the host or on the model's device.
        rows: faces of each identity, evenly spaced over the set.

    Returns:
        RGB uint8, (22 + rows·128) × (columns·128) × 3.
    """
    columns: dict[str, Tensor] = {}
    was_training, device = model.training, next(model.parameters(), torch.empty(0)).device
    model.eval()
    with torch.inference_mode():
        for identity, faces in sets.items():
            views = spread(faces, rows).to(device).view(model.input_px)
            columns[identity] = views
            for other in (identity, *(name for name in sets if name != identity)):
                columns[f"{identity} > {other}"] = in_parts(partial(model, identity=other), views)
    model.train(was_training)
    return np.vstack([_header(list(columns)), np.hstack([_strip(tiles) for tiles in columns.values()])])


def write_preview(path: Path, grid: RGB) -> None:
    """Writes a grid atomically, as JPEG or PNG by the ending: whoever watches never sees half a picture."""
    write_bytes(path, encode_png(grid) if path.suffix == ".png" else encode_jpeg(grid, quality=92))


def spread(faces: FaceSet, count: int) -> FaceSet:
    """`count` faces evenly spaced; a smaller set repeats its faces."""
    return faces.take(torch.linspace(0, len(faces) - 1, count).round().long())


def _strip(tiles: Tensor) -> RGB:
    """(N, 3, P, P) in 0…1 → one column of N enlarged tiles."""
    pixels = tiles.float().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return np.vstack([_enlarge(tile) for tile in pixels])


def _enlarge(tile: npt.NDArray[Any]) -> RGB:
    return np.asarray(cv2.resize(tile, (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC), np.uint8)


def _header(names: list[str]) -> RGB:
    cells = []
    for name in names:
        cell = np.full((_HEADER_PX, TILE_PX, 3), _PAPER, np.uint8)
        ascii_name = name.encode("ascii", "replace").decode()  # OpenCV's font has no other letters
        cv2.putText(cell, ascii_name, (4, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.38, _INK, 1, cv2.LINE_AA)
        cells.append(cell)
    return np.hstack(cells)
