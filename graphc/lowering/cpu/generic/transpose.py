"""Transpositions in registers: tiles that are read along one loop and stored along another.

The rows of a tile are vectors along the loop in which operands are contiguous. Interleaving row r
with row r + rows / 2, for all r, log2(rows) times puts the elements in the order in which they are
stored (a perfect shuffle network), two registers at a time. What is left of a loop gets smaller
tiles, down to single elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.dim import DimLike
from graphc.ir.op import Expr
from graphc.lowering.cpu.bfloat import narrowed
from graphc.lowering.cpu.emit import View, bind, cast, dtype_of, lanes_of, splat
from graphc.lowering.generic.index import flatten

if TYPE_CHECKING:
    from graphc.lowering.cpu.generic.nest import Nest

_SMALL = 8  # a last loop of at most this many steps is one tile, whatever its length
_STRIPS = 4  # strips of a register's width that a thread takes at a time


def interleaved(rows: Sequence[Expr]) -> list[Expr]:
    """As many vectors, which one after another hold lane 0 of every row, lane 1 of every row, ..."""
    import tvm.tirx as tx

    lanes, count = lanes_of(rows[0]), len(rows)
    if count == 1:
        return list(rows)
    if count & (count - 1) or lanes == 1:
        places = [(p % count) * lanes + p // count for p in range(count * lanes)]
        return [
            bind(tx.Shuffle(list(rows), places[k * lanes : (k + 1) * lanes])) for k in range(count)
        ]
    half = count // 2
    order = [x for i in range(lanes) for x in (i, lanes + i)]
    turned = list(rows)
    for _ in range(count.bit_length() - 1):
        turned = [
            bind(tx.Shuffle([turned[r], turned[r + half]], order[end * lanes : (end + 1) * lanes]))
            for r in range(half)
            for end in (0, 1)
        ]
    return turned


def emit_turned(nest: Nest) -> None:
    """Writes the nest of a schedule with a `turned` loop."""
    plan, e = nest.plan, nest.e
    assert plan.vector is not None and plan.turned is not None
    last = plan.axes.sizes[plan.vector]
    lanes = plan.lanes
    whole = isinstance(last, int) and last <= _SMALL and plan.turned == plan.vector - 1
    rows = (last,) if whole and isinstance(last, int) else _widths(last, lanes)

    def piece(first: DimLike, count: DimLike) -> None:
        def strip(at: DimLike, width: int) -> None:
            assert plan.vector is not None and plan.turned is not None
            nest.at[plan.turned] = at
            for start, height in e.stretches(0, last, rows):
                nest.at[plan.vector] = start
                _tile(nest, width, height, whole)

        e.sweep(first, count, _widths(count, lanes), strip)

    def stretch(first: DimLike, count: DimLike) -> None:
        assert plan.turned is not None
        nest.pieces(plan.turned, first, count, piece)

    if plan.turned_tested:
        # Cut where the conditions change, so each row of it goes to one thread whole.
        with nest.outer([g for g in plan.outer if g not in (plan.turned, plan.vector)]):
            stretch(0, plan.axes.sizes[plan.turned])
    else:
        nest.stretches(plan.turned, lanes * _STRIPS, stretch)


def _widths(extent: DimLike, lanes: int) -> tuple[int, ...]:
    """Full registers first; a named dim makes do with few widths, since each pair is code of its own."""
    if isinstance(extent, int):
        return tuple(
            w for w in (1 << p for p in reversed(range(lanes.bit_length()))) if w <= extent
        )
    return tuple(dict.fromkeys((lanes, min(4, lanes), 1)))


def _tile(nest: Nest, width: int, height: int, whole: bool) -> None:
    """Reads `height` vectors of `width` lanes and stores them turned."""
    plan, e = nest.plan, nest.e
    assert plan.vector is not None and plan.turned is not None
    start, at = nest.at[plan.vector], nest.at[plan.turned]
    values: list[list[Expr]] = []
    with e.scope():
        for j in range(height):
            nest.at[plan.vector] = start + j
            index = nest.index()
            values.append([_plain(e.lift(nest.inliner.at(v, index))) for v in nest.outputs])
        nest.at[plan.vector] = start
        corner = at - e.lane if width > 1 else at
        for n, (output, view) in enumerate(zip(nest.outputs, nest.views(), strict=True)):
            columns = interleaved([splat(row[n], width) for row in values])
            shape = nest.body.type_of(output).shape
            for i, column in enumerate(_stored(columns, width, height, whole)):
                nest.at[plan.turned] = corner if whole else corner + i
                position = flatten(nest.index(), shape)
                step = i * width if whole else 0
                _store(view, e.expr(position + step), column)
        nest.at[plan.turned] = at


def _stored(columns: Sequence[Expr], width: int, height: int, whole: bool) -> list[Expr]:
    """The vectors to store: one per column of the tile, or where the tile is dense, as they come."""
    import tvm.tirx as tx

    if whole:
        return list(columns)
    if height == 1:
        (row,) = columns
        return [row] if width == 1 else [tx.Shuffle([row], [i]) for i in range(width)]
    if width == 1:
        return [bind(tx.Shuffle(list(columns), list(range(height))))]
    result = []
    for i in range(width):
        places = [divmod(i * height + j, width) for j in range(height)]
        sources = sorted({source for source, _ in places})
        lanes = [sources.index(source) * width + lane for source, lane in places]
        result.append(tx.Shuffle([columns[s] for s in sources], lanes))
    return result


def _plain(value: Expr) -> Expr:
    """Elements in a type that can be shuffled: booleans as bytes."""
    return cast(value, "uint8") if dtype_of(value) == "bool" else value


def _store(view: View, position: Expr, value: Expr) -> None:
    from tvm.script.ir_builder import tirx as t

    if view.dtype == "bfloat16":
        value = narrowed(value)
    lanes = lanes_of(value)
    address = position + view.offset
    t.buffer_store(view.buffer, value, [address if lanes == 1 else t.ramp(address, 1, lanes)])
