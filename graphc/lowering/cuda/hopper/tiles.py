"""How a product is cut for warp groups: the tile of a block, the tiles in its ring, and which cut is chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.ir.dim import DimLike
from graphc.lowering.cuda.emit import PROCESSORS

__all__ = ["BAND", "GROUP", "WIDTHS", "Cut", "busy", "choose"]

WIDTHS = (32, 64, 128, 256)
"""Columns of a tile."""

GROUP = 32
"""Columns that are permuted among each other, so that a thread has eight neighbours (`graphc_map_columns`)."""

BAND = 16
"""Rows of tiles in a band: with 128 x 256, 132 tiles under way cover about as many rows as columns."""

_ROW_BYTES = 128  # of K in a step
_RING_BYTES = 224 << 10  # of 227 KB of shared memory
_MOST_STAGES = 8
_SHORT = 32  # steps of K


@dataclass(frozen=True)
class Cut:
    """A tile of m x n by `m / 64` warp groups that multiply, and one that fills the ring.

    Attributes:
        m: rows, 64 or 128.
        n: columns, one of WIDTHS.
        cluster: blocks that take tiles below each other, and bring the right operand to shared memory together.
    """

    m: int
    n: int
    cluster: int = 1

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 128 * (1 + self.m // 64)

    @property
    def sums(self) -> int:
        """Elements of the result that a multiplying thread has."""
        return self.n // 2

    @property
    def stages(self) -> int:
        """Tiles of each operand in the ring: what fits."""
        return min(_RING_BYTES // ((self.m + self.n) * _ROW_BYTES), _MOST_STAGES)

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: the ring, and a KB for its barriers."""
        return self.stages * (self.m + self.n) * _ROW_BYTES + 1024


# Cuts and how well they use the units, relative to the first: a guess from the loads per product, not a measurement.
_CUTS = (
    (Cut(128, 256), 1.0),
    (Cut(128, 128), 0.85),
    (Cut(64, 256), 0.8),
    (Cut(64, 128), 0.7),
    (Cut(128, 64), 0.65),
    (Cut(64, 64), 0.5),
    (Cut(64, 32), 0.3),
)


def choose(m: DimLike, n: DimLike, batch: DimLike) -> Cut:
    """The cut with which the slowest multiprocessor is done first; open sizes count as large."""

    def cost(entry: tuple[Cut, float]) -> float:
        cut, speed = entry
        return -(-tiles_of(cut, m, n, batch) // PROCESSORS) * cut.m * cut.n / speed

    cut = min(_CUTS, key=cost)[0]
    even = not isinstance(m, int) or -(-m // cut.m) % 2 == 0
    return replace(cut, cluster=2) if even and cut.m == 128 and cut.n >= 128 else cut


def tiles_of(cut: Cut, m: DimLike, n: DimLike, batch: DimLike) -> int:
    """How many tiles there are; open sizes count as large."""
    tiles = 1
    for size, step in ((m, cut.m), (n, cut.n), (batch, 1)):
        tiles *= -(-(size if isinstance(size, int) else 1 << 12) // step)
    return tiles


def busy(cut: Cut, m: DimLike, n: DimLike, batch: DimLike, steps: int) -> bool:
    """Whether there are tiles for a fair part of the GPU, or sums so short that it does not matter.

    Long sums of few tiles are better shared among blocks, which `products/split.py` does.
    """
    return tiles_of(cut, m, n, batch) * 4 > PROCESSORS or steps <= _SHORT
