"""What a root family's `finish` does: the rest of the fusion's body, and the store.

A family computes the root's result and hands over finished vectors. Everything after the root in the body is
evaluated there and then, in registers, and stored once, through a final pad or transpose where the body ends in one.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node
from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    View,
    along,
    bind,
    clear,
    const,
    loop,
    prefetch,
    splat,
)
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic.expr import TirEmitter
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.generic.index import Space, flatten, unflatten
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.trace import checked_nodes
from graphc.ops import Pad


class Epilogue:
    """Everything after `root` in a body, emitted element by element (or vector by vector)."""

    def __init__(self, body: Graph, root: Node, io: KernelIO, target: CpuTarget) -> None:
        self.body, self.root, self.io, self.target = body, root, io, target
        faults = {node.id: i for i, node in enumerate(checked_nodes(body))}
        self.emitter = TirEmitter(Space(body.dims), io, target, fault_ids=faults)
        self.ends = [(v, body.node(v.node)) for _, v in body.outputs]

    @property
    def long(self) -> bool:
        """Whether it computes functions, such as `exp` or random bits, that are many instructions each."""
        return functions_behind(self.body, self.root) > 0

    def _placed(self, end: Node) -> bool:
        """Whether a result is stored through its last op."""
        return end.id != self.root.id and end.op.placeable

    def finish(self, index: Sequence[Extent], value: Expr, lanes: int) -> None:
        """Evaluates and stores `lanes` elements from `index` of the root's result on; see `emit.Finish`."""
        e = self.emitter
        shape = self.root.types[0].shape
        with e.space.rewound(), e.vector(lanes) as lane:
            at: list[DimLike] = [e.bound(i, 0, d - 1) for i, d in zip(index, shape, strict=True)]
            at[-1] = at[-1] + lane
            self.store(at, value)

    def finish_run(self, index: Sequence[Extent], value: Expr, lanes: int) -> None:
        """The same for elements that may go on beyond the end of the last dimension, into the one before."""
        e = self.emitter
        shape = self.root.types[0].shape
        with e.space.rewound(), e.vector(lanes) as lane:
            at: list[DimLike] = [e.bound(i, 0, d - 1) for i, d in zip(index, shape, strict=True)]
            self.store(
                [*at[:-2], *unflatten(at[-2] * shape[-1] + at[-1] + lane, (1, shape[-1]))], value
            )

    def store(self, at: Sequence[DimLike], value: Expr) -> None:
        """The same at an index of the emitter's own, inside its current vector."""
        inliner = Inliner(self.body, self.emitter)
        (type,) = self.root.types
        if type.dtype in (DType.BF16, DType.F16):
            value = self.emitter.cast(value, type.dtype)
        inliner.give(self.root.values[0], at, value)
        results = []
        for output, end in self.ends:
            result = inliner.at(end.operands[0] if self._placed(end) else output, at)
            # All are known before one is written: it may lie over an operand that the others read.
            results.append(bind(result) if len(self.ends) > 1 else result)
        for memory, (_, end), result in zip(self.io.results, self.ends, results, strict=True):
            where = end.op.place(at) if self._placed(end) else at
            self.emitter.write(memory, flatten(where, end.types[0].shape), result)

    def fetch(self, at: Sequence[DimLike]) -> None:
        """Asks for what the body reads at an index of the root's result, so that it is near when it is stored."""
        shape = self.root.types[0].shape
        position = self.emitter.expr(flatten(at, shape))
        for node, memory in zip(self.body.inputs, self.io.operands, strict=True):
            if node.types[0].shape == shape and node.values[0] not in self.root.operands:
                flat = View(memory.buffer, memory.dtype, (1,), memory.offset)
                prefetch(flat.address((position,)))

    def fill_border(self) -> None:
        """Writes the border of a final pad, which no element of the root lands in."""
        for memory, (_, end) in zip(self.io.results, self.ends, strict=True):
            if self._placed(end) and isinstance(end.op, Pad):
                shape = [
                    d if isinstance(d, int) else self.emitter.expr(d) for d in end.types[0].shape
                ]
                fill_border(memory, shape, end.op, self.target)


def functions_behind(body: Graph, root: Node) -> int:
    """How many functions, such as `exp` or random bits, are computed for a result of a root."""
    return sum(n.op.expensive for n in body.nodes if n.id != root.id)


def fill_border(view: View, shape: Sequence[Extent], pad: Pad, target: CpuTarget) -> None:
    """Stores `pad.value` wherever a dense tensor of `shape` is border: each stretch of memory once.

    Along each dimension the border before and after the inside is one contiguous run per inside
    position of the dimensions before it.
    """
    lanes = target.lanes(view.dtype)
    flat = View(view.buffer, view.dtype, (1,), view.offset)
    dtype = "float32" if view.dtype in ("bfloat16", "float16") else view.dtype

    def run(start: Extent, length: Extent) -> None:
        if pad.value == 0:
            clear(flat, start, length)
            return
        along(
            length,
            lanes,
            lambda at, n: flat.store(splat(const(pad.value, dtype), n), (start + at,)),
        )

    def walk(dim: int, base: Extent) -> None:
        if dim == len(shape):
            return
        inner: Extent = 1
        for size in shape[dim + 1 :]:
            inner = inner * size
        low, high, size = pad.low[dim], pad.high[dim], shape[dim]
        if low:
            run(base, inner * low)
        if high:
            run(base + inner * (size - high), inner * high)
        if any((*pad.low[dim + 1 :], *pad.high[dim + 1 :])):
            # Only the first dimension can be long and empty of borders: images of a batch.
            with loop(size - low - high, parallel=dim == 0 and shape[0] != 1) as i:
                walk(dim + 1, base + (i + low) * inner)

    walk(0, 0)
