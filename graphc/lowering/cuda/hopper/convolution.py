"""Convolutions by warp groups: rows are output pixels, gathered by a warp group, or copied where a pixel is a row.

What `products/convolution.py` says about layouts holds. Channels that do not come in 16 bytes are left to it.
"""

from __future__ import annotations

from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.lowering.cuda.emit import VECTOR_BYTES, Expr
from graphc.lowering.cuda.hopper.kernel import warp_group_kernel
from graphc.lowering.cuda.hopper.product import (
    columns_map,
    cut_of,
    pack_groups,
    rows_map,
    units_of,
    whole,
)
from graphc.lowering.cuda.io import Kernel, Setting
from graphc.lowering.cuda.products.convolution import read_convolution
from graphc.lowering.cuda.products.dense import TileAt
from graphc.lowering.packing import Packing
from graphc.ops import Fusion

__all__ = ["select_warp_group_convolution"]


def select_warp_group_convolution(fusion: Fusion, root: Node, setting: Setting) -> Kernel | None:
    """A kernel for a fusion whose root is a `conv_general`, or None when other tiles serve it better."""
    conv = read_convolution(fusion, root)
    units = units_of(conv.dtype, setting) if conv else None
    if conv is None or units is None or conv.spread:
        return None
    if conv.weight[1] * units.bytes % VECTOR_BYTES:
        return None
    row = whole(conv.depth, units.depth)
    shape = conv.product(row)
    cut = cut_of(shape, units)
    if cut is None:
        return None

    def write(b: GraphBuilder, w: Value) -> Value:
        return pack_groups(b, conv.rows(b, w), row)

    def gather(at: TileAt) -> Expr:
        return conv.windows(at, units)

    left = rows_map(shape, conv.slots[0], units, cut) if conv.whole else gather
    right = columns_map(shape, conv.slots[1], units, cut)
    packing = {conv.slots[1]: Packing.written(f"filter_groups/{row}", write)}
    return warp_group_kernel(fusion, root, shape, units, cut, left, right, packing)
