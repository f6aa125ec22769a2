"""Matrix products by tiles: a `dot_general` root whose operands are operands of the kernel.

A run-time operand is read as it lies; a right one that is known when the module is built, and lies otherwise, is stored
with K elements next to each other. Few rows are better served by a warp for each element (`generic/nest.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from graphc.ir.dim import DimLike, product
from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.lowering.cuda.emit import VECTOR_BYTES, Expr, named, pure
from graphc.lowering.cuda.emitter import CudaEmitter, divides
from graphc.lowering.cuda.epilogue import Epilogue, border
from graphc.lowering.cuda.io import Kernel, KernelIO, Stage
from graphc.lowering.cuda.products import split, tiles
from graphc.lowering.cuda.products.tiles import Tile, Units
from graphc.lowering.generic.strides import Axis, Product, read_product, spread, stored_slots
from graphc.lowering.packing import Packing
from graphc.ops import DotGeneral, Fusion, Pad, Reshape, Transpose

__all__ = ["TileAt", "batch_position", "pack_rows", "select_product", "spread_axis"]

SLOW_COLUMNS = 64
"""Columns of a panel of a tile whose K is the slow dimension: tiles have as many at least."""

_FEW = 4  # rows that are too few for tiles


def select_product(
    fusion: Fusion, root: Node, static: frozenset[int], precision: str
) -> Kernel | None:
    """A kernel for a fusion whose root is a `dot_general`, or None when it is not a product that tiles pay for."""
    op, body = root.op, fusion.body
    assert isinstance(op, DotGeneral)
    slots = stored_slots(fusion, root)
    if slots is None or root.types[0].size == 0:
        return None
    stored = [body.inputs[slot].types[0] for slot in slots]
    units = tiles.units_of(stored[0].dtype, precision)
    if units is None or stored[1].dtype is not stored[0].dtype:
        return None
    lhs, rhs = (body.type_of(v) for v in root.operands)
    shape = read_product(op, lhs, rhs)
    packed = slots[1] in static and (shape is None or not _lies_well(shape, units))
    if packed:
        shape = read_product(op, lhs, rhs, packed_rhs=True)
    if shape is None or not _pays(shape):
        return None
    packing = {}
    if packed:
        k = shape.k.extent
        if not isinstance(k, int) or any(ax.rhs != 0 for ax in shape.batch):
            return None
        row = -(-k // units.depth) * units.depth

        def write(b: GraphBuilder, x: Value) -> Value:
            order = op.rhs_free(rhs.rank) + op.rhs_contract
            n = product(rhs.shape[i] for i in op.rhs_free(rhs.rank))
            return pack_rows(b, b(Reshape((n, k)), b(Transpose(order), x)), row)

        packing[slots[1]] = Packing.written(f"rows{op.rhs_contract}/{row}", write)
        shape = Product(
            shape.batch,
            shape.m,
            Axis(shape.n.extent, 0, row, shape.n.dims),
            Axis(k, shape.k.lhs, 1),
        )

    def loader(at: TileAt, side: int) -> Expr:
        return matrix_loader(at, slots[side], side, shape, units, slots[side] in packing)

    turned = any(slow_in_chunks((shape.m, shape.n)[s], s, shape, units) for s in (0, 1))
    return product_kernel(
        fusion, root, shape, units, loader, packing, least=SLOW_COLUMNS if turned else 0
    )


def pack_rows(b: GraphBuilder, x: Value, row: int) -> Value:
    """[n, k] with zeros behind the end of each row, up to `row` elements."""
    k = b.type_of(x).shape[1]
    assert isinstance(k, int)
    if k == row:
        return x
    return b(Pad((0, 0), (0, row - k), (0, 0), 0.0), x)


def _pays(shape: Product) -> bool:
    m, n, k = (axis.extent for axis in (shape.m, shape.n, shape.k))
    if isinstance(m, int) and m <= _FEW:
        return False
    sizes = [d for d in (m, n, k) if isinstance(d, int)]
    return min(sizes, default=_FEW) >= _FEW


def _lies_well(shape: Product, units: Units) -> bool:
    """Whether rows of the right operand can be read 16 bytes at a time."""
    step = VECTOR_BYTES // units.bytes
    n, k = shape.n, shape.k
    return k.rhs == 1 and divides(step, n.rhs) and divides(step, k.extent)


@dataclass(frozen=True)
class TileAt:
    """A tile of the result inside an open kernel: its first row and column, and the position along each batch axis."""

    io: KernelIO
    e: CudaEmitter
    tile: Tile
    first: tuple[DimLike, DimLike]
    batch: tuple[DimLike, ...]


class Phases(Protocol):
    """Products of one kernel that differ in K, and in where their rows lie in the result; see `phases.py`."""

    @property
    def mean(self) -> int:
        """Steps of K, on average."""

    def steps(self, at: TileAt) -> DimLike:
        """Steps of K of the tile's product."""

    def placed(
        self, at: TileAt, row: DimLike, index: list[DimLike]
    ) -> AbstractContextManager[None]:
        """Writes the dims of the result that a row is to `index`; inside, there is such a row."""


