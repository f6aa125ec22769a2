"""Ports for tests, written as types are in files."""

from __future__ import annotations

from typing import Any

from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.types import TensorType
from graphc.train.ports import Port


def port(name: str, dtype: str, *shape: int | str | Dim, **facts: Any) -> Port:
    """`port("image", "f32", "N", 1, 8, 8)`."""
    dims = tuple(Dim.symbol(d) if isinstance(d, str) else d for d in shape)
    return Port(name, TensorType(DType(dtype), dims), **facts)


IMAGE = port("image", "f32", "N", 1, 8, 8)
LABEL = port("label", "i64", "N", target=True, classes=10)
