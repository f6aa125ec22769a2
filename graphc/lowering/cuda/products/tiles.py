"""Products by tiles: what is multiplied, on which units, how it is cut, and the code around `multiply.cuh`.

A block computes a tile of the result. Loaders, which know how an operand lies, bring tiles of both operands to shared
memory several steps of K ahead; units (tensor cores, or plain ones for f32) multiply them; what follows in the graph is
evaluated on the sums in registers (`epilogue.py`). This file knows no op.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.lowering.cuda.emit import PROCESSORS, Array, Expr, call, cast, loop, pure, when
from graphc.lowering.cuda.emitter import CudaEmitter
from graphc.lowering.cuda.io import KernelIO

__all__ = [
    "Tile",
    "Units",
    "choose",
    "cost_of",
    "elements",
    "emit",
    "rows",
    "slow",
    "tiles_for",
    "units_of",
    "within",
]

ROW_BYTES = 128
"""Bytes of K in a step."""


@dataclass(frozen=True)
class Units:
    """What multiplies.

    Attributes:
        kind: `bf16`, `f16`, `tf32` on tensor cores, or `f32` on plain units.
        element: an operand's type in CUDA C.
        bytes: of an element.
    """

    kind: str
    element: str
    bytes: int

    @property
    def tensor_cores(self) -> bool:
        """Whether it is tensor cores."""
        return self.kind != "f32"

    @property
    def depth(self) -> int:
        """Elements of K in a step."""
        return ROW_BYTES // self.bytes


def units_of(dtype: DType, precision: str) -> Units | None:
    """What multiplies operands stored as `dtype`; None for types that no tiles hold."""
    if dtype in (DType.BF16, DType.F16):
        return Units(str(dtype), "ushort", 2)
    if dtype is DType.F32:
        return Units("tf32" if precision == "tf32" else "f32", "float", 4)
    return None


@dataclass(frozen=True)
class Tile:
    """How a product is cut.

    Attributes:
        m, n: rows and columns of a block's tile.
        warps_m, warps_n: how warps share it; on plain units only their product counts.
        stages: tiles of each operand in shared memory.
    """

    m: int
    n: int
    warps_m: int
    warps_n: int
    stages: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps_m * self.warps_n

    @property
    def sums(self) -> int:
        """Elements of the result that a thread has."""
        return self.m * self.n // self.threads

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block."""
        return self.stages * (self.m + self.n) * ROW_BYTES


# Tiles and how well they use the units, relative to the first: a guess from the loads per product, not a measurement.
_TILES = (
    (Tile(128, 128, 2, 4, 3), 1.0),
    (Tile(128, 64, 4, 2, 3), 0.8),
    (Tile(64, 128, 2, 4, 3), 0.8),
    (Tile(64, 64, 2, 2, 3), 0.6),
    (Tile(32, 64, 2, 2, 3), 0.4),
)
_PLAIN = (
    (Tile(128, 128, 2, 4, 3), 1.0),
    (Tile(128, 64, 2, 4, 3), 0.8),
    (Tile(64, 64, 2, 4, 3), 0.6),
    (Tile(32, 64, 2, 2, 3), 0.4),
)


def tiles_for(units: Units, least: int = 0) -> tuple[Tile, ...]:
    """The tiles of at least `least` rows and columns."""
    every = _TILES if units.tensor_cores else _PLAIN
    return tuple(tile for tile, _ in every if min(tile.m, tile.n) >= least)


def cost_of(tile: Tile, units: Units) -> float:
    """How long a step takes, in steps of the largest tile."""
    speed = dict(_TILES if units.tensor_cores else _PLAIN)[tile]
    return tile.m * tile.n / (128 * 128) / speed


