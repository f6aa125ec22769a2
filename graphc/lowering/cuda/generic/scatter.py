"""Adding rows at positions (`index_add`), the gradient of an embedding: a copy, then a block for each update.

Every row of the result is summed by one block in the order of the updates: same input, same bits.
"""

from __future__ import annotations

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node
from graphc.lowering.cuda.emit import Array, call, cast, const, i32, i64, when
from graphc.lowering.cuda.emitter import CudaEmitter, divides
from graphc.lowering.cuda.io import Kernel, KernelIO, Stage
from graphc.lowering.generic.index import Space, unflatten
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.strides import stored_slot
from graphc.lowering.generic.trace import checked_nodes
from graphc.ops import Convert, Fusion, IndexAdd

__all__ = ["select_scatter"]

_THREADS = 128
_SUMS = {DType.F32: "float", DType.F64: "double", DType.BF16: "float", DType.F16: "float"}
_INDICES = {DType.I64: "int64_t", DType.I32: "int"}


def select_scatter(fusion: Fusion) -> Kernel | None:
    """A kernel for a fusion that ends in an `index_add` of operands as they lie, or None for others."""
    body = fusion.body
    root = body.node(body.outputs[0][1].node)
    result = root.types[0].dtype
    if isinstance(root.op, Convert):  # to what is stored
        root = body.node(root.operands[0].node)
    if not isinstance(root.op, IndexAdd) or len(body.outputs) > 1 or 0 in root.types[0].shape:
        return None
    if not all(isinstance(n.op, IndexAdd) for n in checked_nodes(body)):
        return None
    slots = [stored_slot(body, v) for v in root.operands[1:]]
    stored = [body.inputs[slot].types[0].dtype for slot in slots if slot is not None]
    (type,) = root.types
    if len(stored) < 2 or stored[0] not in _INDICES:
        return None
    if type.dtype not in _SUMS or not {stored[1], result} <= set(_SUMS):
        return None
    (count,) = body.type_of(root.operands[1]).shape
    axis = root.op.axis
    outer, inner = product(type.shape[:axis]), product(type.shape[axis + 1 :])
    across = (inner + (_THREADS - 1)) // _THREADS

    def emit(io: KernelIO) -> None:
        e = CudaEmitter(Space(body.dims), io)
        update, piece, outside = (
            e.bound(block, 0, size - 1)
            for block, size in zip(io.thread.block, (count, across, outer), strict=True)
        )
        index = _INDICES[stored[0]]
        template = f"{_THREADS}, {index}, graphc_stored_{stored[1]}, graphc_stored_{result}, {_SUMS[type.dtype]}"
        zero = i32(0)
        call(
            f"graphc_add_rows<{template}>",
            io.results[0].address(zero),
            *(io.operands[slot].address(zero) for slot in reversed(slots) if slot is not None),
            *(e.wide(size) for size in (count, type.shape[axis], inner)),
            *(e.wide(i) for i in (update, outside, piece * _THREADS)),
            # Nothing is recorded where every position is known to be in range.
            io.results[0].address(zero) if io.fault is None else io.fault,
            i64(io.fault_base),
        )

    add = Stage(emit, (count, across, outer), _THREADS)
    return Kernel("scatter", (_copy(body, root, result), add))


def _copy(body: Graph, root: Node, result: DType) -> Stage:
    """The launch that fills the result with what is added to."""
    (type,) = root.types
    total = type.size
    run = next(r for r in (4, 2, 1) if divides(r, type.shape[-1]))
    blocks = (total // run + (_THREADS - 1)) // _THREADS
    sizes: list[DimLike] = [*type.shape[:-1], type.shape[-1] // run]

    def emit(io: KernelIO) -> None:
        e = CudaEmitter(Space(body.dims), io)
        block = e.bound(io.thread.block[0], 0, blocks - 1)
        thread = e.bound(io.thread.index, 0, _THREADS - 1)
        place = e.expr(e.bound(e.expr(block * _THREADS + thread), 0, blocks * _THREADS - 1))
        with when(place < cast(e.expr(total // run), str(place.ty.dtype))), e.scope():
            group = e.bound(place, 0, total // run - 1)
            *outer, last = (
                e.bound(e.expr(i), 0, d - 1)
                for i, d in zip(unflatten(group, sizes), sizes, strict=True)
            )
            found = Array(run, result)
            inliner = Inliner(body, e)
            for j in range(run):
                value = inliner.at(root.operands[0], (*outer, last * run + j))
                found.store(const(j, "int32"), e.lift(value))
            io.results[0].put(e.expr(group * run), found, io.alignment)

    return Stage(emit, (blocks, 1, 1), _THREADS)
