"""The loop over K of one register tile of a product, which all products share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.lowering.cpu.emit import (
    Extent,
    Operand,
    Registers,
    View,
    bind,
    const,
    loop,
    near,
    prefetch,
    splat,
    static,
    vector_pieces,
)
from graphc.lowering.cpu.families.dense.spec import MatmulSpec, MatmulTile

__all__ = ["ROUND", "accumulate", "clear_tile"]

ROUND = 4
"""Steps of K in one round of the loop, where something happens once a round."""
# Steps of K from which on one or two rows read B in as many streams as a round has steps.
_STREAMED_STEPS = 1024


def accumulate(
    spec: MatmulSpec,
    tile: MatmulTile,
    a: Operand,
    b: View,
    batch: Sequence[Extent],
    row: Extent,
    rows: int,
    width: int,
    b_index: Callable[[Extent, int], tuple[Extent, ...]],
    *,
    begin: Extent = 0,
    depth: Extent | None = None,
    start: Callable[[Registers], None] | None = None,
    ahead: Callable[[Extent], None] | None = None,
    between: Callable[[Extent], None] | None = None,
) -> Registers:
    """The loop over K of one register tile; ``width`` columns of B are read at ``b_index``.

    Only ``depth`` steps from ``begin`` on are taken where that is given, and ``start`` sets the
    registers to what they are added to. ``ahead(k)`` emits what else should be fetched at each step,
    ``between(i)`` what should be at the i-th round of the loop.
    """
    pieces = vector_pieces(width, tile.lanes)
    acc = Registers(rows, width, spec.dtype)
    if start is None:
        clear_tile(acc, tile)
    else:
        start(acc)

    still = (0,) * len(batch)

    def step(k: Extent) -> None:
        if tile.ahead:
            for column, _ in pieces:
                prefetch(b.address(b_index(k + tile.ahead, column)))
        if ahead is not None:
            ahead(k)
        weights, beside = b.near(b_index(k, 0)), near(a, (*batch, row, k))
        across = (0,) * (len(b.strides) - 1)
        vectors = [bind(weights.load((*across, column), lanes)) for column, lanes in pieces]
        for i in range(rows):
            scalar = bind(beside.load((*still, i, 0)))
            for (column, lanes), vector in zip(pieces, vectors, strict=True):
                acc.set(acc.get(i, column, lanes) + splat(scalar, lanes) * vector, i, column)

    steps = spec.k if depth is None else depth
    known = static(steps)
    unroll = ROUND if rows <= 2 or between is not None else 2
    if known is None:
        with loop(steps) as k:
            step(begin + k)
    elif rows <= 2 and known >= _STREAMED_STEPS:
        # Weights that are used once: memory delivers several streams faster than one.
        part = known // ROUND
        with loop(part) as k:
            for u in range(ROUND):
                step(begin + k + u * part)
        for k in range(part * ROUND, known):
            step(begin + k)
    else:
        with loop(known // unroll) as k:
            if between is not None:
                between(k)
            for u in range(unroll):
                step(begin + k * unroll + u)
        for k in range(known - known % unroll, known):
            step(begin + k)
    return acc


def clear_tile(acc: Registers, tile: MatmulTile) -> None:
    """Sets all registers of a tile to zero."""
    for i in range(acc.rows):
        for column, lanes in vector_pieces(acc.width, tile.lanes):
            acc.set(const(0.0, acc.dtype, lanes), i, column)
