"""What follows the root of a fusion: the rest of its body, element by element, and the store.

A family computes the root's result and hands over finished elements. Everything after the root in the body is evaluated
there and then, in registers, and stored once, through a final pad or transpose where the body ends in one.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node
from graphc.lowering.cuda.emit import Array, Expr, when
from graphc.lowering.cuda.emitter import CudaEmitter, divides
from graphc.lowering.cuda.io import KernelIO, Stage
from graphc.lowering.generic.index import Condition, Space, compare, flatten, unflatten
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.trace import checked_nodes
from graphc.ops import Pad

__all__ = ["Epilogue", "border"]

_THREADS = 256


def _ends(body: Graph) -> list[Node]:
    """The nodes that make the outputs."""
    return [body.node(v.node) for _, v in body.outputs]


def _placed(end: Node, root: Node) -> bool:
    """Whether a result is stored through its last op."""
    return end.id != root.id and end.op.placeable


class Epilogue:
    """Everything after `root` in a body."""

    def __init__(self, body: Graph, root: Node, io: KernelIO) -> None:
        self.body, self.root, self.io = body, root, io
        faults = {node.id: i for i, node in enumerate(checked_nodes(body))}
        self.e = CudaEmitter(Space(body.dims), io, fault_ids=faults)
        self.ends = _ends(body)

    def store(self, at: Sequence[DimLike], value: Expr) -> None:
        """Evaluates and stores one element of the root's result."""
        self.store_run([at], [value])

    def store_run(self, at: Sequence[Sequence[DimLike]], values: Sequence[Expr]) -> None:
        """The same for a few elements, which are stored together where they lie next to each other."""
        e = self.e
        found: list[list[tuple[DimLike, Expr]]] = [[] for _ in self.ends]
        with e.scope():
            for index, value in zip(at, values, strict=True):
                inliner = Inliner(self.body, e)
                (type,) = self.root.types
                if type.dtype in (DType.BF16, DType.F16):
                    value = e.cast(value, type.dtype)
                inliner.give(self.root.values[0], index, value)
                for n, (end, (_, output)) in enumerate(
                    zip(self.ends, self.body.outputs, strict=True)
                ):
                    where: Sequence[DimLike] = index
                    if _placed(end, self.root):
                        result = inliner.at(end.operands[0], index)
                        where = end.op.place(index)
                    else:
                        result = inliner.at(output, index)
                    found[n].append((flatten(where, end.types[0].shape), e.lift(result)))
            for n, elements in enumerate(found):
                self._write(n, elements)

    def _write(self, output: int, elements: Sequence[tuple[DimLike, Expr]]) -> None:
        memory, (first, _) = self.io.results[output], elements[0]
        count = len(elements)
        dense = all(place == first + j for j, (place, _) in enumerate(elements))
        if count > 1 and dense and divides(count, self.e.space.simplified(first)):
            array = Array(count, memory.dtype)
            array.store_all([value for _, value in elements])
            memory.put(self.e.expr(first), array, self.io.alignment)
            return
        for place, value in elements:
            memory.store(self.e.expr(place), value)


def border(body: Graph, root: Node) -> list[Stage]:
    """Launches that fill the border of a final pad, which no element of the root lands in."""
    stages = []
    for slot, end in enumerate(_ends(body)):
        if _placed(end, root) and isinstance(end.op, Pad):
            stages.append(_border(body, slot, end, end.op))
    return stages


def _border(body: Graph, slot: int, end: Node, pad: Pad) -> Stage:
    shape = end.types[0].shape
    total = product(shape)
    blocks = (total + (_THREADS - 1)) // _THREADS

    def emit(io: KernelIO) -> None:
        e = CudaEmitter(Space(body.dims), io)
        block = e.bound(io.thread.block[0], 0, blocks - 1)
        thread = e.bound(io.thread.index, 0, _THREADS - 1)
        place = e.bound(e.expr(block * _THREADS + thread), 0, blocks * _THREADS - 1)
        with when(e.expr(place) < e.expr(total)), e.scope():
            position = e.bound(e.expr(place), 0, total - 1)
            at = [
                e.bound(e.expr(i), 0, d - 1)
                for i, d in zip(unflatten(position, shape), shape, strict=True)
            ]
            for i, low, high, size in zip(at, pad.low, pad.high, shape, strict=True):
                for outside in (compare("lt", i, low), compare("ge", i, size - high)):
                    if isinstance(outside, Condition):
                        with when(e.condition(outside)):
                            value = e.constant(pad.value, end.types[0].dtype)
                            e.write(io.results[slot], position, value)

    return Stage(emit, (blocks, 1, 1), _THREADS)
