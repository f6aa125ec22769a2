"""Convolutions as products by tiles: rows are output pixels, K runs over taps and channels, read where they lie.

Channels last, one or two spatial dimensions, one group; the filter is stored with taps and channels next to each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.lowering.cuda.emit import VECTOR_BYTES, Expr, cast, i32, i64, pure
from graphc.lowering.cuda.io import Kernel, Setting
from graphc.lowering.cuda.products import tiles
from graphc.lowering.cuda.products.dense import TileAt, matrix_loader, pack_rows, product_kernel
from graphc.lowering.cuda.products.phases import ConvolutionPhases, phases_kernel
from graphc.lowering.cuda.products.tiles import Units
from graphc.lowering.generic.strides import Axis, Product, stored_slots
from graphc.lowering.packing import Packing
from graphc.ops import ConvGeneral, Fusion, Reshape, Transpose

__all__ = ["Convolution", "read_convolution", "select_convolution"]

_FEW = 8  # features that are too few for tiles


@dataclass(frozen=True)
class Convolution:
    """A convolution that is a product.

    Attributes:
        op: what it computes.
        slots: operands of the kernel: pixels and filter.
        x, weight, result: their shapes, and the result's.
        dtype: of a stored element.
    """

    op: ConvGeneral
    slots: tuple[int, int]
    x: tuple[DimLike, ...]
    weight: tuple[int, ...]
    result: tuple[DimLike, ...]
    dtype: DType

    @property
    def depth(self) -> int:
        """Taps times channels."""
        return math.prod(self.weight[1:])

    @property
    def whole(self) -> bool:
        """Whether each output pixel is a product with one input pixel, in order."""
        plain = set(self.weight[2:]) == {1} and set(self.op.strides) == {1} and not self.spread
        return plain and not any(n for pair in self.op.padding for n in pair)

    @property
    def spread(self) -> bool:
        """Whether there are zeros between its pixels."""
        return set(self.op.lhs_dilation) != {1}

    def product(self, row: int) -> Product:
        """The product, whose filter has rows of `row` elements."""
        *pixels, features = self.result
        last = len(pixels)
        return Product(
            (),
            Axis(product(pixels), self.depth, 0, tuple(range(last))),
            Axis(features, 0, row, (last,)),
            Axis(self.depth, 1, 1),
        )

    def rows(self, b: GraphBuilder, w: Value) -> Value:
        """The filter as [features, depth]."""
        order = (0, *range(2, len(self.weight)), 1)
        return b(Reshape((self.weight[0], self.depth)), b(Transpose(order), w))

    def windows(self, at: TileAt, units: Units) -> Expr:
        """The loader of the pixels under the filter."""
        return _windows(at, self, units)


def read_convolution(fusion: Fusion, root: Node) -> Convolution | None:
    """The convolution that a root is, or None where it is not such a product."""
    op, body = root.op, fusion.body
    assert isinstance(op, ConvGeneral)
    slots = stored_slots(fusion, root)
    if slots is None or root.types[0].size == 0 or not op.channels_last or op.groups != 1:
        return None
    x, w = (body.inputs[slot].types[0] for slot in slots)
    weight = tuple(d for d in w.shape if isinstance(d, int))
    result = root.types[0].shape
    if w.dtype is not x.dtype or len(weight) != w.rank:
        return None
    if len(result) not in (3, 4) or not isinstance(result[-1], int) or result[-1] < _FEW:
        return None
    return Convolution(op, slots, x.shape, weight, result, x.dtype)


def select_convolution(fusion: Fusion, root: Node, setting: Setting) -> Kernel | None:
    """A kernel for a fusion whose root is a `conv_general`, or None when it is not such a product."""
    conv = read_convolution(fusion, root)
    units = tiles.units_of(conv.dtype, setting.precision) if conv else None
    if conv is None or units is None:
        return None
    chunk = VECTOR_BYTES // units.bytes
    if conv.spread:
        whole = conv.weight[1] % chunk == 0 and setting.alignment == VECTOR_BYTES
        if not whole or set(conv.op.strides) != {1}:
            return None
        phases = ConvolutionPhases(conv.op, conv.slots, conv.x, conv.weight, conv.result, units)
        return phases_kernel(fusion, root, phases)
    row = -(-conv.depth // units.depth) * units.depth
    shape = conv.product(row)

    def write(b: GraphBuilder, w: Value) -> Value:
        return pack_rows(b, conv.rows(b, w), row)

    def loader(at: TileAt, side: int) -> Expr:
        if side == 1 or (conv.whole and conv.depth % chunk == 0):
            return matrix_loader(at, conv.slots[side], side, shape, units, side == 1)
        return conv.windows(at, units)

    packing = {conv.slots[1]: Packing.written(f"filter/{row}", write)}
    return product_kernel(fusion, root, shape, units, loader, packing)


def _windows(at: TileAt, conv: Convolution, units: Units) -> Expr:
    e, op, channels = at.e, conv.op, conv.x[-1]
    assert isinstance(channels, int)

    def two(values: tuple[DimLike, ...], one: DimLike) -> tuple[DimLike, ...]:
        """Height and width; of one dimension, it is the width."""
        return values if len(values) == 2 else (one, *values)

    numbers = (
        *two(conv.weight[2:], 1),
        *two(op.strides, 1),
        *two(op.rhs_dilation, 1),
    )
    aligned = at.io.alignment == VECTOR_BYTES and channels * units.bytes % VECTOR_BYTES == 0
    kind = "graphc_windows" if aligned else "graphc_window_elements"
    template = ", ".join(map(str, (units.element, at.tile.m, at.tile.threads, channels, *numbers)))
    starts = two(tuple(low for low, _ in op.padding), 0)
    sizes = (*two(conv.x[1:-1], 1), *two(conv.result[1:-1], 1), *starts)
    return pure(
        f"{kind}<{template}>",
        "int32",
        at.io.operands[conv.slots[0]].address(i32(0)),
        cast(e.expr(at.first[0]), "int64"),
        i64(e.wide(product(conv.result[:-1]))),
        *(cast(e.expr(size), "int32") for size in sizes),
    )
