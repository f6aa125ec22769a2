"""What selection decides for a fusion: which family emits it, how its weights are packed, what scratch it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.dim import DimLike
from graphc.lowering.packing import Packing

if TYPE_CHECKING:
    from graphc.lowering.cpu.io import KernelIO
    from graphc.lowering.cpu.program import Function
    from graphc.lowering.generic.streams import General

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A selected kernel. `emit(io)` writes its loops into the open kernel frame.

    `parts` are functions that it calls: a loop calls the kernels of its body. Their symbols follow `io.symbol`.
    `general` is a kernel that does the same for any size, slightly slower. `alike` is what it computes where that is
    more than the fusion it was selected for: the same with other numbers, which a call gives.
    """

    family: str
    emit: Callable[[KernelIO], None]
    scratch: DimLike = 0  # bytes
    scratch_dtype: str = "uint8"  # how the family sees them
    packing: Mapping[int, Packing] = field(default_factory=dict)
    parts: tuple[Function, ...] = ()
    general: tuple[Kernel, General] | None = None
    alike: General | None = None


def dim_expr(dim: DimLike, env: Mapping[str, Any]) -> Any:
    """A dimension as an int, or as an int64 expression over the variables of its named dims."""
    if isinstance(dim, int):
        return dim
    from tvm.script.ir_builder import tirx as t

    return dim.fold(
        lambda name: env[name],
        t.int64,
        lambda a, b: a + b,
        lambda a, b: a * b,
        t.floordiv,
    )
