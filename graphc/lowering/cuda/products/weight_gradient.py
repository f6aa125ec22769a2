"""Gradients of convolutions by their weights, as products by tiles: rows are features, columns taps and channels.

K runs over the pixels of a batch, the slow dimension of both operands. It is long and the result small, so that it is
usually shared among blocks (`split.py`). Channels last, one or two spatial dimensions of known size, one group.
"""

from __future__ import annotations

from graphc.ir.dim import DimLike, product
from graphc.ir.graph import Node
from graphc.lowering.cuda.emit import VECTOR_BYTES, Expr, i32, pure
from graphc.lowering.cuda.io import Kernel
from graphc.lowering.cuda.products import tiles
from graphc.lowering.cuda.products.dense import SLOW_COLUMNS, TileAt, product_kernel
from graphc.lowering.generic.strides import Axis, Product, stored_slots
from graphc.ops import ConvWeightGradient, Fusion

__all__ = ["select_weight_gradient"]

_FEW = 8  # features, or channels times taps, that are too few for tiles
_LONGEST = 2**31 - 1  # pixels that int32 counts


def select_weight_gradient(fusion: Fusion, root: Node, precision: str) -> Kernel | None:
    """A kernel for a fusion whose root is a `conv_weight_gradient`, or None when it is not such a product."""
    op, body = root.op, fusion.body
    assert isinstance(op, ConvWeightGradient)
    slots = stored_slots(fusion, root)
    if slots is None or root.types[0].size == 0 or not op.channels_last or op.groups != 1:
        return None
    x, given = (body.inputs[slot].types[0] for slot in slots)
    units = tiles.units_of(x.dtype, precision)
    if units is None or given.dtype is not x.dtype or len(op.kernel) > 2:
        return None
    batch, *stored, features = given.shape
    borders = zip(stored, op.crop, strict=True)
    inner = tuple(size - low - high for size, (low, high) in borders)
    sizes = (*stored, features, *x.shape[1:])
    if not all(isinstance(d, int) for d in sizes):
        return None
    channels = x.shape[-1]
    assert isinstance(channels, int) and isinstance(features, int)
    columns = channels * product(op.kernel)
    assert isinstance(columns, int)
    pixels = batch * product(inner)
    if min(features, columns) < _FEW or (isinstance(pixels, int) and pixels > _LONGEST):
        return None
    rank = len(op.kernel)
    shape = Product(
        (),
        Axis(features, 1, 0, (0,)),
        Axis(columns, 0, 1, (*range(2, 2 + rank), 1)),
        Axis(pixels, 1, 1),
    )

    def two(values: tuple[DimLike, ...], one: DimLike = 1) -> tuple[DimLike, ...]:
        """Height and width; of one dimension, it is the width."""
        return values if rank == 2 else (one, *values)

    low = two(tuple(low for low, _ in op.crop), 0)
    stored_width = two(tuple(stored))[1]
    of_pixels = (*two(inner), features, *two(tuple(stored)))
    starts = two(tuple(low for low, _ in op.padding), 0)
    of_taps = (*two(inner), channels, *two(x.shape[1:-1]), *two(op.kernel), *two(op.strides))
    of_taps += (*two(op.dilation), *starts)
    per_chunk = VECTOR_BYTES // units.bytes

    def loader(at: TileAt, side: int) -> Expr:
        e, count = at.e, (features, channels)[side]
        kind, numbers = (("pixel", of_pixels), ("tap", of_taps))[side]
        skipped = (low[0] * stored_width + low[1]) * features if side == 0 else 0
        base = at.io.operands[slots[1 - side]].address(i32(e.expr(skipped)))
        template = ", ".join(map(str, (units.element, *numbers)))
        first, whole = e.wide(at.first[side]), e.wide(pixels)
        source = pure(f"graphc_{kind}_source<{template}>", "int32", base, first, whole)
        chunks = units.bytes == 2 and count % per_chunk == 0 and at.io.alignment == VECTOR_BYTES
        return tiles.slow(units, (at.tile.m, at.tile.n)[side], at.tile, source, chunks)

    return product_kernel(
        fusion, root, shape, units, loader, {}, family="conv_weight", least=SLOW_COLUMNS
    )
