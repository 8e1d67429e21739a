"""A few bytes of ONNX: a model that answers constants, whatever picture it is given."""

from pathlib import Path

import numpy as np


def write_constant_model(path: Path, input_shape: tuple[int, ...], outputs: dict[str, np.ndarray]) -> None:
    """Write a model with one float input and these outputs (float32)."""
    nodes = [_bytes(1, _text(1, f"{name}_value") + _text(2, name) + _text(4, "Identity")) for name in outputs]
    values = [_bytes(5, _tensor(f"{name}_value", array)) for name, array in outputs.items()]
    shown = [_bytes(12, _value(name, array.shape)) for name, array in outputs.items()]
    graph = b"".join([*nodes, _text(2, "constants"), *values, _bytes(11, _value("input", input_shape)), *shown])
    path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_number(1, side) for side in array.shape)
    return dims + _number(2, 1) + _text(8, name) + _bytes(9, array.astype("<f4").tobytes())


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, side)) for side in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, dims)))
