"""The kernel around `ring.cuh`: who fills the ring, who empties it, and which element of the result each sum is.

Blocks stay: each takes tile after tile, so that the ring fills for the next one while the results of this one are
stored. The first warp group of a block fills the ring: one thread has the TMA unit copy, or all of them gather a left
operand that no tensor map describes. The others multiply 64 rows each, evaluate what follows in the graph on their sums
(`epilogue.py`) and store eight neighbours at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Node
from graphc.lowering.cuda.dense import TileAt, batch_position, spread_axis
from graphc.lowering.cuda.emit import Array, Expr, call, cast, either, i32, loop, pure, when
from graphc.lowering.cuda.emitter import CudaEmitter, Run, divides
from graphc.lowering.cuda.epilogue import Epilogue, border
from graphc.lowering.cuda.hopper.tiles import BAND, GROUP, PROCESSORS, Cut
from graphc.lowering.cuda.io import Kernel, KernelIO, MapOf, Stage
from graphc.lowering.cuda.tiles import Tile, Units, within
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
    m, n, k = shape.m.extent, shape.n.extent, shape.k.extent
    together = cut.m * cut.cluster
    rows, columns = (m + (together - 1)) // together, (n + (cut.n - 1)) // cut.n
    total = rows * columns * product(axis.extent for axis in shape.batch)
    most = PROCESSORS // cut.cluster
    clusters = min(total, most) if isinstance(total, int) else most
    maps = (right,) if callable(left) else (right, left)
    ring = f"graphc_ring<{cut.stages}, {cut.m}, {cut.n}, {cut.cluster}>"
    band = BAND // cut.cluster
    fewer, more = _REGISTERS["gather" if callable(left) else "map"]
    steps = (k + (units.depth - 1)) // units.depth

    @contextmanager
    def tiles(e: CudaEmitter, block: DimLike) -> Iterator[_Here]:
        """The tiles of a block: of its cluster's, whose rows are those of all its blocks, those of its rank."""
        cluster = e.bound(e.expr(block // cut.cluster), 0, clusters - 1)
        rank = e.bound(e.expr(block % cut.cluster), 0, cut.cluster - 1)
        with e.serial((total - cluster + (clusters - 1)) // clusters) as turn:
            number = e.bound(e.expr(cluster + turn * clusters), 0, total - 1)
            each = e.bound(e.expr(number // (rows * columns)), 0, total - 1)
            inside = e.expr(number - each * (rows * columns)), e.expr(rows), e.expr(columns)
            arguments = [cast(value, "int32") for value in inside]
            row = pure(f"graphc_tile_row<{band}>", "int32", *arguments)
            column = pure(f"graphc_tile_column<{band}>", "int32", *arguments)
            down, across = e.bound(row, 0, rows - 1), e.bound(column, 0, columns - 1)
            batch = tuple(batch_position(e, each, shape.batch))
            done = cast(e.expr(turn * steps), "int32")
            yield _Here((down * together + rank * cut.m, across * cut.n), batch, done)

    def emit(io: KernelIO) -> None:
        epilogue = Epilogue(fusion.body, root, io)
        e = epilogue.e
        block = e.bound(io.thread.block[0], 0, clusters * cut.cluster - 1)
        arrivals = _FILLERS if callable(left) else 1
        call(f"graphc_open_ring<{ring}>", i32(arrivals))
        with either(io.thread.index < i32(_FILLERS)) as (fills, multiplies):
            with fills, e.scope():
                if cut.m == 128:
                    call(f"graphc_fewer_registers<{fewer}>")
                with tiles(e, block) as here:
                    _fill(io, e, here)
            with multiplies, e.scope():
                if cut.m == 128:
                    call(f"graphc_more_registers<{more}>")
                sums = Array(cut.sums, DType.F32)
                with tiles(e, block) as here:
                    width = f"graphc_wgmma_{units.kind}<{cut.n}>"
                    gathered = "true" if callable(left) else "false"
                    name = f"graphc_empty<{width}, {ring}, {cut.sums}, {gathered}>"
                    call(name, sums.address(i32(0)), here.done, cast(e.expr(steps), "int32"))
                    _store(io, epilogue, sums, here)
        call(f"graphc_close_ring<{ring}>")

    def _fill(io: KernelIO, e: CudaEmitter, here: _Here) -> None:
        at = [0 if s is None else here.batch[s] for s in _batch_axes(shape)]
        group = cast(e.expr(here.first[1] // GROUP), "int32")
        of_right = pure("graphc_map_columns", "int32", io.maps[0], group, _narrow(e, at[1]))
        if callable(left):
            seen = Tile(cut.m, cut.n, _FILLERS // 32, 1, cut.stages)
            name, of_left = "graphc_gather", left(TileAt(io, e, seen, here.first, here.batch))
        else:
            place = _narrow(e, here.first[0]), _narrow(e, at[0])
            name, of_left = "graphc_fill", pure("graphc_map_rows", "int32", io.maps[1], *place)
        call(f"{name}<{ring}>", of_left, of_right, here.done, _narrow(e, steps))

    def _store(io: KernelIO, epilogue: Epilogue, sums: Array, here: _Here) -> None:
        """Lane l has rows l / 4 and l / 4 + 8 of 16, and of every 32 columns the eight from 8 (l % 4) on."""
        e = epilogue.e
        at: list[DimLike] = [0] * root.types[0].rank
        for axis, index in zip(shape.batch, here.batch, strict=True):
            spread_axis(e, index, axis, root, at)
        thread = e.bound(io.thread.index - i32(_FILLERS), 0, cut.threads - _FILLERS - 1)
        lane, warp = thread % 32, thread // 32
        row0 = e.bound(e.expr(here.first[0] + warp * 16 + lane // 4), 0, m + together)
        chunk0 = e.bound(e.expr(here.first[1] // _CHUNK + lane % 4), 0, (n + cut.n) // _CHUNK)
        chunks = divides(_CHUNK, n)
        with loop(2, unroll=True) as half:
            half_ = e.bound(half, 0, 1)
            place = e.bound(e.expr(row0 + half_ * 8), 0, m + 2 * together)
            with when(within(e, place, m)), e.scope():
                spread_axis(e, e.bound(e.expr(place), 0, m - 1), shape.m, root, at)
                with loop(cut.n // GROUP, unroll=True) as group:
                    group_ = e.bound(group, 0, cut.n // GROUP - 1)
                    chunk = e.bound(e.expr(chunk0 + group_ * 4), 0, (n + 2 * cut.n) // _CHUNK)
                    # Column 4 b + j of the eight is the b-th of the pair in the j-th block of eight columns.
                    order = [
                        sums.load(e.expr((group_ * 4 + v % 4) * 4 + half_ * 2 + v // 4))
                        for v in range(_CHUNK)
                    ]
                    if chunks:
                        with when(within(e, chunk * _CHUNK, n)), e.scope():
                            _run(epilogue, at, chunk, order)
                    else:
                        for v, value in enumerate(order):
                            with when(within(e, chunk * _CHUNK + v, n)), e.scope():
                                column = e.bound(e.expr(chunk * _CHUNK + v), 0, n - 1)
                                epilogue.store(_at(at, column), value)

    def _run(epilogue: Epilogue, at: list[DimLike], chunk: DimLike, values: list[Expr]) -> None:
        e = epilogue.e
        eighth = e.bound(e.expr(chunk), 0, n // _CHUNK - 1)
        assert not isinstance(eighth, int)
        places = [_at(at, eighth * _CHUNK + v) for v in range(_CHUNK)]
        with e.neighbours(Run(eighth.names[0], _CHUNK)):
            epilogue.store_run(places, values)

    def _at(at: list[DimLike], column: DimLike) -> list[DimLike]:
        place = list(at)
        spread(column, shape.n, root.types[0].shape, place)
        return place

    blocks = clusters * cut.cluster
    stage = Stage(emit, (blocks, 1, 1), cut.threads, cut.shared_bytes, maps, cut.cluster)
    return Kernel("matmul", (*border(fusion.body, root), stage), packing=packing)


def _narrow(e: CudaEmitter, value: DimLike) -> Expr:
    return cast(e.expr(value), "int32")


def _batch_axes(shape: Product) -> tuple[int | None, int | None]:
    """Which batch axis moves the left operand, and which the right."""

    def moving(side: int) -> int | None:
        found = [i for i, axis in enumerate(shape.batch) if (axis.lhs, axis.rhs)[side] != 0]
        return found[0] if found else None

    return moving(0), moving(1)
