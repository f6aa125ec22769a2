"""What a product by blocks multiplies, how it is cut into tasks, blocks and tiles, and the memory that takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphc.lowering.cpu.emit import (
    Extent,
    product,
    static,
    worth_threads,
)
from graphc.lowering.cpu.families.dense.spec import MatmulSpec, choose_matmul
from graphc.lowering.cpu.features import CpuTarget

__all__ = ["FEW_PANELS", "BlockedSpec", "BlockedTile", "blocked_scratch", "choose_blocked"]

_PANEL_BYTES = 24 * 1024  # of B, in the first-level cache
_LEAST_DEPTH = 192  # of a block, whatever its panel takes
_ONE_GO = 512  # steps up to which there is one block
_NEAR_BYTES = 256 * 1024  # of copies and sums in the second-level cache
_TYPICAL_DEPTH = 1024  # of a batch whose size only the run knows
_TYPICAL_ROWS = 512  # the same of rows
_COPY = 0.8  # of an element of an operand, in multiply-adds of vectors
_THREADS = (2, 4)  # that should share tasks evenly
_MOST_TASKS = 64
_COPIES_BYTES = 256 * 1024  # of panels of B that all rows of a task pass by
_ROWS = 64  # of a task, to make up for its copies of B
_SLOTS = 16  # tasks that run at once, at most
FEW_PANELS = 4
"""Panels of B that are copied at a time: short runs of memory come slowly."""


@dataclass(frozen=True)
class BlockedSpec:
    """What is multiplied: ``C[m, n] = sum over k of A[m, k] B[k, n]``.

    Attributes:
        m, n: extents; n is static, and m where A is turned.
        k: one or two extents, slowest first.
        turned: neighbours along m, not along the last of k, are neighbours in A.
        columns: neighbours along the last of k, not along n, are neighbours in B.
        dtype: element type of all.
    """

    m: Extent
    n: int
    k: tuple[Extent, ...]
    turned: bool
    columns: bool = False
    dtype: str = "float32"

    @property
    def depth(self) -> Extent:
        """All steps."""
        return product(self.k)

    @property
    def flops(self) -> Extent:
        """Floating-point operations, a multiply-add counting two."""
        return product((2, self.m, self.n, self.depth))


@dataclass(frozen=True)
class BlockedTile:
    """How a product is cut up.

    Attributes:
        mr, nr, lanes: rows and columns of a register tile, elements of a vector.
        block: steps of a block of depth.
        several: whether there may be more than one block.
        rows: tiles along m of a task.
        panels: panels along n of a task.
        together: panels of B that are copied before their tiles are computed.
        slots: tasks that can run at once.
    """

    mr: int
    nr: int
    lanes: int
    block: int
    several: bool
    rows: int
    panels: int
    together: int
    slots: int

    def places(self, spec: BlockedSpec) -> tuple[int, int, int]:
        """Elements of a task's copies of A and of B, and of its sums."""
        height = self.rows * self.mr
        a = self.rows * self.tile_size(spec) if spec.turned else 0
        sums = self.panels * height * self.nr if self.several else 0
        return a, self.together * self.block * self.nr, sums

    def tile_size(self, spec: BlockedSpec) -> int:
        """Elements from the copy of a tile's rows to the next: an odd number of cache lines, for different sets."""
        line = 64 // np.dtype(spec.dtype).itemsize
        return (-(-self.block * self.mr // line) | 1) * line


def choose_blocked(spec: BlockedSpec, target: CpuTarget) -> BlockedTile | None:
    """The tile for a product, or None where it is too small to make up for the copies."""
    item = np.dtype(spec.dtype).itemsize
    known, height = static(spec.depth), static(spec.m)
    few = MatmulSpec(spec.m, spec.n, min(known or 256, 256), (), "rows", spec.dtype)
    inner = choose_matmul(few, target)
    mr, nr, lanes = inner.mr, inner.nr, inner.lanes
    panels = -(-spec.n // nr)
    block = _block(known, max(_LEAST_DEPTH, _PANEL_BYTES // (nr * item)))
    if (height or _ROWS) < _ROWS or panels < 2 or block < 2 * mr or not worth_threads(spec.flops):
        return None
    several = known is None or known > block
    depth = known or _TYPICAL_DEPTH
    tiles = -(-(height or _TYPICAL_ROWS) // mr)
    best: tuple[float, int, int] | None = None
    for chunks in range(1, tiles + 1):
        rows = -(-tiles // chunks)
        if rows != tiles and (rows * mr < _ROWS or _number(tiles, rows) != chunks):
            continue
        for groups in range(1, panels + 1):
            across = -(-panels // groups)
            tasks = chunks * groups
            if _number(panels, across) != groups or tasks > _MOST_TASKS:
                continue
            m, n = rows * mr, across * nr
            cost = _cost(m, n, depth, lanes, -(-depth // block), spec.turned)
            # Copies and sums that leave the second-level cache come back from the next.
            near = (block * m * item if spec.turned else 0) + (m * n * item if several else 0)
            cost *= 1 + 0.1 * max(0.0, near / _NEAR_BYTES - 1)
            cost *= max(_number(tasks, t) * t / tasks for t in _THREADS)
            if best is None or cost * tasks < best[0]:
                best = (cost * tasks, rows, across)
    assert best is not None
    _, rows, across = best
    tasks = _number(tiles, rows) * _number(panels, across)
    slots = _SLOTS if height is None else min(_SLOTS, tasks)
    together = _together(across, 0 if several else _COPIES_BYTES // (block * nr * item))
    return BlockedTile(mr, nr, lanes, block, several, rows, across, together, slots)


def _together(panels: int, fitting: int) -> int:
    """Panels that are copied before their tiles are computed: those that fit, in whole rounds of a few."""
    if panels <= FEW_PANELS:
        return panels
    return FEW_PANELS * max(1, min(fitting // FEW_PANELS, _number(panels, FEW_PANELS)))


def _block(depth: int | None, most: int) -> int:
    """Steps of a block: all of a short depth, else a divisor of it where there is one."""
    if depth is None or depth <= _ONE_GO:
        return depth or most
    even = [size for size in range(most // 2, most + 1) if depth % size == 0]
    return max(even, default=-(-depth // -(-depth // most)))


def _cost(m: int, n: int, depth: int, lanes: int, blocks: int, turned: bool) -> float:
    """What a task of m rows and n columns takes, in multiply-adds of vectors."""
    copies = depth * (n * _COPY + m * (_COPY if turned else _COPY / 3))
    sums = m * n / lanes * 4 * (blocks - 1)
    return m * n * depth / lanes + copies + sums


def _number(count: int, size: int) -> int:
    return -(-count // size)


def blocked_scratch(spec: BlockedSpec, tile: BlockedTile) -> int:
    """Bytes of scratch memory that :func:`emit_blocked` needs."""
    return tile.slots * sum(tile.places(spec)) * np.dtype(spec.dtype).itemsize
