"""What a matrix product is, how it is cut into register tiles, and how its weights are packed.

The loops themselves are in :mod:`graphc.lowering.cpu.families.matmul`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.lowering.cpu.emit import (
    Extent,
    ceil_div,
    near_equal_tiles,
    product,
    static,
    worth_threads,
)
from graphc.lowering.cpu.features import CpuTarget

__all__ = [
    "MatmulSpec",
    "MatmulTile",
    "choose_matmul",
    "needs_scratch",
    "register_rows",
    "scratch_bytes",
    "scratch_slots",
]

# Weights up to this size stay in a core's second-level cache while it walks over rows.
_RESIDENT_BYTES = 1_300_000
# A panel up to this size stays in the first-level cache beside its rows of A.
_PANEL_BYTES = 24 * 1024
# Regions of scratch memory, and so the most tasks of an unpacked product that run at once.
_SLOTS = 32


@dataclass(frozen=True)
class MatmulSpec:
    """What is multiplied.

    Attributes:
        m, n, k: extents; ``n`` and ``k`` are static where ``b`` is ``"packed"``.
        batch: leading extents that all three tensors share (a View may repeat with stride 0).
        b: the layout of B, ``"packed"``, ``"rows"`` or ``"columns"``.
        dtype: element type of A, B and of the accumulation.
    """

    m: Extent
    n: Extent
    k: Extent
    batch: tuple[Extent, ...] = ()
    b: str = "packed"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.b not in ("packed", "rows", "columns"):
            raise ValueError(f"layout {self.b!r} of B is not 'packed', 'rows' or 'columns'")
        if self.b == "packed" and (static(self.n) is None or static(self.k) is None):
            raise ValueError("packed weights have a static N and K")

    @property
    def flops(self) -> Extent:
        """Floating-point operations, a multiply-add counting two."""
        return product((*self.batch, self.m, self.n, self.k, 2))


@dataclass(frozen=True)
class MatmulTile:
    """How a product is cut up.

    Attributes:
        mr, nr: rows and columns of a register tile.
        lanes: elements of one vector; divides ``nr``.
        rows_first: tasks are numbered along rows first, so that a thread keeps all of B near and its
            own rows of C; otherwise along columns first, so that it reads only its share of B.
        row_tiles: register tiles along M per task.
        threads: whether tasks are shared out among threads.
        ahead: rows of B to prefetch ahead of their use; 0 for none.
    """

    mr: int
    nr: int
    lanes: int
    rows_first: bool
    row_tiles: int
    threads: bool
    ahead: int


def register_rows(target: CpuTarget, vectors: int) -> int:
    """Rows of a tile of ``vectors`` columns that fit the registers beside B and one broadcast."""
    spare = 1 if target.fma else 2
    return max(1, min(16, (target.vector_registers - vectors - spare) // vectors))


def _columns(spec: MatmulSpec, target: CpuTarget, lanes: int) -> int:
    """Vectors in the width of a tile: the count with the cheapest inner loops.

    The model is ``choose_conv``'s: a step of ``r`` rows by ``v`` vectors costs ``r v``
    multiply-adds and a sixth of one per load, at least eight (their latency), and at least six for
    every 64 bytes of B that come from the second-level cache.
    """
    n, m = static(spec.n), static(spec.m)
    k = static(spec.k) or 256
    widest = 4 if target.vector_registers == 32 else 3
    if n is None:
        return 4 if target.vector_registers == 32 else 2
    if m is not None and m <= 2:
        # A few rows need many columns in flight to hide the latency of a multiply-add.
        widest = 8
    best, best_cost = 1, float("inf")
    for vectors in range(widest, 0, -1):
        panels = -(-n // (vectors * lanes))
        panel = k * vectors * target.vector_bits // 8
        least = max(8, 6 * vectors * target.vector_bits // 512 if panel > _PANEL_BYTES else 0)
        runs = near_equal_tiles(m or 96, register_rows(target, vectors))
        cost = panels * sum(
            count * (max(rows * vectors, least) + (rows + vectors) / 6 + 0.5)
            for _, count, rows in runs
        )
        # A partial panel and a second height are compiled separately.
        cost *= 1.02 if n % (vectors * lanes) else 1.0
        cost *= 1.0 + 0.01 * (len(runs) - 1)
        # Two threads share panels badly if there are only one or three.
        shared = m is not None and 2 < m <= 16 and n > 4 * lanes
        cost *= 1.1 if shared and panels in (1, 3) else 1.0
        if cost < best_cost:
            best, best_cost = vectors, cost
    return best


def choose_matmul(spec: MatmulSpec, target: CpuTarget) -> MatmulTile:
    """The tile for a product, by rules found by measuring (see ``benchmarks/NOTES.md``).

    The width is the one whose inner loops cost least, the height what the registers then hold: 6x64
    and 14x32 are typical for AVX-512, 6x16 for AVX2. Order: rows first while B stays in cache
    (1.3 MB), else columns first. B is prefetched if it comes from memory.
    """
    n, m, k = static(spec.n), static(spec.m), static(spec.k)
    lanes = target.lanes(spec.dtype)
    if n is not None:
        while lanes > 1 and lanes // 2 >= n:
            lanes //= 2
    vectors = _columns(spec, target, lanes)
    nr = vectors * lanes
    mr = register_rows(target, vectors)
    item = np.dtype(spec.dtype).itemsize
    weights = None if n is None or k is None else n * k * item
    rows_first = weights is not None and weights <= _RESIDENT_BYTES
    if m is not None and m < 4 * mr:
        rows_first = False
    row_tiles = 16
    if rows_first:
        row_tiles = 1 if k is None or k * nr * item > _PANEL_BYTES else max(1, 64 // mr)
    if m is not None:
        number = -(-m // mr)
        panels = 1 if n is None else -(-n // nr)
        if not rows_first:
            row_tiles = number
        # Enough tasks that threads end at about the same time.
        row_tiles = max(1, min(row_tiles, number * panels // 8 or 1))
    return MatmulTile(
        mr=mr,
        nr=nr,
        lanes=lanes,
        rows_first=rows_first,
        row_tiles=row_tiles,
        threads=worth_threads(spec.flops, product((*spec.batch, spec.n, spec.k, item))),
        ahead=16 if weights is not None and weights > _RESIDENT_BYTES and spec.b == "packed" else 0,
    )


def needs_scratch(spec: MatmulSpec) -> bool:
    """Whether B must be copied before it can be read by whole vectors."""
    return spec.b == "columns" or (spec.b == "rows" and static(spec.n) is None)


def scratch_bytes(spec: MatmulSpec, target: CpuTarget) -> Extent:
    """Bytes of scratch memory that :func:`emit_matmul` needs for ``spec``; 0 for most."""
    if not needs_scratch(spec):
        return 0
    tile = choose_matmul(spec, target)
    slots = scratch_slots(product((*spec.batch, ceil_div(spec.n, tile.nr))))
    return product((slots, spec.k + tile.mr, tile.nr, np.dtype(spec.dtype).itemsize))


def scratch_slots(tasks: Extent) -> int:
    """Regions of scratch memory for that many tasks, which is how many can run at once."""
    known = static(tasks)
    return _SLOTS if known is None else max(1, min(known, _SLOTS))