def choose(m: DimLike, n: DimLike, batch: DimLike, units: Units, least: int = 0) -> Tile:
    """The tile with which the slowest multiprocessor is done first; open sizes count as large."""

    def cost(tile: Tile) -> float:
        blocks = 1
        for size, step in ((m, tile.m), (n, tile.n), (batch, 1)):
            blocks *= -(-(size if isinstance(size, int) else 1 << 12) // step)
        waves = -(-blocks // PROCESSORS)
        return waves * cost_of(tile, units)

    return min(tiles_for(units, least), key=cost)


# ------------------------------------------------------------------------------------------- loaders


def rows(
    units: Units, size: int, tile: Tile, base: Expr, stride: Expr, left: Expr, depth: Expr
) -> Expr:
    """A loader of rows whose K elements are neighbours and that all start on 16 bytes."""
    name = f"graphc_rows<{units.element}, {size}, {tile.threads}>"
    return pure(name, "int32", base, _wide(stride), _wide(left), _wide(depth))


def elements(
    units: Units,
    size: int,
    tile: Tile,
    base: Expr,
    strides: tuple[Expr, Expr],
    left: Expr,
    depth: Expr,
    along_rows: bool,
) -> Expr:
    """A loader of any matrix; `strides` are those of rows and of K."""
    along = "true" if along_rows else "false"
    name = f"graphc_elements<{units.element}, {size}, {tile.threads}, {along}>"
    return pure(name, "int32", base, *map(_wide, strides), _wide(left), _wide(depth))


def slow(units: Units, size: int, tile: Tile, source: Expr, chunks: bool) -> Expr:
    """A loader of an operand whose K is the slow dimension; in chunks of 16 bytes of 16-bit elements, or by element."""
    name = "graphc_in_chunks" if chunks else "graphc_by_element"
    return pure(f"{name}<{units.element}, {size}, {tile.threads}>", "int32", source)


def _wide(value: Expr) -> Expr:
    return cast(value, "int64")


# ------------------------------------------------------------------------------------------- code

Store = Callable[[DimLike, Sequence[DimLike], Sequence[Expr]], None]
"""`store(row, columns, values)`: a row of the result, and neighbouring columns with their sums."""


def emit(
    e: CudaEmitter,
    io: KernelIO,
    units: Units,
    tile: Tile,
    loaders: tuple[Expr, Expr],
    steps: DimLike,
    first: tuple[DimLike, DimLike],
    limits: tuple[DimLike, DimLike],
    store: Store,
) -> None:
    """Writes the loop over K and hands out the sums of the thread.

    Args:
        loaders: of the left and the right operand, as C++ values.
        steps: of K.
        first: the tile's first row and column.
        limits: the result's rows and columns.
        store: called inside loops for what lies within the limits.
    """
    sums = Array(tile.sums, DType.F32)
    if units.tensor_cores:
        which = f"graphc_on_tensor_cores<graphc_{units.kind}, {tile.m}, {tile.n}, {tile.warps_m}, {tile.warps_n}>"
    else:
        which = f"graphc_on_plain_units<{tile.m}, {tile.n}, {tile.threads}>"
    name = f"graphc_multiply<{which}, {tile.m}, {tile.n}, {tile.stages}, {tile.sums}>"
    call(name, sums.address(e.expr(0)), *loaders, cast(e.expr(steps), "int32"))
    thread = e.bound(io.thread.index, 0, tile.threads - 1)
    cells = _on_tensor_cores if units.tensor_cores else _on_plain_units
    cells(e, tile, thread, sums, first, limits, store)


def within(e: CudaEmitter, place: DimLike, limit: DimLike) -> Expr:
    """Whether a position lies below a limit."""
    return e.expr(place) < cast(e.expr(limit), str(e.expr(place).ty.dtype))


def _on_tensor_cores(
    e: CudaEmitter,
    tile: Tile,
    thread: DimLike,
    sums: Array,
    first: tuple[DimLike, DimLike],
    limits: tuple[DimLike, DimLike],
    store: Store,
) -> None:
    """Lane l has rows l / 4 and l / 4 + 8 and columns 2 (l % 4) and the next of every 16 x 8 of its warp."""
    mt, nt = tile.m // tile.warps_m // 16, tile.n // tile.warps_n // 8
    lane, warp = thread % 32, thread // 32
    m0 = warp % tile.warps_m * (tile.m // tile.warps_m) + lane // 4
    n0 = warp // tile.warps_m * (tile.n // tile.warps_n) + lane % 4 * 2
    row0 = e.bound(e.expr(first[0] + m0), 0, limits[0] + tile.m)
    column0 = e.bound(e.expr((first[1] + n0) // 2), 0, (limits[1] + tile.n) // 2)
    even = isinstance(limits[1], int) and limits[1] % 2 == 0
    with loop(mt, unroll=True) as i, loop(2, unroll=True) as half:
        i_, half_ = e.bound(i, 0, mt - 1), e.bound(half, 0, 1)
        place = e.bound(e.expr(row0 + i_ * 16 + half_ * 8), 0, limits[0] + 2 * tile.m)
        with when(within(e, place, limits[0])), e.scope():
            row = e.bound(e.expr(place), 0, limits[0] - 1)
            with loop(nt, unroll=True) as j:
                j_ = e.bound(j, 0, nt - 1)
                at = (i_ * nt + j_) * 4 + half_ * 2
                pair = e.bound(e.expr(column0 + j_ * 4), 0, (limits[1] + 2 * tile.n) // 2)
                if even:
                    with when(within(e, pair * 2, limits[1])), e.scope():
                        half_column = e.bound(e.expr(pair), 0, limits[1] // 2 - 1)
                        columns = [half_column * 2, half_column * 2 + 1]
                        store(row, columns, [sums.load(e.expr(at + v)) for v in range(2)])
                else:
                    for v in range(2):
                        with when(within(e, pair * 2 + v, limits[1])), e.scope():
                            column = e.bound(e.expr(pair * 2 + v), 0, limits[1] - 1)
                            store(row, [column], [sums.load(e.expr(at + v))])


def _on_plain_units(
    e: CudaEmitter,
    tile: Tile,
    thread: DimLike,
    sums: Array,
    first: tuple[DimLike, DimLike],
    limits: tuple[DimLike, DimLike],
    store: Store,
) -> None:
    """A thread has every 16th row, and columns as many apart as there are threads to a row."""
    across = tile.threads // 16
    mt, nt = tile.m // 16, tile.n // across
    row0 = e.bound(e.expr(first[0] + thread // across), 0, limits[0] + tile.m)
    column0 = e.bound(e.expr(first[1] + thread % across), 0, limits[1] + tile.n)
    with loop(mt, unroll=True) as i:
        i_ = e.bound(i, 0, mt - 1)
        place = e.bound(e.expr(row0 + i_ * 16), 0, limits[0] + 2 * tile.m)
        with when(within(e, place, limits[0])), e.scope():
            row = e.bound(e.expr(place), 0, limits[0] - 1)
            with loop(nt, unroll=True) as j:
                j_ = e.bound(j, 0, nt - 1)
                beside = e.bound(e.expr(column0 + j_ * across), 0, limits[1] + 2 * tile.n)
                with when(within(e, beside, limits[1])), e.scope():
                    column = e.bound(e.expr(beside), 0, limits[1] - 1)
                    store(row, [column], [sums.load(e.expr(i_ * nt + j_))])
