"""Products whose depth is the slow dimension of both operands: the gradients of matrix weights, `dY^T @ X`.

They are weight gradients of convolutions with one tap, the rows of a batch being the pixels, and take the same loops:
blocks of depth stay in cache while all tiles go over them.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike
from graphc.ir.graph import Node
from graphc.lowering.cpu.emit import Expr, Extent, View
from graphc.lowering.cpu.families.convolution.weight import emit_conv_weight
from graphc.lowering.cpu.families.convolution.weight_spec import (
    ConvWeightSpec,
    choose_conv_weight,
    conv_weight_scratch,
)
from graphc.lowering.cpu.families.dense.select import operand_slots
from graphc.lowering.cpu.families.epilogue import Epilogue
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.generic.strides import read_product, spread
from graphc.ops import DotGeneral, Fusion

__all__ = ["select_long_product"]

_DEPTH = 192  # below, one pass over a panel of B in cache is as good
_SLIM = 4  # times as deep as wide: shared among threads along the depth


def select_long_product(
    fusion: Fusion, root: Node, static: frozenset[int], target: CpuTarget
) -> Kernel | None:
    """A kernel for a root that is a product of two operands read row by row, of many rows; None for others."""
    op, slots, dtype = root.op, operand_slots(fusion, root), str(root.types[0].dtype.numpy)
    assert isinstance(op, DotGeneral)
    if slots is None or static & set(slots) or root.types[0].size == 0:
        return None
    product = read_product(op, *(fusion.body.type_of(v) for v in root.operands))
    if product is None:
        return None
    m, n, k = product.m, product.n, product.k
    if any(axis.extent != 1 for axis in product.batch) or dtype != "float32":
        return None
    if not (isinstance(m.extent, int) and isinstance(n.extent, int)) or m.lhs != 1 or n.rhs != 1:
        return None
    if isinstance(k.extent, int) and not _is_long(k.extent, m.extent, n.extent):
        return None
    rows, columns = m.extent, n.extent
    lines, line = _lines(k.extent)

    def spec(lines: Extent) -> ConvWeightSpec:
        one = (1, 1) if isinstance(lines, int) else (1,)
        output = (lines, line) if isinstance(lines, int) else (1,)
        batch = 1 if isinstance(lines, int) else lines
        return ConvWeightSpec(batch, output, columns, rows, one, one, one, 1, dtype)

    tile = choose_conv_weight(spec(lines), target)

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io, target)
        epilogue.fill_border()
        e = epilogue.emitter

        class Stores:
            """Positions in the result."""

            def run(self, feature: Extent, entry: Extent, value: Expr, lanes: int) -> None:
                with e.space.rewound(), e.vector(lanes) as lane:
                    across = e.bound(entry, 0, columns - 1) + lane
                    epilogue.store(place(e.bound(feature, 0, rows - 1), across), value)

            def across(
                self,
                feature: Extent,
                row: Extent,
                taps: Sequence[Extent],
                value: Expr,
                lanes: int,
            ) -> None:
                with e.space.rewound(), e.vector(lanes) as lane:
                    down = e.bound(feature, 0, rows - 1) + lane
                    epilogue.store(place(down, e.bound(row, 0, columns - 1)), value)

            def fetch(self, feature: Extent, entry: Extent) -> None:
                with e.space.rewound():
                    down, across = e.bound(feature, 0, rows - 1), e.bound(entry, 0, columns - 1)
                    epilogue.fetch(place(down, across))

        def place(row: DimLike, column: DimLike) -> list[DimLike]:
            at: list[DimLike] = [0] * root.types[0].rank
            spread(row, m, root.types[0].shape, at)
            spread(column, n, root.types[0].shape, at)
            return at

        def view(slot: int, stride: DimLike) -> View:
            memory, step = io.operands[slot], dim_expr(stride, io.dims)
            strides = (0, line * step, step, 1) if isinstance(lines, int) else (step, 0, 1)
            return View(memory.buffer, memory.dtype, strides, memory.offset)

        x, dy = view(slots[1], k.rhs), view(slots[0], k.lhs)
        count = lines if isinstance(lines, int) else dim_expr(lines, io.dims)
        emit_conv_weight(spec(count), tile, x, dy, Stores(), io.scratch)

    return Kernel("long_product", emit, conv_weight_scratch(spec(lines), tile), dtype)


def _is_long(k: int, m: int, n: int) -> bool:
    return k >= _DEPTH or k >= _SLIM * max(m, n)


def _lines(depth: DimLike) -> tuple[DimLike, int]:
    """The depth as lines of rows; a depth of unknown size is lines of one row."""
    if not isinstance(depth, int):
        return depth, 1
    line = next(size for size in range(min(depth, 64), 0, -1) if depth % size == 0)
    return depth // line, line
