"""Adding rows at positions: the gradient of an embedding.

The rows of the result are dealt to a fixed number of parts. Each part copies its rows and then goes over all positions,
adding the updates that are its own: every row is summed by one thread in the order of the updates, so that the result
is the same whatever the number of threads.
"""

from __future__ import annotations

from functools import partial

from graphc.ir.dim import Dim, DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Node
from graphc.lowering.cpu import arithmetic
from graphc.lowering.cpu.emit import bind, i64, loop, minimum_extent, when, worth_threads
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic.expr import TirEmitter
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel
from graphc.lowering.generic.index import Condition, Space, Test, flatten, unflatten
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.trace import checked_nodes
from graphc.ops import Fusion, IndexAdd

__all__ = ["kernel", "root_of"]

_PARTS = 16  # parts of the rows, and so the most tasks that run at once


def root_of(fusion: Fusion) -> Node | None:
    """The `index_add` that is the fusion's only result, if its updates and positions are operands; else None."""
    body = fusion.body
    root = body.node(body.outputs[0][1].node)
    if not isinstance(root.op, IndexAdd) or len(body.outputs) > 1 or 0 in root.types[0].shape:
        return None
    given = all(body.node(v.node).op.name == "input" for v in root.operands[1:])
    return root if given and root.types[0].dtype in (DType.F32, DType.F64) else None


def kernel(fusion: Fusion, root: Node, target: CpuTarget) -> Kernel:
    """The kernel of a fusion around `root`."""
    return Kernel("scatter", partial(_emit, fusion, root, target))


def _emit(fusion: Fusion, root: Node, target: CpuTarget, io: KernelIO) -> None:
    body, op = fusion.body, root.op
    assert isinstance(op, IndexAdd)
    (type,) = root.types
    faults = {node.id: i for i, node in enumerate(checked_nodes(body))}
    e = TirEmitter(Space(body.dims), io, target, fault_ids=faults)
    x, positions, updates = root.operands
    (count,) = body.type_of(positions).shape
    outer, inner = product(type.shape[: op.axis]), product(type.shape[op.axis + 1 :])
    rows = type.shape[op.axis]
    lanes = target.lanes(arithmetic.tir_name(type.dtype))
    widths = tuple(
        dict.fromkeys((4 * lanes, *(1 << p for p in reversed(range(lanes.bit_length())))))
    )
    share = (rows + (_PARTS - 1)) // _PARTS
    threads = not isinstance(type.nbytes, int) or worth_threads(0, 2 * type.nbytes)
    result = io.results[0]

    def copied(block: DimLike, first: DimLike, last: DimLike) -> None:
        """The part's rows of x."""
        start = (block * rows + first) * inner
        for at, width in e.stretches(start, (last - first) * inner, widths):
            with e.vector(width) as lane:
                inliner = Inliner(body, e)
                e.write(result, at + lane, inliner.at(x, unflatten(at + lane, type.shape)))

    def added(i: DimLike, row: DimLike) -> None:
        """One update, for every position of the dimensions before the axis."""
        with e.serial(outer) as block:
            source = flatten((block, i, 0), (outer, count, inner))
            target_row = flatten((block, row, 0), (outer, rows, inner))
            for at, width in e.stretches(0, inner, widths):
                with e.vector(width) as lane:
                    old = e.read(result, target_row + at + lane)
                    term = e.read(io.operands[slots[updates.node]], source + at + lane)
                    e.write(result, target_row + at + lane, arithmetic.binary("add", old, term))

    slots = {node.id: slot for slot, node in enumerate(body.inputs)}
    with loop(_PARTS, parallel=threads) as part, e.scope():
        low = bind(i64(minimum_extent(part * e.expr(share), e.expr(rows))))
        high = bind(i64(minimum_extent(low + e.expr(share), e.expr(rows))))
        first, last = e.bound(low, 0, rows), e.bound(high, 0, rows)
        room = last - first
        assert isinstance(room, Dim)
        with e.space.assuming(Condition((Test("ge", room),))), e.serial(outer) as block:
            copied(block, first, last)
        with e.serial(count) as i:
            inliner = Inliner(body, e)
            with e.evaluating(root, (0,) * len(type.shape)):
                at = e.checked_index(e.cast(inliner.at(positions, (i,)), DType.I64), rows)
            place = bind(e.expr(at))
            with when(place >= low), when(place < high), e.scope():
                added(i, e.bound(place, 0, rows - 1))
