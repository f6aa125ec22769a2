"""The kernel around `ring.cuh`: who fills the ring, who empties it, and which element of the result each sum is.

Blocks stay: each takes tile after tile, so that the ring fills for the next one while the results of this one are
stored. The first warp group of a block fills the ring: one thread has the TMA unit copy, or all of them gather a left
operand that no tensor map describes. The others multiply 64 rows each, evaluate what follows in the graph on their sums
(`epilogue.py`) and store eight neighbours at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Node
from graphc.lowering.cuda.emit import (
    PROCESSORS,
    Array,
    Expr,
    call,
    cast,
    either,
    i32,
    loop,
    pure,
    when,
)
from graphc.lowering.cuda.emitter import CudaEmitter, Run, divides
from graphc.lowering.cuda.epilogue import Epilogue, border
from graphc.lowering.cuda.hopper.tiles import BAND, GROUP, Cut
from graphc.lowering.cuda.io import Kernel, KernelIO, MapOf, Stage
from graphc.lowering.cuda.products.dense import TileAt, batch_position, spread_axis
from graphc.lowering.cuda.products.tiles import Tile, Units, within
from graphc.lowering.generic.strides import Product, spread
from graphc.lowering.packing import Packing
from graphc.ops import Fusion

__all__ = ["Gather", "warp_group_kernel"]

_CHUNK = 8  # neighbouring columns of a thread
_FILLERS = 128

# Registers of a thread that fills and of one that multiplies, where two warp groups do: of 64 K in all.
_REGISTERS = {"map": (40, 232), "gather": (120, 192)}

Gather = Callable[[TileAt], Expr]
"""The loader of a left operand that all threads of a warp group copy, as `tiles.py` has them."""


@dataclass(frozen=True)
class _Here:
    """A tile of the result: its first row and column, the position along each batch axis, the steps before it."""

    first: tuple[DimLike, DimLike]
    batch: tuple[DimLike, ...]
    done: Expr


def warp_group_kernel(
    fusion: Fusion,
    root: Node,
    shape: Product,
    units: Units,
    cut: Cut,
    left: MapOf | Gather,
    right: MapOf,
    packing: Mapping[int, Packing],
) -> Kernel:
    """The kernel of a root that is a product.

    Args:
        left: a map of K, rows, batch; or what copies the rows.
        right: a map as `graphc_map_columns` reads it.
    """
    writer = _Writer(fusion, root, shape, units, cut, left if callable(left) else None)
    maps = (right,) if callable(left) else (right, left)
    blocks = writer.clusters * cut.cluster
    grid = (blocks, 1, 1)
    stage = Stage(writer.emit, grid, cut.threads, cut.shared_bytes, maps, cut.cluster)
    return Kernel("matmul", (*border(fusion.body, root), stage), packing=packing)


class _Writer:
    """Writes the kernel.

    Attributes:
        rows, columns, total: tiles of a cluster: down, across, and with all batches.
        clusters: that a launch has.
    """

    def __init__(
        self,
        fusion: Fusion,
        root: Node,
        shape: Product,
        units: Units,
        cut: Cut,
        gather: Gather | None,
    ) -> None:
        self.fusion, self.root, self.shape = fusion, root, shape
        self.units, self.cut, self.gather = units, cut, gather
        m, n, k = shape.m.extent, shape.n.extent, shape.k.extent
        self.together = cut.m * cut.cluster
        self.rows, self.columns = (
            (m + (self.together - 1)) // self.together,
            (n + (cut.n - 1)) // cut.n,
        )
        self.total = self.rows * self.columns * product(axis.extent for axis in shape.batch)
        most = PROCESSORS // cut.cluster
        self.clusters = min(self.total, most) if isinstance(self.total, int) else most
        self.steps = (k + (units.depth - 1)) // units.depth
        self.ring = f"graphc_ring<{cut.stages}, {cut.m}, {cut.n}, {cut.cluster}>"

    def emit(self, io: KernelIO) -> None:
        """The code of a thread."""
        cut, epilogue = self.cut, Epilogue(self.fusion.body, self.root, io)
        e = epilogue.e
        block = e.bound(io.thread.block[0], 0, self.clusters * cut.cluster - 1)
        fewer, more = _REGISTERS["gather" if self.gather else "map"]
        call(f"graphc_open_ring<{self.ring}>", i32(_FILLERS if self.gather else 1))
        with either(io.thread.index < i32(_FILLERS)) as (fills, multiplies):
            with fills, e.scope():
                if cut.m == 128:
                    call(f"graphc_fewer_registers<{fewer}>")
                with self._tiles(e, block) as here:
                    self._fill(io, e, here)
            with multiplies, e.scope():
                if cut.m == 128:
                    call(f"graphc_more_registers<{more}>")
                sums = Array(cut.sums, DType.F32)
                with self._tiles(e, block) as here:
                    width = f"graphc_wgmma_{self.units.kind}<{cut.n}>"
                    gathered = "true" if self.gather else "false"
                    name = f"graphc_empty<{width}, {self.ring}, {cut.sums}, {gathered}>"
                    call(name, sums.address(i32(0)), here.done, _narrow(e, self.steps))
                    self._store(io, epilogue, sums, here)
        call(f"graphc_close_ring<{self.ring}>")

    @contextmanager
    def _tiles(self, e: CudaEmitter, block: DimLike) -> Iterator[_Here]:
        """The tiles of a block: of its cluster's, whose rows are those of all its blocks, those of its rank."""
        cut, rows, columns, clusters = self.cut, self.rows, self.columns, self.clusters
        cluster = e.bound(e.expr(block // cut.cluster), 0, clusters - 1)
        rank = e.bound(e.expr(block % cut.cluster), 0, cut.cluster - 1)
        with e.serial((self.total - cluster + (clusters - 1)) // clusters) as turn:
            number = e.bound(e.expr(cluster + turn * clusters), 0, self.total - 1)
            batch = e.bound(e.expr(number // (rows * columns)), 0, self.total - 1)
            inside = (number - batch * (rows * columns), rows, columns)
            arguments = [_narrow(e, value) for value in inside]
            place = f"<{BAND // cut.cluster}>"
            down = e.bound(pure(f"graphc_tile_row{place}", "int32", *arguments), 0, rows - 1)
            across = e.bound(
                pure(f"graphc_tile_column{place}", "int32", *arguments), 0, columns - 1
            )
            yield _Here(
                (down * self.together + rank * cut.m, across * cut.n),
                tuple(batch_position(e, batch, self.shape.batch)),
                _narrow(e, turn * self.steps),
            )

    def _fill(self, io: KernelIO, e: CudaEmitter, here: _Here) -> None:
        cut = self.cut
        left, right = (_narrow(e, self._moving(side, here)) for side in range(2))
        group = _narrow(e, here.first[1] // GROUP)
        of_right = pure("graphc_map_columns", "int32", io.maps[0], group, right)
        if self.gather:
            seen = Tile(cut.m, cut.n, _FILLERS // 32, 1, cut.stages)
            name, of_left = (
                "graphc_gather",
                self.gather(TileAt(io, e, seen, here.first, here.batch)),
            )
        else:
            row = _narrow(e, here.first[0])
            name, of_left = "graphc_fill", pure("graphc_map_rows", "int32", io.maps[1], row, left)
        call(f"{name}<{self.ring}>", of_left, of_right, here.done, _narrow(e, self.steps))

    def _moving(self, side: int, here: _Here) -> DimLike:
        """The position along the batch axis that moves the left (0) or the right operand."""
        for axis, index in zip(self.shape.batch, here.batch, strict=True):
            if (axis.lhs, axis.rhs)[side] != 0:
                return index
        return 0

    def _store(self, io: KernelIO, epilogue: Epilogue, sums: Array, here: _Here) -> None:
        """Lane l has rows l / 4 and l / 4 + 8 of 16, and of every 32 columns the eight from 8 (l % 4) on."""
        e, cut, shape, root = epilogue.e, self.cut, self.shape, self.root
        m, n = shape.m.extent, shape.n.extent
        at: list[DimLike] = [0] * root.types[0].rank
        for axis, index in zip(shape.batch, here.batch, strict=True):
            spread_axis(e, index, axis, root, at)
        thread = e.bound(io.thread.index - i32(_FILLERS), 0, cut.threads - _FILLERS - 1)
        lane, warp = thread % 32, thread // 32
        row0 = e.bound(e.expr(here.first[0] + warp * 16 + lane // 4), 0, m + self.together)
        chunk0 = e.bound(e.expr(here.first[1] // _CHUNK + lane % 4), 0, (n + cut.n) // _CHUNK)
        with loop(2, unroll=True) as half:
            half_ = e.bound(half, 0, 1)
            place = e.bound(e.expr(row0 + half_ * 8), 0, m + 2 * self.together)
            with when(within(e, place, m)), e.scope():
                spread_axis(e, e.bound(e.expr(place), 0, m - 1), shape.m, root, at)
                with loop(cut.n // GROUP, unroll=True) as group:
                    group_ = e.bound(group, 0, cut.n // GROUP - 1)
                    chunk = e.bound(e.expr(chunk0 + group_ * 4), 0, (n + 2 * cut.n) // _CHUNK)
                    # Column 4 b + j of the eight is the b-th of the pair in the j-th block of eight columns.
                    values = [
                        sums.load(e.expr((group_ * 4 + v % 4) * 4 + half_ * 2 + v // 4))
                        for v in range(_CHUNK)
                    ]
                    self._store_chunk(epilogue, at, chunk, values)

    def _store_chunk(
        self, epilogue: Epilogue, at: Sequence[DimLike], chunk: DimLike, values: Sequence[Expr]
    ) -> None:
        """Eight neighbours of a row: together where the rows are whole chunks, else as far as the row goes."""
        e, n = epilogue.e, self.shape.n.extent
        if divides(_CHUNK, n):
            with when(within(e, chunk * _CHUNK, n)), e.scope():
                eighth = e.bound(e.expr(chunk), 0, n // _CHUNK - 1)
                assert not isinstance(eighth, int)
                places = [self._place(at, eighth * _CHUNK + v) for v in range(_CHUNK)]
                with e.neighbours(Run(eighth.names[0], _CHUNK)):
                    epilogue.store_run(places, values)
            return
        for v, value in enumerate(values):
            with when(within(e, chunk * _CHUNK + v, n)), e.scope():
                column = e.bound(e.expr(chunk * _CHUNK + v), 0, n - 1)
                epilogue.store(self._place(at, column), value)

    def _place(self, at: Sequence[DimLike], column: DimLike) -> list[DimLike]:
        place = list(at)
        spread(column, self.shape.n, self.root.types[0].shape, place)
        return place


def _narrow(e: CudaEmitter, value: DimLike) -> Expr:
    return cast(e.expr(value), "int32")
