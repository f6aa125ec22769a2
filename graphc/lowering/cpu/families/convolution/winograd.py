"""Winograd convolution, channels last: transformed tiles, one product for each plane, results in place.

A task is a block of tiles and a panel of output channels. It multiplies the block's transformed input, which stays in
the core's second-level cache from panel to panel, by the panel's weights, plane by plane, and transforms the
products back, tile by tile, straight into the epilogue. Tasks are numbered panels fastest; a thread transforms the
input at its first task of each block. Both live in scratch memory, of which a thread keeps one region.

Where an image is no multiple of a tile, the last tiles are moved back inside: nothing outside is read, and what the
neighbour has already stored is not stored again. The mathematics is in ``winograd_spec``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Finish,
    Operand,
    View,
    bind,
    branch,
    const,
    floor_div,
    i64,
    loop,
    minimum_extent,
    prefetch,
    remainder,
    static,
    vector_pieces,
    when,
)
from graphc.lowering.cpu.families.convolution.direct import ConvSpec
from graphc.lowering.cpu.families.convolution.winograd_spec import (
    PAD,
    POINTS,
    WinogradTile,
    even_odd,
    tasks_of,
    tiles_of,
)
from graphc.lowering.cpu.families.dense.accumulate import accumulate
from graphc.lowering.cpu.families.dense.spec import MatmulSpec, MatmulTile
from graphc.lowering.cpu.sharing import slot_loop
from graphc.lowering.cpu.tiling import RowTiles, channel_blocks

__all__ = ["emit_winograd"]

Vectors = Sequence[Expr]


@dataclass(frozen=True)
class _Memory:
    """One region of scratch memory: transformed input (plane, tile, channel), products (plane, tile, column)."""

    inputs: View
    products: View


@dataclass(frozen=True)
class _Where:
    """A tile: its image, its first output, and for H and W whether it keeps all of its outputs."""

    n: Extent
    start: tuple[Extent, Extent]
    whole: tuple[Expr, Expr]
    exists: Expr | None


def emit_winograd(
    spec: ConvSpec,
    x: Operand,
    w: View,
    finish: Finish,
    scratch: View,
    *,
    tile: WinogradTile,
) -> None:
    """Emits the loops of a convolution into the open kernel.

    Args:
        spec: what is convolved; its last two dims are known, and no smaller than ``tile.m``.
        x: read at ``(n, y, x, c)``, where output ``o`` reads positions ``o``, ``o + 1`` and ``o + 2``.
        w: weights of ``pack_winograd``, indexed ``(panel, plane, channel, column)``.
        finish: receives results at index ``(n, y, x, feature)``.
        scratch: a flat view of ``spec.dtype`` with ``scratch_bytes`` bytes.
        tile: as ``choose_winograd`` makes them.
    """
    size = tile.slot(spec.channels)

    def task(slot: Extent, indices: tuple[Extent, ...], fresh: Expr) -> None:
        n, block, panel = indices
        base = scratch.offset + slot * size
        row = spec.channels + PAD
        inputs = (row, tile.n**2 * row + PAD, 1)
        products = (tile.nr, tile.n**2 * tile.nr + PAD, 1)
        memory = _Memory(
            View(scratch.buffer, spec.dtype, inputs, base),
            View(scratch.buffer, spec.dtype, products, base + tile.inputs(spec.channels)),
        )
        with when(fresh), loop(tile.block) as i:
            _transform_input(spec, tile, x, memory, _locate(spec, tile, n, block, i), i)
        _multiply(spec, tile, memory, w, panel)
        with loop(tile.block) as i:
            _transform_products(
                spec, tile, finish, memory, _locate(spec, tile, n, block, i), i, panel
            )

    slot_loop(tasks_of(spec, tile), tile.slots, task)


def _locate(spec: ConvSpec, tile: WinogradTile, n: Extent, block: Extent, i: Extent) -> _Where:
    """Tile ``i`` of a block; one beyond the last is the last once more."""
    grid = tiles_of(spec, tile.m)
    assert grid is not None
    height, width = (static(extent) or 0 for extent in spec.output)
    number: Extent = grid[0] * grid[1]
    if tile.across:
        number = number * (static(spec.batch) or 1)
    flat = block * tile.block + i
    exists = None
    if static(number) != tile.blocks * tile.block:
        exists = i64(flat) < i64(number)
        flat = minimum_extent(i64(flat), i64(number) - 1)
    flat = bind(i64(flat))
    if tile.across:
        n = bind(i64(floor_div(flat, grid[0] * grid[1])))
        flat = bind(i64(remainder(flat, grid[0] * grid[1])))
    column = bind(i64(remainder(flat, grid[1])))
    row = bind(i64(floor_div(flat, grid[1])))
    start = (
        bind(minimum_extent(i64(row * tile.m), i64(height - tile.m))),
        bind(minimum_extent(i64(column * tile.m), i64(width - tile.m))),
    )
    whole = (i64(row) < i64(height // tile.m), i64(column) < i64(width // tile.m))
    return _Where(n, start, whole, exists)


# --------------------------------------------------------------------------------------- transforms


def _scaled(factor: float, value: Expr) -> Expr:
    """``factor * value``, without a product by 1."""
    if factor == 1.0:
        return value
    lanes = value.ty.dtype.lanes
    return const(factor, "float32", lanes) * value


def _sum(terms: Sequence[tuple[float, Expr]]) -> Expr:
    """The sum of ``factor * value``, the first one first."""
    (factor, value), *rest = terms
    total = _scaled(factor, value)
    for factor, value in rest:
        total = total - _scaled(-factor, value) if factor < 0 else total + _scaled(factor, value)
    return total


def input_rows(values: Vectors, m: int) -> list[Expr]:
    """``B^T`` times the ``n`` values of a column of the input."""
    whole, others = even_odd(m)

    def polynomial(coefficients: Sequence[float], first: int) -> Expr:
        terms = [(c, values[first + 2 * k]) for k, c in enumerate(coefficients)]
        return _sum(terms[::-1])

    rows = [bind(polynomial(whole, 0))]
    for point, coefficients in zip(POINTS[m], others, strict=True):
        even, odd = bind(polynomial(coefficients, 2)), bind(polynomial(coefficients, 1))
        rows += [bind(_sum([(1.0, even), (sign * float(point), odd)])) for sign in (1, -1)]
    return [*rows, bind(polynomial(whole, 1))]


def output_rows(values: Vectors, m: int) -> list[Expr]:
    """``A^T`` times the ``n`` values of a column of products."""
    points = [float(p) for p in POINTS[m]]
    pairs = [(values[1 + 2 * i], values[2 + 2 * i]) for i in range(len(points))]
    sums = [bind(a + b) for a, b in pairs]
    differences = [bind(a - b) for a, b in pairs]
    rows = []
    for power in range(m):
        halves = differences if power % 2 else sums
        terms = [(p**power, half) for p, half in zip(points, halves, strict=True)]
        if power == 0:
            terms.append((1.0, values[0]))
        if power == m - 1:
            terms.append((1.0, values[-1]))
        rows.append(bind(_sum(terms)))
    return rows


def _both_ways(
    values: Sequence[Vectors], transform: Callable[[Vectors], list[Expr]]
) -> list[list[Expr]]:
    """A transform along the first index, then along the second."""
    columns = [transform([row[j] for row in values]) for j in range(len(values[0]))]
    return [transform([column[i] for column in columns]) for i in range(len(columns[0]))]


def _transform_input(
    spec: ConvSpec, tile: WinogradTile, x: Operand, memory: _Memory, where: _Where, i: Extent
) -> None:
    """All channels of one tile."""
    y0, x0 = where.start

    def vectors(c: Extent, pieces: list[tuple[int, int]]) -> None:
        for offset, lanes in pieces:
            values = [
                [
                    bind(x.load((where.n, y0 + row, x0 + column, c + offset), lanes))
                    for column in range(tile.n)
                ]
                for row in range(tile.n)
            ]
            planes = _both_ways(values, lambda v: input_rows(v, tile.m))
            for row, line in enumerate(planes):
                for column, value in enumerate(line):
                    memory.inputs.store(value, (row * tile.n + column, i, c + offset))

    channel_blocks(spec.channels, tile.lanes, 1, vectors)


def _transform_products(
    spec: ConvSpec,
    tile: WinogradTile,
    finish: Finish,
    memory: _Memory,
    where: _Where,
    i: Extent,
    panel: Extent,
) -> None:
    """All output channels of one tile and panel, as far as the tile keeps them."""
    y0, x0 = where.start
    left = [(static(extent) or 0) % tile.m for extent in spec.output]

    def kept(side: int, position: int, stack: ExitStack) -> None:
        """Opens a condition where a tile that was moved back has this position from its neighbour."""
        if left[side] and position < tile.m - left[side]:
            stack.enter_context(when(where.whole[side]))

    def vectors(column: Extent, pieces: list[tuple[int, int]]) -> None:
        for offset, lanes in pieces:
            at = column + offset
            values = [
                [
                    bind(memory.products.load((row * tile.n + j, i, at), lanes))
                    for j in range(tile.n)
                ]
                for row in range(tile.n)
            ]
            results = _both_ways(values, lambda v: output_rows(v, tile.m))
            for row, line in enumerate(results):
                with ExitStack() as outer:
                    kept(0, row, outer)
                    for j, value in enumerate(line):
                        with ExitStack() as inner:
                            kept(1, j, inner)
                            index = (where.n, y0 + row, x0 + j, panel * tile.nr + at)
                            finish(index, value, lanes)

    with ExitStack() as stack:
        if where.exists is not None:
            stack.enter_context(when(where.exists))
        full, rest = divmod(spec.features, tile.nr)
        if not rest:
            channel_blocks(tile.nr, tile.lanes, 1, vectors)
        elif not full:
            channel_blocks(rest, tile.lanes, 1, vectors)
        else:
            branch(
                i64(panel) < i64(full),
                lambda: channel_blocks(tile.nr, tile.lanes, 1, vectors),
                lambda: channel_blocks(rest, tile.lanes, 1, vectors),
            )


# ----------------------------------------------------------------------------------------- products


def _multiply(spec: ConvSpec, tile: WinogradTile, memory: _Memory, w: View, panel: Extent) -> None:
    """``products[plane] = inputs[plane] @ w[panel, plane]`` for every plane.

    While a plane is multiplied the weights of the next one are fetched, evenly over all steps.
    """
    rows = RowTiles(tile.block, tile.rows)
    number = static(rows.number) or 1
    spec_of = MatmulSpec(tile.block, spec.features, spec.channels, dtype=spec.dtype)
    shape = MatmulTile(tile.rows, tile.nr, tile.lanes, True, 1, False, 0)
    lines = tile.nr // tile.lanes
    each = -(-lines // number)

    with loop(tile.n**2) as plane, loop(number) as r:

        def ahead(k: Extent) -> None:
            for line in range(each):
                flat = (r * spec.channels + k) * each + line
                at = (panel, plane + 1, 0, flat * tile.lanes)
                prefetch(w.address(at), near=2)

        def one(row: Extent, count: int) -> None:
            acc = accumulate(
                spec_of,
                shape,
                memory.inputs,
                w,
                (plane,),
                row,
                count,
                tile.nr,
                lambda k, column: (panel, plane, k, column),
                ahead=ahead,
            )
            for j in range(count):
                for column, lanes in vector_pieces(tile.nr, tile.lanes):
                    memory.products.store(acc.get(j, column, lanes), (plane, row + j, column))

        rows.emit(r, 1, one)
