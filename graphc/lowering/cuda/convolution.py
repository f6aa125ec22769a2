"""Convolutions as products by tiles: rows are output pixels, K runs over taps and channels, read where they lie.

Channels last, one or two spatial dimensions, one group; the filter is stored with taps and channels next to each other.
"""

from __future__ import annotations

from graphc.ir.dim import DimLike, product
from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.lowering.cuda import tiles
from graphc.lowering.cuda.dense import TileAt, matrix_loader, pack_rows, product_kernel
from graphc.lowering.cuda.emit import VECTOR_BYTES, Expr, cast, i32, i64, pure
from graphc.lowering.cuda.io import Kernel
from graphc.lowering.cuda.tiles import Units
from graphc.lowering.generic.strides import Axis, Product, stored_slots
from graphc.lowering.packing import Packing
from graphc.ops import ConvGeneral, Fusion, Reshape, Transpose

__all__ = ["select_convolution"]

_FEW = 8  # features that are too few for tiles


def select_convolution(
    fusion: Fusion, root: Node, precision: str, alignment: int = VECTOR_BYTES
) -> Kernel | None:
    """A kernel for a fusion whose root is a `conv_general`, or None when it is not such a product.

    `alignment` is that of operands, in bytes.
    """
    op, body = root.op, fusion.body
    assert isinstance(op, ConvGeneral)
    slots = stored_slots(fusion, root)
    if slots is None or root.types[0].size == 0 or not op.channels_last or op.groups != 1:
        return None
    stored = [body.inputs[slot].types[0] for slot in slots]
    units = tiles.units_of(stored[0].dtype, precision)
    if units is None or stored[1].dtype is not stored[0].dtype:
        return None
    weight = stored[1].shape
    *pixels, features = root.types[0].shape
    if len(pixels) not in (2, 3) or not all(isinstance(d, int) for d in weight):
        return None
    if not isinstance(features, int) or features < _FEW:
        return None
    depth = product(weight[1:])
    assert isinstance(depth, int)
    row = -(-depth // units.depth) * units.depth
    dims = tuple(range(len(pixels)))
    shape = Product(
        (),
        Axis(product(pixels), depth, 0, dims),
        Axis(features, 0, row, (len(pixels),)),
        Axis(depth, 1, 1),
    )

    def write(b: GraphBuilder, w: Value) -> Value:
        order = (0, *range(2, len(weight)), 1)
        return pack_rows(b, b(Reshape((features, depth)), b(Transpose(order), w)), row)

    chunk = VECTOR_BYTES // units.bytes
    spread = set(op.lhs_dilation) != {1}
    if spread and (weight[1] % chunk or alignment != VECTOR_BYTES):
        return None
    plain = set(weight[2:]) == {1} and set(op.strides) == {1} and not spread
    whole = plain and not any(n for pair in op.padding for n in pair)

    def loader(at: TileAt, side: int) -> Expr:
        if side == 1 or (whole and depth % chunk == 0):
            return matrix_loader(at, slots[side], side, shape, units, side == 1)
        return _windows(at, slots[0], op, stored[0].shape, root.types[0].shape, weight, units)

    packing = {slots[1]: Packing.written(f"filter/{row}", write)}
    return product_kernel(fusion, root, shape, units, loader, packing)


def _windows(
    at: TileAt,
    slot: int,
    op: ConvGeneral,
    x: tuple[DimLike, ...],
    result: tuple[DimLike, ...],
    weight: tuple[DimLike, ...],
    units: Units,
) -> Expr:
    """The loader of the pixels under the filter."""
    e, channels = at.e, x[-1]
    assert isinstance(channels, int)

    def two(values: tuple[DimLike, ...], one: DimLike) -> tuple[DimLike, ...]:
        """Height and width; of one dimension, it is the width."""
        return values if len(values) == 2 else (one, *values)

    numbers = (
        *two(weight[2:], 1),
        *two(op.strides, 1),
        *two(op.rhs_dilation, 1),
    )
    aligned = at.io.alignment == VECTOR_BYTES and channels * units.bytes % VECTOR_BYTES == 0
    kind = "graphc_windows" if aligned else "graphc_window_elements"
    if set(op.lhs_dilation) != {1}:
        kind, numbers = "graphc_spread_windows", (*numbers, *two(op.lhs_dilation, 1))
    template = ", ".join(map(str, (units.element, at.tile.m, at.tile.threads, channels, *numbers)))
    starts = two(tuple(low for low, _ in op.padding), 0)
    sizes = (*two(x[1:-1], 1), *two(result[1:-1], 1), *starts)
    return pure(
        f"{kind}<{template}>",
        "int32",
        at.io.operands[slot].address(i32(0)),
        cast(e.expr(at.first[0]), "int64"),
        i64(e.wide(product(result[:-1]))),
        *(cast(e.expr(size), "int32") for size in sizes),
    )
