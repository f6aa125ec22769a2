"""What a matrix product is, how it is cut into register tiles, and how its weights are packed.

The loops themselves are in :mod:`graphc.lowering.cpu.families.dense.matmul`.
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
    work_of,
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
# Weights from this size on are expected in memory, not in a cache, when their layer's turn comes.
_STREAMED_BYTES = 200_000
# Rows of A up to this size stay in the second-level cache beside two panels; more are cut into chunks.
_ROWS_BYTES = 900_000
_CHUNK_BYTES = 768 * 1024
# Rows of C from this size on lie in a page each: tiles along columns would take a page for every row of every panel.
_PAGE_BYTES = 4096
# With B of up to this size, which passes by for every few rows, that pays.
_WIDE_BYTES = 2_200_000
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
        functions: functions, such as tanh, that are computed for each result.
    """

    m: Extent
    n: Extent
    k: Extent
    batch: tuple[Extent, ...] = ()
    b: str = "packed"
    dtype: str = "float32"
    functions: int = 0

    def __post_init__(self) -> None:
        if self.b not in ("packed", "rows", "columns"):
            raise ValueError(f"layout {self.b!r} of B is not 'packed', 'rows' or 'columns'")
        if self.b == "packed" and (static(self.n) is None or static(self.k) is None):
            raise ValueError("packed weights have a static N and K")

    @property
    def flops(self) -> Extent:
        """Floating-point operations, a multiply-add counting two."""
        return product((*self.batch, self.m, self.n, self.k, 2))

    @property
    def work(self) -> Extent:
        """All arithmetic, as threads would share it."""
        return work_of(self.flops, self.functions, (*self.batch, self.m, self.n))


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
        coming: cache lines of the panel that follows to prefetch every fourth step of K, so that it is
            in the second-level cache when its turn comes; 0 for none.
        depth: steps of K of one pass over all tiles; partial sums wait in scratch memory between
            passes. The whole of K (or 0, where K is not known) is one pass without them.
    """

    mr: int
    nr: int
    lanes: int
    rows_first: bool
    row_tiles: int
    threads: bool
    ahead: int
    coming: int = 0
    depth: int = 0

    def passes(self, k: Extent) -> int:
        """How many passes a product of depth ``k`` takes."""
        known = static(k)
        return known // self.depth if known and self.depth else 1


def register_rows(target: CpuTarget, vectors: int, *, plain: bool = False) -> int:
    """Rows of a tile of ``vectors`` columns that fit the registers beside B and one broadcast.

    Where there are many registers a few stay free: a long epilogue makes LLVM spill the others. A ``plain``
    tile, whose results are stored almost as they are, leaves room for the next step's B only.
    """
    many = vectors if plain else 4
    spare = many if target.vector_registers == 32 else 1 if target.fma else 2
    return max(1, min(16, (target.vector_registers - vectors - spare) // vectors))


def _columns(spec: MatmulSpec, target: CpuTarget, lanes: int) -> int:
    """Vectors in the width of a tile: the count with the cheapest inner loops.

    The model is ``choose_conv``'s: a step of ``r`` rows by ``v`` vectors costs ``r v``
    multiply-adds and a sixth of one per load (a third of one from the second-level cache), at least eight
    (their latency), and at least six for every 64 bytes of B that come from the second-level cache.
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
        far = panel > _PANEL_BYTES
        least = max(8, 6 * vectors * target.vector_bits // 512 if far else 0)
        loads = (2 if far else 1) * vectors
        runs = near_equal_tiles(m or 96, register_rows(target, vectors))
        cost = panels * sum(
            count * (max(rows * vectors, least) + (rows + loads) / 6 + 0.5)
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

    The width is the one whose inner loops cost least, the height what the registers then hold: 8x48
    and 13x32 are typical for AVX-512, 6x16 for AVX2. Order: rows first where B stays in cache (1.3 MB)
    and there are more rows than columns to share out, too many to keep near, or long ones; else columns
    first, so that each thread reads its part of B only. Then the next panel is on its way while one is used.
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
    if m is not None and n is not None and (m < 4 * mr or (spec.b == "packed" and m <= 2 * n)):
        rows_first = False
    wide = _wide(spec, target, mr)
    rows_first = rows_first or wide
    row_tiles = 16
    if rows_first:
        deep = k is None or k * nr * item > _PANEL_BYTES
        row_tiles = 1 if deep or wide else max(1, 64 // mr)
    streamed = spec.b == "packed" and not rows_first and (weights or 0) > _STREAMED_BYTES
    depth = _depth(spec, mr, nr) if streamed else k or 0
    if m is not None:
        number = -(-m // mr)
        panels = 1 if n is None else -(-n // nr)
        if not rows_first:
            row_tiles = number
        if streamed and m * depth * item > _ROWS_BYTES:
            # Too many rows to keep beside a panel: a thread takes its own, and B passes by each time.
            rows_first, row_tiles = True, max(4, _CHUNK_BYTES // (mr * depth * item))
            pairs = -(-number // (2 * row_tiles))  # an even number of chunks
            row_tiles = -(-number // (2 * pairs))
        # Enough tasks that threads end at about the same time.
        row_tiles = max(1, min(row_tiles, number * panels // 8 or 1))
    tiles = row_tiles if m is not None or rows_first else 16
    lines = -(-4 * nr * item // 64)
    coming = -(-lines // tiles) if streamed and tiles >= 3 else 0
    return MatmulTile(
        mr=mr,
        nr=nr,
        lanes=lanes,
        rows_first=rows_first,
        row_tiles=row_tiles,
        threads=worth_threads(spec.work, product((*spec.batch, spec.n, spec.k, item))),
        ahead=16 if streamed and (m is None or (m > 2 and not coming)) else 0,
        coming=coming,
        depth=depth,
    )


def _wide(spec: MatmulSpec, target: CpuTarget, mr: int) -> bool:
    """Whether a tile's rows are followed to their end because they are long: up to 1.4 times as fast on AVX2.

    Not measured for AVX-512, whose tiles are wider and whose caches hold more.
    """
    n, m, k = static(spec.n), static(spec.m), static(spec.k)
    if target.vector_registers == 32 or spec.b != "packed" or n is None or k is None:
        return False
    item = np.dtype(spec.dtype).itemsize
    long = n * item >= _PAGE_BYTES and n * k * item <= _WIDE_BYTES
    return long and (m is None or m >= 4 * mr)


def _depth(spec: MatmulSpec, mr: int, nr: int) -> int:
    """Steps of K for which the rows of A and two panels of B fit the second-level cache."""
    k, m = static(spec.k), static(spec.m)
    assert k is not None
    item = np.dtype(spec.dtype).itemsize
    few = m is not None and m < 4 * mr
    if few or spec.batch or (min(m or 128, 192) + 2 * nr) * k * item <= _RESIDENT_BYTES:
        return k
    fitting = [d for d in range(384, 769) if k % d == 0]
    return max(fitting, default=k)


def needs_scratch(spec: MatmulSpec) -> bool:
    """Whether B must be copied before it can be read by whole vectors."""
    return spec.b == "columns" or (spec.b == "rows" and static(spec.n) is None)


def scratch_bytes(spec: MatmulSpec, target: CpuTarget) -> Extent:
    """Bytes of scratch memory that :func:`emit_matmul` needs for ``spec``; 0 for most."""
    tile = choose_matmul(spec, target)
    item = np.dtype(spec.dtype).itemsize
    if not needs_scratch(spec):
        whole = tile.passes(spec.k) == 1
        return 0 if whole else product((ceil_div(spec.n, tile.nr), spec.m, tile.nr, item))
    slots = scratch_slots(product((*spec.batch, ceil_div(spec.n, tile.nr))))
    return product((slots, spec.k + tile.mr, tile.nr, item))


def scratch_slots(tasks: Extent) -> int:
    """Regions of scratch memory for that many tasks, which is how many can run at once."""
    known = static(tasks)
    return _SLOTS if known is None else max(1, min(known, _SLOTS))
