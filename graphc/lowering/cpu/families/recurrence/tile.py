"""How a step of a recurrent cell is cut into blocks of units, and how its weights lie for them."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.graph import GraphBuilder, Value
from graphc.lowering.cpu.families.recurrence.select import Cell, CellProduct
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.packing import Packing
from graphc.ops import Reshape, Transpose

_FEW_ROWS = 2


@dataclass(frozen=True)
class Tile:
    """Vectors of `lanes` elements, blocks of `units`, rows that share a load of the weights.

    `direct`: products stay in registers until they are used; otherwise they pass through scratch memory, `columns` of a
    block at a time.
    """

    lanes: int
    units: int
    rows: int
    direct: bool
    columns: int


def step_tile(cell: Cell, target: CpuTarget) -> Tile | None:
    """How a step is cut: accumulators fill the registers, and blocks are enough for the threads."""
    lanes = target.lanes(str(cell.dtype.numpy))
    while cell.units % lanes:
        lanes //= 2
    if lanes < 4:
        return None
    room = target.vector_registers * 3 // 4
    gates = max(sum(p.gates for p in s.products) for s in cell.stages)
    few = isinstance(cell.rows, int) and cell.rows <= _FEW_ROWS
    rows = cell.rows if few and isinstance(cell.rows, int) else room
    wide = 1
    while (
        cell.units % (2 * wide * lanes) == 0
        and cell.units // (2 * wide * lanes) >= 4
        and 2 * wide * gates <= (min(room // rows, 8) if few else 4)
    ):
        wide *= 2
    # With few registers the gates of a block leave none for the weights: two vectors by six rows at a time.
    vectors = wide * gates
    if not few:
        if target.vector_registers < 32:
            vectors = min(vectors, 2)
        rows = max(1, room // vectors)
        if isinstance(cell.rows, int):
            rows = min(rows, cell.rows)
    direct = few and not any(s.products for s in cell.stages[:-1])
    return Tile(lanes, wide * lanes, rows, direct, vectors * lanes)


def weight_packing(p: CellProduct, units: int, block: int) -> Packing:
    """A weight as ``[block][depth][gate][unit]``."""

    def write(b: GraphBuilder, x: Value) -> Value:
        if p.transposed:
            x = b(Transpose((1, 0)), x)
        x = b(Reshape((p.depth, p.gates, units // block, block)), x)
        return b(Transpose((2, 0, 1, 3)), x)

    way = "columns" if p.transposed else "rows"
    return Packing.written(f"cell/{way}/{units}/{block}", write)


__all__ = ["Tile", "step_tile", "weight_packing"]
