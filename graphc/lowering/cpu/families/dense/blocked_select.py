"""Selecting products that are multiplied block by block: `dY^T @ X` and `dY @ W` of a backward pass."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike
from graphc.ir.graph import Node
from graphc.lowering.cpu.emit import Expr, Extent, View
from graphc.lowering.cpu.families.dense.blocked import emit_blocked
from graphc.lowering.cpu.families.dense.blocked_spec import (
    BlockedSpec,
    blocked_scratch,
    choose_blocked,
)
from graphc.lowering.cpu.families.dense.select import DTYPES, operand_slots
from graphc.lowering.cpu.families.epilogue import Epilogue
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.strides import Axis, read_depth, spread
from graphc.ops import DotGeneral, Fusion

__all__ = ["select_blocked_product"]

_DEEP = 1024  # steps up to which copies of whole columns do as well


def select_blocked_product(
    fusion: Fusion, root: Node, static: frozenset[int], target: CpuTarget
) -> Kernel | None:
    """A kernel for a root that is one product of two operands of the run; None for others, and for small ones."""
    op, slots, dtype = root.op, operand_slots(fusion, root), str(root.types[0].dtype.numpy)
    assert isinstance(op, DotGeneral)
    if slots is None or static & set(slots) or root.types[0].size == 0 or dtype not in DTYPES:
        return None
    axes = read_depth(op, *(fusion.body.type_of(v) for v in root.operands))
    if axes is None:
        return None
    m, n, depth = axes
    layout = _layout(m, n, depth)
    if layout is None or not isinstance(n.extent, int):
        return None
    turned, columns = layout
    if turned and not isinstance(m.extent, int):
        return None

    def spec(io: KernelIO | None) -> BlockedSpec:
        def extent(dim: DimLike) -> Extent:
            return dim if io is None else dim_expr(dim, io.dims)

        assert isinstance(n.extent, int)
        steps = tuple(extent(k.extent) for k in depth)
        return BlockedSpec(extent(m.extent), n.extent, steps, turned, columns, dtype)

    tile = choose_blocked(spec(None), target)
    if tile is None:
        return None

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        e = epilogue.emitter

        def view(slot: int, strides: Sequence[DimLike]) -> View:
            memory = io.operands[slot]
            found = tuple(dim_expr(s, io.dims) for s in strides)
            return View(memory.buffer, memory.dtype, found, memory.offset)

        a = view(slots[0], [m.lhs, *(k.lhs for k in depth)])
        steps = [k.rhs for k in depth]
        b = view(slots[1], [n.rhs, *steps] if columns else [*steps, n.rhs])

        def position(row: Extent, column: Extent, lane: DimLike) -> list[DimLike]:
            at: list[DimLike] = [0] * root.types[0].rank
            spread(e.bound(row, 0, m.extent - 1), m, root.types[0].shape, at)
            spread(e.bound(column, 0, n.extent - 1) + lane, n, root.types[0].shape, at)
            return at

        def finish(index: Sequence[Extent], value: Expr, lanes: int) -> None:
            row, column = index
            with e.space.rewound(), e.vector(lanes) as lane:
                epilogue.store(position(row, column, lane), value)

        def fetch(row: Extent, column: Extent) -> None:
            with e.space.rewound():
                epilogue.fetch(position(row, column, 0))

        assert io.scratch is not None
        emit_blocked(spec(io), tile, a, b, finish, io.scratch, fetch, rolled=epilogue.long)

    return Kernel("blocked_product", emit, blocked_scratch(spec(None), tile), dtype)


def _layout(m: Axis, n: Axis, depth: tuple[Axis, ...]) -> tuple[bool, bool] | None:
    """Whether A is turned and whether B lies by columns; None where they lie otherwise, or other kernels do better."""
    last, single = depth[-1], len(depth) == 1
    turned = m.lhs == 1
    columns = n.rhs != 1
    if len(depth) > 2 or (not turned and not (single and last.lhs == 1)):
        return None
    if columns and not (single and last.rhs == 1):
        return None
    if columns and not turned and isinstance(last.extent, int) and last.extent <= _DEEP:
        return None
    return turned, columns
