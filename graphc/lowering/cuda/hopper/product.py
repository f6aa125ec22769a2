"""Matrix products by warp groups: operands whose K elements are neighbours, in bf16 or f16.

A run-time operand is read as it lies; a right one that is known when the module is built is stored in whole groups of
rows. What is small, or lies otherwise, is left to `products/dense.py`.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.ir.types import TensorType
from graphc.lowering.cuda.emit import VECTOR_BYTES
from graphc.lowering.cuda.emitter import divides
from graphc.lowering.cuda.hopper.kernel import warp_group_kernel
from graphc.lowering.cuda.hopper.tiles import GROUP, Cut, busy, choose
from graphc.lowering.cuda.io import Kernel, MapOf, Setting
from graphc.lowering.cuda.products import tiles
from graphc.lowering.cuda.products.dense import pack_rows
from graphc.lowering.cuda.products.tiles import Units
from graphc.lowering.generic.strides import Axis, Product, merge, read_product, stored_slots
from graphc.lowering.packing import Packing
from graphc.ops import DotGeneral, Fusion, Pad, Reshape, Transpose

__all__ = [
    "columns_map",
    "cut_of",
    "pack_groups",
    "rows_map",
    "select_warp_group_product",
    "units_of",
]

_SWIZZLE = 128
_CHUNK = 8  # elements of 16 bytes: what a map has rows start on
_LEAST = (32, 32, 64)  # rows, columns and depth


def select_warp_group_product(
    fusion: Fusion, root: Node, static: frozenset[int], setting: Setting
) -> Kernel | None:
    """A kernel for a fusion whose root is a `dot_general`, or None when other tiles serve it better."""
    op, body = root.op, fusion.body
    assert isinstance(op, DotGeneral)
    slots = stored_slots(fusion, root)
    if slots is None or root.types[0].size == 0:
        return None
    left, right = (body.inputs[slot].types[0].dtype for slot in slots)
    units = units_of(left, setting)
    if units is None or left is not right:
        return None
    lhs, rhs = (body.type_of(v) for v in root.operands)
    shape = read_product(op, lhs, rhs)
    packing = {}
    if slots[1] in static and (shape is None or not _right_lies_well(shape)):
        shape = read_product(op, lhs, rhs, packed_rhs=True)
        if shape is None or any(axis.rhs != 0 for axis in shape.batch):
            return None
        row = whole(shape.k.extent, _CHUNK)
        packing[slots[1]] = _packing(op, rhs, row)
        shape = replace(shape, n=replace(shape.n, rhs=row), k=replace(shape.k, rhs=1))
    if shape is None or not _right_lies_well(shape, packed=bool(packing)):
        return None
    shape = replace(shape, batch=_merged(shape.batch))
    cut = cut_of(shape, units) if _left_lies_well(shape) else None
    if cut is None:
        return None
    rows, columns = rows_map(shape, slots[0], units, cut), columns_map(shape, slots[1], units, cut)
    return warp_group_kernel(fusion, root, shape, units, cut, rows, columns, packing)


def units_of(dtype: DType, setting: Setting) -> Units | None:
    """What multiplies operands stored as `dtype`; None where it is not warp groups."""
    if not setting.warp_groups or setting.alignment != VECTOR_BYTES:
        return None
    units = tiles.units_of(dtype, setting.precision)
    return units if units is not None and units.bytes == 2 else None


def cut_of(shape: Product, units: Units) -> Cut | None:
    """How a product is cut; None where it is small. Open sizes count as large, but for K, which is to be known."""
    sizes = m, n, k = shape.m.extent, shape.n.extent, shape.k.extent
    if any(isinstance(d, int) and d < least for d, least in zip(sizes, _LEAST, strict=True)):
        return None
    batch = product(axis.extent for axis in shape.batch)
    cut = choose(m, n, batch)
    if not isinstance(k, int) or not busy(cut, m, n, batch, -(-k // units.depth)):
        return None
    return cut


def _right_lies_well(shape: Product, packed: bool = False) -> bool:
    """Whether a map can describe the columns as they are to come."""
    steps = (shape.n.rhs, *(axis.rhs for axis in shape.batch))
    if shape.k.rhs != 1 or not all(divides(_CHUNK, step) for step in steps):
        return False
    return packed or divides(GROUP, shape.n.extent)


def _left_lies_well(shape: Product) -> bool:
    """Whether a map can describe the rows, and each operand moves along one batch axis at most."""
    steps = (shape.m.lhs, *(axis.lhs for axis in shape.batch))
    if shape.k.lhs != 1 or not all(divides(_CHUNK, step) for step in steps):
        return False
    moving = ([axis for axis in shape.batch if side(axis) != 0] for side in (_lhs, _rhs))
    return all(len(axes) <= 1 for axes in moving)


def _lhs(axis: Axis) -> DimLike:
    return axis.lhs


def _rhs(axis: Axis) -> DimLike:
    return axis.rhs


def _merged(batch: tuple[Axis, ...]) -> tuple[Axis, ...]:
    return tuple(merge(batch)) if batch else ()


def _packing(op: DotGeneral, rhs: TensorType, row: int) -> Packing:
    """Columns as rows of `row` elements, in whole groups."""
    columns = op.rhs_free(rhs.rank)

    def write(b: GraphBuilder, x: Value) -> Value:
        n, k = (product(rhs.shape[i] for i in dims) for dims in (columns, op.rhs_contract))
        return pack_groups(b, b(Reshape((n, k)), b(Transpose(columns + op.rhs_contract), x)), row)

    return Packing.written(f"groups{op.rhs_contract}/{row}", write)


def pack_groups(b: GraphBuilder, x: Value, row: int) -> Value:
    """[n, k] with zeros behind the end of each row, up to `row` elements, and behind the last, up to a whole group."""
    n = b.type_of(x).shape[0]
    assert isinstance(n, int)
    padded = pack_rows(b, x, row)
    more = whole(n, GROUP) - n
    return b(Pad((0, 0), (more, 0), (0, 0), 0.0), padded) if more else padded


def whole(size: DimLike, step: int) -> int:
    """The next multiple."""
    assert isinstance(size, int)
    return -(-size // step) * step


def rows_map(shape: Product, slot: int, units: Units, cut: Cut) -> MapOf:
    """The left operand as `graphc_map_rows` reads it."""
    row, item = shape.m.lhs, units.bytes
    batch = next((axis for axis in shape.batch if axis.lhs != 0), Axis(1, row, 0))
    return MapOf(
        slot,
        units.kind,
        (shape.k.extent, shape.m.extent, batch.extent),
        (row * item, batch.lhs * item),
        (units.depth, cut.m, 1),
        _SWIZZLE,
    )


def columns_map(shape: Product, slot: int, units: Units, cut: Cut) -> MapOf:
    """The right operand as `graphc_map_columns` reads it."""
    row, item = shape.n.rhs, units.bytes
    batch = next((axis for axis in shape.batch if axis.rhs != 0), Axis(1, 0, row))
    groups = (shape.n.extent + (GROUP - 1)) // GROUP
    return MapOf(
        slot,
        units.kind,
        (shape.k.extent, 8, 4, groups, batch.extent),
        (4 * row * item, row * item, GROUP * row * item, batch.rhs * item),
        (units.depth, 8, 4, cut.n // GROUP // cut.cluster, 1),
        _SWIZZLE,
    )
