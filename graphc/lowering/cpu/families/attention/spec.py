"""What an attention is and how it is cut into blocks; the loops are in `kernel.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.lowering.cpu.emit import Expr, Extent, product, static
from graphc.lowering.cpu.families.dense.spec import register_rows
from graphc.lowering.cpu.features import CpuTarget

__all__ = ["AttentionSpec", "Mask", "choose_vectors", "key_block"]

_AT_ONCE = 384  # keys up to this number are one block
_KEYS = 256  # keys of a block where they are more, or of unknown number

Mask = Callable[[Sequence[Extent], Extent, bool, Extent, int], Expr]
"""``mask(batch, query, last, key, lanes)``: for ``lanes`` queries from ``query`` on (those beyond the
last one may be anything where ``last``) and one key, bool or what is added to the score."""


@dataclass(frozen=True)
class AttentionSpec:
    """What is computed.

    Attributes:
        batch: leading extents (batch and heads) that all tensors share.
        queries, keys: extents of the scores.
        depth, width: elements of a query or key, and of a value.
        scale: factor of the scores.
        causal: whether query t sees keys 0 to t only.
        dtype: element type, ``"float32"`` or ``"float64"``.
    """

    batch: tuple[Extent, ...]
    queries: Extent
    keys: Extent
    depth: int
    width: int
    scale: float
    causal: bool = False
    dtype: str = "float32"

    @property
    def flops(self) -> Extent:
        """Floating-point operations of the two products."""
        return product((*self.batch, self.queries, self.keys, 2 * (self.depth + self.width)))


def choose_vectors(spec: AttentionSpec, target: CpuTarget) -> int:
    """Vectors in a block of queries: the number whose inner loops cost least over all blocks.

    Few where a block pays for keys beyond the diagonal, or the number of queries is not known.
    """
    lanes, queries = target.lanes(spec.dtype), static(spec.queries)
    if queries is None or (spec.causal and queries > lanes):
        return 2

    def cost(vectors: int) -> float:
        rows = register_rows(target, vectors)
        return (max(rows * vectors, 8) + (rows + vectors) / 6 + 0.5) / rows

    def total(vectors: int) -> float:
        full, rest = divmod(queries, vectors * lanes)
        # A narrower last block is compiled separately.
        return full * cost(vectors) + (cost(-(-rest // lanes)) * 1.2 if rest else 0.0)

    # Four vectors of 128 scores and more leave the first-level cache.
    return min(range(1, 4 if target.vector_registers == 32 else 3), key=total)


def key_block(spec: AttentionSpec) -> int:
    """Keys whose scores are held at once."""
    known = static(spec.keys)
    return known if known is not None and known <= _AT_ONCE else _KEYS