def product_kernel(
    fusion: Fusion,
    root: Node,
    shape: Product,
    units: Units,
    loader: Callable[[TileAt, int], Expr],
    packing: dict[int, Packing],
    family: str = "matmul",
    least: int = 0,
    phases: Phases | None = None,
) -> Kernel:
    """The kernel of a root that is a product; `loader(at, side)` makes those of the left (0) and right operand.

    Tiles have at least `least` rows and columns. With `phases`, a batch axis of the product is not one of the result.
    """
    m, n = shape.m.extent, shape.n.extent
    batch = product(ax.extent for ax in shape.batch)
    steps = phases.mean if phases else (shape.k.extent + (units.depth - 1)) // units.depth
    cut = split.choose(m, n, batch, steps, units, least)
    tile, parts = cut.tile, cut.parts
    tiles_m, tiles_n = (m + (tile.m - 1)) // tile.m, (n + (tile.n - 1)) // tile.n

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io)
        e = epilogue.e
        x, y, z = io.thread.block
        block, number = e.bound(x, 0, tiles_m * tiles_n - 1), e.bound(y, 0, batch - 1)
        down = e.bound(e.expr(block % tiles_m), 0, tiles_m - 1)
        across = e.bound(e.expr(block // tiles_m), 0, tiles_n - 1)
        indices = tuple(batch_position(e, number, shape.batch))
        here = TileAt(io, e, tile, (down * tile.m, across * tile.n), indices)
        at: list[DimLike] = [0] * root.types[0].rank
        for axis, index in zip(shape.batch, indices, strict=True):
            spread_axis(e, index, axis, root, at)

        def store(row: DimLike, columns: Sequence[DimLike], values: Sequence[Expr]) -> None:
            if phases is None:
                spread_axis(e, row, shape.m, root, at)
                keep(columns, values)
                return
            with phases.placed(here, row, at):
                keep(columns, values)

        def keep(columns: Sequence[DimLike], values: Sequence[Expr]) -> None:
            places = []
            for column in columns:
                place = list(at)
                spread(column, shape.n, root.types[0].shape, place)
                places.append(place)
            if parts == 1:
                epilogue.store_run(places, [named(v) for v in values])
                return
            assert io.scratch is not None
            for place, value in zip(places, values, strict=True):
                split.kept(e, io.scratch, root, part, place, value)

        loaders = loader(here, 0), loader(here, 1)
        count = phases.steps(here) if phases else steps
        part: DimLike = 0
        if parts > 1:
            part = e.bound(z, 0, parts - 1)
            loaders, count = split.part_of(e, part, parts, loaders, count)
        tiles.emit(e, io, units, tile, loaders, count, here.first, (m, n), store)

    stages = [Stage(emit, (tiles_m * tiles_n, batch, parts), tile.threads, tile.shared_bytes)]
    if parts > 1:
        stages.append(split.added(fusion.body, root, parts))
    scratch = root.types[0].size * 4 * parts if parts > 1 else 0
    return Kernel(family, (*border(fusion.body, root), *stages), scratch, packing)


def spread_axis(
    e: CudaEmitter, position: DimLike, axis: Axis, root: Node, at: list[DimLike]
) -> None:
    """Writes a merged axis' position to the result dims it stands for, each named once."""
    spread(position, axis, root.types[0].shape, at)
    if len(axis.dims) > 1:
        for d in axis.dims:
            at[d] = e.bound(e.expr(at[d]), 0, root.types[0].shape[d] - 1)


def batch_position(e: CudaEmitter, number: DimLike, axes: Sequence[Axis]) -> list[DimLike]:
    """The position along each batch axis."""
    found: list[DimLike] = []
    rest = number
    for n in reversed(range(len(axes))):
        size = axes[n].extent
        if n == 0:
            found.append(rest)
            break
        before = product(ax.extent for ax in axes[:n])
        found.append(e.bound(e.expr(rest % size), 0, size - 1))
        rest = e.bound(e.expr(rest // size), 0, before - 1)
    return found[::-1]


def slow_in_chunks(axis: Axis, side: int, shape: Product, units: Units) -> bool:
    """Whether an operand's K is its slow dimension and its rows come in chunks of 16 bytes of 16-bit elements."""
    *outer, stride, along = [(ax.lhs, ax.rhs)[side] for ax in (*shape.batch, axis, shape.k)]
    chunk = VECTOR_BYTES // units.bytes
    whole = all(divides(chunk, s) for s in (along, *outer, axis.extent))
    return units.bytes == 2 and stride == 1 and along != 1 and whole


def matrix_loader(
    at: TileAt, slot: int, side: int, shape: Product, units: Units, packed: bool
) -> Expr:
    """The loader of an operand that is a matrix; a packed one has rows of whole steps."""
    axis, size = ((shape.m, at.tile.m), (shape.n, at.tile.n))[side]
    *outer, stride, along = [(ax.lhs, ax.rhs)[side] for ax in (*shape.batch, axis, shape.k)]
    e, first, k = at.e, at.first[side], shape.k.extent
    position: DimLike = first * stride
    for index, step in zip(at.batch, outer, strict=True):
        position = position + index * step
    base = at.io.operands[slot].address(e.expr(position))
    left = e.expr(axis.extent - first)
    chunk = VECTOR_BYTES // units.bytes
    regular = all(divides(chunk, s) for s in (stride, *outer, 0 if packed else k))
    if along == 1 and regular and at.io.alignment == VECTOR_BYTES:
        depth = e.expr((k + (units.depth - 1)) // units.depth * units.depth if packed else k)
        return tiles.rows(units, size, at.tile, base, e.expr(stride), left, depth)
    if slow_in_chunks(axis, side, shape, units) and at.io.alignment == VECTOR_BYTES:
        source = f"graphc_matrix_source<{units.element}>"
        sizes = (e.wide(along), e.wide(axis.extent - first), e.wide(k))
        return tiles.slow(units, size, at.tile, pure(source, "int32", base, *sizes), True)
    strides = e.expr(stride), e.expr(along)
    return tiles.elements(units, size, at.tile, base, strides, left, e.expr(k), along != 1)
