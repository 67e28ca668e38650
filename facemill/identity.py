"""Whether two faces show the same person: dlib's ResNet embedding.

King 2017, "High Quality Face Recognition with Deep Metric Learning" (dlib blog): a ResNet of 29 layers, 128 numbers a
face, trained so that the same person lies within 0.6. The model is in the public domain (CC0). On LFW 98.3 % of pairs
are right at 0.6. The weights are dlib's; torch does the work (`facemill.nets.dlib_resnet`), at 10 ms for one face on a
CPU core and 6 ms in a batch, where dlib's wheel, which has no BLAS, takes 75 (`benchmarks/identity.py`).

It compares faces that the user named with each other; nothing here looks strangers up.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import dlib
import numpy as np
import numpy.typing as npt

from facemill.embeddings import DIMENSIONS

if TYPE_CHECKING:  # torch takes a second or two and 150 MB, and a stage that plans what its workers embed needs none
    from facemill.nets.dlib_resnet import DlibResNet

CHIP_PADDING = 0.25
"""Around the net's own crop, aligned by eyes and nose: what it was trained with."""
CHIPS_AT_ONCE = 32


class Embedder:
    """dlib's face recognition net, loaded once a process and device (22 MB)."""

    def __init__(self, device: str = "cpu") -> None:
        self._net, self._device = _load_net(device), device

    def embed(self, picture: npt.NDArray[np.uint8], landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """RGB uint8 H×W×3 and (N, 68, 2) landmarks -> (N, 128) float32; all N in one batch."""
        points = np.asarray(landmarks)
        if points.ndim != 3 or points.shape[1:] != (68, 2):
            raise ValueError(f"landmarks: expected (N, 68, 2), got {points.shape}")
        if len(points) == 0:
            return np.zeros((0, DIMENSIONS), np.float32)
        return self.embed_chips(face_chips(picture, points))

    def embed_chips(self, chips: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """RGB uint8 150×150×3 chips of `face_chips`, from any number of pictures -> (N, 128) float32."""
        import torch

        embedded = [np.zeros((0, DIMENSIONS), np.float32)]
        for at in range(0, len(chips), CHIPS_AT_ONCE):
            pixels = torch.from_numpy(np.stack(chips[at : at + CHIPS_AT_ONCE])).to(self._device)
            with torch.inference_mode():
                embedded.append(self._net(pixels.permute(0, 3, 1, 2).float() / 255).cpu().numpy())
        return np.concatenate(embedded)


def face_chips(picture: npt.NDArray[np.uint8], landmarks: npt.NDArray[Any]) -> list[npt.NDArray[np.uint8]]:
    """The net's aligned 150×150 crops of (N, 68, 2) landmarks."""
    from facemill.nets.dlib_resnet import CHIP_PX

    if len(landmarks) == 0:
        return []
    shapes = dlib.full_object_detections()
    for points in np.rint(landmarks).astype(int):
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        parts = dlib.points([dlib.point(x, y) for x, y in points.tolist()])
        shapes.append(dlib.full_object_detection(dlib.rectangle(left, top, right, bottom), parts))
    picture = np.ascontiguousarray(picture)
    return list(dlib.get_face_chips(picture, shapes, size=CHIP_PX, padding=CHIP_PADDING))


@lru_cache(maxsize=2)
def _load_net(device: str) -> DlibResNet:
    import torch

    from facemill.nets.dlib_resnet import load_dlib_resnet

    # permuted pixels and kernels alike lie channels last: a fifth faster on a CPU too
    net = load_dlib_resnet().to(device)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types no format alone
    return net
