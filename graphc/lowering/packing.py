"""How an operand of a kernel is laid out, where that is not as the graph has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import Input
from graphc.reference import interpret

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Packing:
    """How an operand is laid out for a kernel; equal `name`s mean equal layouts.

    `pack(array)` makes it when the module is built. `write(builder, value)` says the same in graph ops, for operands
    that only a run knows; a kernel without it takes build-time operands alone. `dtype` is the packed elements' (TVM's
    name), where that is not the operand's.
    """

    name: str
    pack: Callable[[Array], Array]
    write: Callable[[GraphBuilder, Value], Value] | None = None
    dtype: str | None = None

    @staticmethod
    def written(name: str, write: Callable[[GraphBuilder, Value], Value]) -> Packing:
        """The packing that graph ops say; at build time the reference interpreter carries them out."""

        def pack(array: Array) -> Array:
            b = GraphBuilder("pack")
            x = b(Input("x", DType.from_numpy(array.dtype), array.shape))
            return interpret(b.build([("packed", write(b, x))]), {"x": array}, {})["packed"]

        return Packing(name, pack, write)
