"""Attention's mask where it lies in memory."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Value
from graphc.lowering.cuda.emit import Expr, pure
from graphc.lowering.cuda.emitter import CudaEmitter
from graphc.lowering.cuda.io import KernelIO
from graphc.lowering.generic.operands import in_memory

__all__ = ["mask_of"]


def mask_of(
    e: CudaEmitter, io: KernelIO, body: Graph, mask: Value | None, head: Sequence[DimLike]
) -> Expr:
    """A mask that is `in_memory` as a C++ value, for one head of one batch."""
    if mask is None:
        return pure("graphc_no_mask", "int32")
    slot, strides = in_memory(body, mask) or (0, ())
    shape = body.type_of(mask).shape
    steps = [0 if size == 1 else step for size, step in zip(shape, strides, strict=True)]
    dtype = body.inputs[slot].types[0].dtype
    kind = "bool_mask" if dtype is DType.BOOL else f"added_mask<graphc_stored_{dtype}>"
    start = io.operands[slot].address(e.expr(head[0] * steps[0] + head[1] * steps[1]))
    return pure(f"graphc_{kind}", "int32", start, e.wide(steps[2]), e.wide(steps[3]))
