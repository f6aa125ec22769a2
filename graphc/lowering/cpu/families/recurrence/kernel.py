"""Recurrent cells: the time loop, and in each step one parallel region a stage over blocks of units.

A block computes the columns of all gates of its units, weights packed ``[block][depth][gate][unit]`` so that each
thread reads its own contiguous part at every step, forwards and backwards in turn, and then the cell's arithmetic on
them: in registers for a row or two, else row by row behind the products of all rows. Carries alternate between two
buffers, since blocks read all units of the step before while they write theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, Value
from graphc.lowering.cpu.emit import (
    Expr,
    Extent,
    Registers,
    View,
    along,
    bind,
    const,
    loop,
    prefetch,
    product,
    remainder,
    splat,
    swinging_loop,
    worth_threads,
)
from graphc.lowering.cpu.families.recurrence.select import (
    Cell,
    CellProduct,
    Stage,
    find_cell,
    row_width,
)
from graphc.lowering.cpu.families.recurrence.tile import Tile, step_tile, weight_packing
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic.expr import TirEmitter
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.cpu.tiling import RowTiles
from graphc.lowering.generic.bodies import checks
from graphc.lowering.generic.index import Space, flatten
from graphc.lowering.generic.inline import Inliner
from graphc.ops import Scan

_UNROLL = 4
_ELEMENTS = 16  # buffers begin at multiples of this
_FETCHED_LINES = 32
_FETCHED_ROWS = 3
_ARITHMETIC = 20  # operations of a cell for each number that it stores, about
_TYPICAL_ROWS = 8  # of a batch whose size only the run knows, to decide about threads


def select_cell(op: Scan, target: CpuTarget) -> Kernel | None:
    """The kernel of a loop that is a recurrent cell, or None. Weights are captures, packed when or before it runs."""
    if checks(op.body):
        return None
    cell = find_cell(op)
    if cell is None:
        return None
    tile = step_tile(cell, target)
    if tile is None:
        return None
    packing = {
        p.capture: weight_packing(p, cell.units, tile.units)
        for s in cell.stages
        for p in s.products
    }
    offsets, total = _buffers(cell, tile)

    def emit(io: KernelIO) -> None:
        _Emission(cell, tile, target, offsets, io).run()

    dtype = str(cell.dtype.numpy)
    return Kernel("recurrent", emit, total * cell.dtype.bytes, dtype, packing)


def _buffers(cell: Cell, tile: Tile) -> tuple[dict[Value, DimLike], DimLike]:
    """Where in scratch memory values of a step are, in elements, and the end; carries have two places."""
    offsets: dict[Value, DimLike] = {}
    end: DimLike = 0
    products = [] if tile.direct else [p.value for s in cell.stages for p in s.products]
    for value in (*cell.op.carried, *cell.kept, *products):
        offsets[value] = end
        end = end + _room(cell, value) * (2 if value in cell.op.carried else 1)
    return offsets, end


def _room(cell: Cell, value: Value) -> DimLike:
    size = cell.op.body.type_of(value).size
    return -(-size // _ELEMENTS) * _ELEMENTS if isinstance(size, int) else size


class _Emission:
    """Writes one kernel."""

    def __init__(
        self,
        cell: Cell,
        tile: Tile,
        target: CpuTarget,
        offsets: dict[Value, DimLike],
        io: KernelIO,
    ) -> None:
        self.cell, self.tile, self.target, self.offsets, self.io = cell, tile, target, offsets, io
        self.op, self.body = cell.op, cell.op.body
        self.dtype = str(cell.dtype.numpy)
        self._line = 64 // cell.dtype.bytes
        self.rows = dim_expr(cell.rows, io.dims)
        self.length = dim_expr(self.op.length, io.dims)

    def run(self) -> None:
        op, first = self.op, self.op.sequences
        for i, carry in enumerate(op.carried):
            self._copy(self.io.operands[first + i], self._carry(carry, 0), carry)
        with loop(self.length) as step:
            at = self.length - 1 - step if op.reverse else step
            before, after = remainder(step, 2), remainder(step + 1, 2)
            for stage in self.cell.stages:
                self._stage(stage, at, before, after)
        for i, carry in enumerate(op.carried):
            self._copy(self._carry(carry, remainder(self.length, 2)), self.io.results[i], carry)

    def _copy(self, source: View, to: View, like: Value) -> None:
        size = product([dim_expr(d, self.io.dims) for d in self.body.type_of(like).shape])
        source, to = (View(v.buffer, v.dtype, (1,), v.offset) for v in (source, to))
        along(size, self.tile.lanes, lambda i, n: to.store(source.load((i,), n), (i,)))

    # ---- Memory of a step -------------------------------------------------------------------------

    def _scratch(self, value: Value, offset: Extent) -> View:
        assert self.io.scratch is not None
        width = self.body.type_of(value).shape[1]
        assert isinstance(width, int)
        return View(self.io.scratch.buffer, self.dtype, (width, 1), offset)

    def _carry(self, carry: Value, parity: Extent) -> View:
        room = dim_expr(_room(self.cell, carry), self.io.dims)
        return self._scratch(carry, dim_expr(self.offsets[carry], self.io.dims) + parity * room)

    def _kept(self, value: Value) -> View:
        return self._scratch(value, dim_expr(self.offsets[value], self.io.dims))

    def _operands(self, at: Extent, parity: Extent) -> tuple[View, ...]:
        """The body's inputs at a step."""
        views = []
        for i, view in enumerate(self.io.operands):
            if i < self.op.sequences:
                views.append(_element(view, at))
            elif i < self.op.sequences + self.op.carries:
                views.append(self._carry(self.op.carried[i - self.op.sequences], parity))
            else:
                views.append(view)
        return tuple(views)

    def _targets(self, value: Value, at: Extent, parity: Extent) -> list[View]:
        """Where a value of a step is stored: as carries, in stacks, for later stages."""
        op = self.op
        carries = zip(op.carried, op.next, strict=True)
        views = [self._carry(carry, parity) for carry, after in carries if after == value]
        for i, emitted in enumerate(op.emitted):
            if emitted == value:
                views.append(_element(self.io.results[op.carries + i], at))
        if value in self.cell.kept:
            views.append(self._kept(value))
        return views

    # ---- A stage ----------------------------------------------------------------------------------

    def _stage(self, stage: Stage, at: Extent, before: Extent, after: Extent) -> None:
        cell, tile = self.cell, self.tile
        blocks = cell.units // tile.units
        operands = self._operands(at, before)
        slots = {n.values[0]: i for i, n in enumerate(self.body.inputs)}
        outputs = [(v, self._targets(v, at, after)) for v in stage.stored]
        columns = sum(p.depth * p.gates * cell.units for p in stage.products)
        work = 2 * columns + sum(self._width(v) for v in stage.stored) * _ARITHMETIC
        rows = cell.rows if isinstance(cell.rows, int) else _TYPICAL_ROWS
        tiles = RowTiles(self.rows, tile.rows)

        def block(number: Extent, following: Extent) -> None:
            if tile.direct:
                assert isinstance(self.rows, int)
                for row in range(self.rows):
                    self._fetch_elements(operands, number, row)
                sums = multiply(number, 0, self.rows)
                for p in stage.products:
                    self._fetch_weights(p, operands[p.capture], following)
                for row in range(self.rows):
                    self._row(operands, outputs, number, row, sums)
                return
            for row in range(_FETCHED_ROWS):
                self._fetch_elements(operands, number, row)
            if stage.products:
                with loop(tiles.number) as chunk:
                    tiles.emit(chunk, 1, lambda row, count: store(number, row, count))
            with loop(self.rows) as row:
                self._fetch_elements(operands, number, row + _FETCHED_ROWS)
                self._row(operands, outputs, number, row, {})

        def product_of(
            p: CellProduct, number: Extent, row: Extent, count: int, columns: range
        ) -> Registers:
            lhs = operands[slots[p.lhs]] if p.lhs in slots else self._kept(p.lhs)
            return self._product(p, lhs, operands[p.capture], (number, row), count, columns)

        def multiply(number: Extent, row: Extent, count: int) -> dict[Value, Registers]:
            return {
                p.value: product_of(p, number, row, count, self._columns(p)) for p in stage.products
            }

        def store(number: Extent, row: Extent, count: int) -> None:
            for p in stage.products:
                every = self._columns(p)
                for first in range(0, len(every), tile.columns // tile.lanes):
                    some = every[first : first + tile.columns // tile.lanes]
                    acc = product_of(p, number, row, count, some)
                    for i in range(count):
                        for column in some:
                            gate, start = divmod(column, tile.units)
                            at = gate * cell.units + number * tile.units + start
                            result = acc.get(i, column - some[0], tile.lanes)
                            self._kept(p.value).store(result, (row + i, at))

        if blocks > 1 and worth_threads(rows * work):
            with swinging_loop(blocks, before) as (number, following):
                block(number, following)
        else:
            with loop(blocks) as number:
                block(number, number)

    def _fetch_elements(self, operands: tuple[View, ...], number: Extent, row: Extent) -> None:
        """Asks for what a block reads of a row of this step's elements: no prefetcher foresees lines so far apart."""
        units = self.cell.units
        for view, value in zip(operands, self.op.steps, strict=False):
            width = row_width(self.body, value, self.cell.rows) or 0
            for part in range(width // units):
                for start in range(0, self.tile.units, self._line):
                    at = part * units + number * self.tile.units + start
                    prefetch(view.address((row, at)))

    def _fetch_weights(self, p: CellProduct, weight: View, number: Extent) -> None:
        """Asks for the beginning of a block of weights, while the arithmetic of another needs no memory."""
        packed, size = self._packed(p, weight), p.depth * p.gates * self.tile.units
        for start in range(0, min(size, _FETCHED_LINES * self._line), self._line):
            prefetch(packed.address((number, 0, start)))

    def _packed(self, p: CellProduct, weight: View) -> View:
        width = p.gates * self.tile.units
        return View(weight.buffer, self.dtype, (p.depth * width, width, 1), weight.offset)

    def _width(self, value: Value) -> int:
        width = self.body.type_of(value).shape[1]
        assert isinstance(width, int)
        return width

    def _columns(self, p: CellProduct) -> range:
        """Where the vectors of a block's columns begin, all gates after one another."""
        return range(0, p.gates * self.tile.units, self.tile.lanes)

    def _product(
        self,
        p: CellProduct,
        lhs: View,
        weight: View,
        place: tuple[Extent, Extent],
        rows: int,
        columns: range,
    ) -> Registers:
        """Some columns of a block, for some rows: one element of the left side against vectors of weights."""
        (block, row), lanes = place, self.tile.lanes
        packed = self._packed(p, weight)
        acc = Registers(rows, len(columns) * lanes, self.dtype)
        pieces = [column - columns[0] for column in columns]
        for i in range(rows):
            for column in pieces:
                acc.set(const(0.0, self.dtype, lanes), i, column)

        def step(k: Extent) -> None:
            vectors = [bind(packed.load((block, k, column), lanes)) for column in columns]
            for i in range(rows):
                scalar = bind(lhs.load((row + i, k)))
                for column, vector in zip(pieces, vectors, strict=True):
                    acc.set(acc.get(i, column, lanes) + splat(scalar, lanes) * vector, i, column)

        with loop(p.depth // _UNROLL) as k:
            for u in range(_UNROLL):
                step(k * _UNROLL + u)
        for k in range(p.depth - p.depth % _UNROLL, p.depth):
            step(k)
        return acc

    def _row(
        self,
        operands: tuple[View, ...],
        outputs: Sequence[tuple[Value, Sequence[View]]],
        number: Extent,
        row: Extent,
        sums: dict[Value, Registers],
    ) -> None:
        """Everything that is stored of one row of a block."""
        for start in range(0, self.tile.units, self.tile.lanes):
            self._vector(operands, outputs, number, row, sums, start)

    def _vector(
        self,
        operands: tuple[View, ...],
        outputs: Sequence[tuple[Value, Sequence[View]]],
        number: Extent,
        row: Extent,
        sums: dict[Value, Registers],
        start: int,
    ) -> None:
        cell, tile = self.cell, self.tile
        io = KernelIO(operands, (), self.io.dims)
        emitter = TirEmitter(Space(self.body.dims), io, self.target)
        with emitter.vector(tile.lanes) as lane:
            at = emitter.bound(row, 0, cell.rows - 1)
            block = emitter.bound(number, 0, cell.units // tile.units - 1)
            unit = block * tile.units + start + lane
            elements = _Elements(self.body, emitter, unit, cell.units)
            for value, acc in sums.items():
                assert isinstance(row, int)
                elements.sums[value] = [
                    acc.get(row, gate * tile.units + start, tile.lanes)
                    for gate in range(acc.width // tile.units)
                ]
            now = {v for v, _ in outputs}
            there = [v for v in cell.kept if v not in now]
            there += [v for v in self.offsets if v not in (*cell.op.carried, *cell.kept)]
            elements.memory = {v: self._kept(v) for v in there}
            for value, views in outputs:
                shape = self.body.type_of(value).shape
                for part in range(self._width(value) // cell.units):
                    index = (at, part * cell.units + unit)
                    result = elements.at(value, index)
                    for view in views:
                        emitter.write(view, flatten(index, shape), result)


def _element(view: View, at: Extent) -> View:
    """Element `at` of a stacked tensor."""
    first, *rest = view.strides
    return View(view.buffer, view.dtype, tuple(rest), view.offset + at * first)


class _Elements(Inliner):
    """Elements of a step's values: products are known at the units at hand, kept values are in memory."""

    def __init__(self, body: Graph, emitter: TirEmitter, unit: DimLike, units: int) -> None:
        super().__init__(body, emitter)
        self.tir, self.unit, self.units = emitter, unit, units
        self.sums: dict[Value, list[Expr]] = {}
        self.memory: dict[Value, View] = {}

    def at(self, value: Value, index: Sequence[DimLike]) -> Expr:
        """See `Inliner.at`. Raises ValueError for other units of a product than those at hand."""
        if value in self.sums:
            column = self.tir.space.simplified(index[1])
            for gate, known in enumerate(self.sums[value]):
                if column == gate * self.units + self.unit:
                    return known
            raise ValueError(f"{value} was asked for at column {column}")
        if value in self.memory:
            shape = self.body.type_of(value).shape
            return self.tir.wrap(self.tir.read(self.memory[value], flatten(index, shape)))
        return super().at(value, index)


__all__ = ["select_cell"]
