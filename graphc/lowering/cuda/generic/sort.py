"""Stable sorting along an axis (`arg_sort`): a block merges the positions of a row to and fro in scratch memory."""

from __future__ import annotations

from graphc.ir.dim import product
from graphc.lowering.cuda.emit import call, i32
from graphc.lowering.cuda.emitter import CudaEmitter
from graphc.lowering.cuda.io import Kernel, KernelIO, Stage
from graphc.lowering.generic.index import Space
from graphc.lowering.generic.strides import stored_slot
from graphc.ops import ArgSort, Fusion

__all__ = ["select_sort"]

_THREADS = 512


def select_sort(fusion: Fusion) -> Kernel | None:
    """The kernel of a fusion that is an `arg_sort`; None for others."""
    body = fusion.body
    root = body.node(body.outputs[0][1].node)
    if not isinstance(root.op, ArgSort) or 0 in root.types[0].shape:
        return None
    op, shape = root.op, root.types[0].shape
    slot = stored_slot(body, root.operands[0])
    assert slot is not None  # nothing is computed in front of it
    stored = body.inputs[slot].types[0].dtype
    outer, inner = product(shape[: op.axis]), product(shape[op.axis + 1 :])
    length = shape[op.axis]

    def emit(io: KernelIO) -> None:
        e = CudaEmitter(Space(body.dims), io)
        down = e.bound(io.thread.block[1], 0, outer - 1)
        across = e.bound(io.thread.block[0], 0, inner - 1)
        assert io.scratch is not None
        zero = i32(0)
        order = "true" if op.descending else "false"
        call(
            f"graphc_arg_sort<{_THREADS}, {order}, graphc_stored_{stored}>",
            io.results[0].address(zero),
            io.scratch.address(zero),
            io.operands[slot].address(zero),
            e.wide(down * length * inner + across),
            e.wide(inner),
            e.wide(down * inner + across),
            e.wide(length),
        )

    stage = Stage(emit, (inner, outer, 1), _THREADS)
    return Kernel("sort", (stage,), root.types[0].size * 16)
