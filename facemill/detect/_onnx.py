"""Reads the weights of an ONNX file, and nothing else of it.

ONNX is protobuf; the arrays lie in ModelProto.graph (field 7) .initializer (field 5) as TensorProto (dims 1, data_type
2, float_data 4, name 8, raw_data 9). Fifty lines on the wire format (protobuf.dev/programming-guides/encoding) save the
`onnx` package, and unlike a pickle nothing in the file is ever executed. Field numbers: onnx/onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facemill.errors import FacemillError

_FLOAT = 1  # TensorProto.DataType


def read_initializers(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """name -> float32 array of every float weight in the file. Raises FacemillError when it is no such file."""
    try:
        data = memoryview(path.read_bytes())
        tensors = (
            tensor
            for number, graph in _fields(data)
            if number == 7 and isinstance(graph, memoryview)
            for field, tensor in _fields(graph)
            if field == 5 and isinstance(tensor, memoryview)
        )
        arrays = dict(array for array in map(_tensor, tensors) if array is not None)
    except (OSError, IndexError, ValueError) as error:
        raise FacemillError(f"{path} cannot be read as an ONNX file ({error}). Install its package again.") from error
    if not arrays:
        raise FacemillError(f"{path} holds no weights. Install its package again.")
    return arrays


def _tensor(message: memoryview) -> tuple[str, npt.NDArray[np.float32]] | None:
    dims: list[int] = []
    name, kind = "", 0
    values: npt.NDArray[np.float32] = np.zeros(0, np.float32)
    for number, value in _fields(message):
        if number == 1:
            dims += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number in (4, 9) and isinstance(value, memoryview):
            values = np.frombuffer(value, "<f4") if len(value) % 4 == 0 else values
        elif number == 8 and isinstance(value, memoryview):
            name = bytes(value).decode()
    return (name, values.reshape(dims).astype(np.float32)) if kind == _FLOAT else None


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, integer or bytes) of one message; fixed-width fields come as their bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"wire type {wire} at byte {at}")
        size, at = _varint(message, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
        if at + size > len(message):
            raise ValueError(f"cut off at byte {len(message)}")
        yield number, message[at : at + size]
        at += size


def _packed(message: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(message):
        value, at = _varint(message, at)
        values.append(value)
    return values


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
