"""Selecting and emitting `attention`, with transposes in front of its operands read as strides."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Node
from graphc.lowering.cpu.emit import Expr, Extent, View, i64
from graphc.lowering.cpu.families.attention.kernel import AttentionSpec, emit_attention
from graphc.lowering.cpu.families.epilogue import Epilogue
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.inline import Inliner
from graphc.lowering.generic.operands import strided
from graphc.ops import Attention, Fusion


def select_attention(fusion: Fusion, root: Node, target: CpuTarget) -> Kernel:
    """A kernel for a fusion whose root is an `attention` that `pipeline.row_kernels` keeps."""
    op, body = root.op, fusion.body
    assert isinstance(op, Attention)
    q, k, v = (body.type_of(value) for value in root.operands[:3])
    read = [strided(body, value) for value in root.operands[:3]]
    depth, width = q.shape[3], v.shape[3]
    assert isinstance(depth, int) and isinstance(width, int)

    def emit(io: KernelIO) -> None:
        def size(dim: DimLike) -> Extent:
            return dim_expr(dim, io.dims)

        def view(slot: int, strides: Sequence[DimLike]) -> View:
            memory = io.operands[slot]
            return View(memory.buffer, memory.dtype, tuple(map(size, strides)), memory.offset)

        batch, heads, queries, keys = (size(d) for d in (*q.shape[:3], k.shape[2]))
        spec = AttentionSpec(
            (batch, heads),
            queries,
            keys,
            depth,
            width,
            op.scale,
            op.causal,
            str(q.dtype.numpy),
        )
        epilogue = Epilogue(body, root, io, target)
        mask = _Mask(epilogue, root) if len(root.operands) > 3 else None
        queried, keyed, valued = (view(slot, strides) for slot, strides in read)
        emit_attention(spec, target, queried, keyed, valued, mask, epilogue.finish)

    return Kernel("attention", emit)


class _Mask:
    """A mask's elements, computed from the kernel's operands where they are used; see `attention_spec.Mask`."""

    def __init__(self, epilogue: Epilogue, root: Node) -> None:
        self.body, self.emitter = epilogue.body, epilogue.emitter
        self.value = root.operands[3]
        self.type = self.body.type_of(self.value)
        self.result = root.types[0].shape
        self.queries, self.keys = self.result[2], self.body.type_of(root.operands[1]).shape[2]

    def __call__(
        self, batch: Sequence[Extent], query: Extent, last: bool, key: Extent, lanes: int
    ) -> Expr:
        from tvm.script.ir_builder import tirx as t

        e = self.emitter
        with e.space.rewound(), e.vector(lanes) as lane:
            if last:
                ramp = t.ramp(i64(query), i64(1), lanes) if lanes > 1 else i64(query)
                end = e.expr(self.queries - 1)
                within = t.min(ramp, t.broadcast(end, lanes) if lanes > 1 else end)
                at_query = e.wrap(within, 0, self.queries - 1)
            else:
                at_query = e.bound(query, 0, self.queries - 1) + lane
            sizes = self.result[:2]
            whole = [e.bound(i, 0, d - 1) for i, d in zip(batch, sizes, strict=True)]
            at = [*whole, at_query, e.bound(key, 0, self.keys - 1)]
            index = [0 if size == 1 else i for i, size in zip(at, self.type.shape, strict=True)]
            found = e.lift(Inliner(self.body, e).at(self.value, index))
            return e.condition(found) if self.type.dtype is DType.BOOL else found
