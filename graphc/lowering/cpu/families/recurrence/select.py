"""Finding recurrent cells: loops whose step is products with weights, and arithmetic on units.

A step of such a loop falls into stages. In each, the units (columns) are computed in blocks, all gates of a block
together: the products' columns of those gates, then everything that is computed from them element by element. A product
whose left side is itself computed in the step, as in the backward pass of an LSTM, begins another stage, since it reads
all units. Decided on the body alone; `kernel.py` emits it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Pattern
from graphc.ops import Concatenate, DotGeneral, Fusion, Pad, Scan, Slice
from graphc.ops.bodies import depending, inline

_PLAIN = (Pattern.SOURCE, Pattern.ELEMENTWISE, Pattern.INDEX)
MAX_GATES = 8
"""Columns of one block that a product may have, in blocks of units."""
MAX_PARTS = 32
"""The same of all that a step multiplies and stores: each is code of its own."""


@dataclass(frozen=True)
class CellProduct:
    """A product `lhs [N, depth] @ weight`, where `weight` is capture number `capture` of the body's inputs."""

    value: Value
    lhs: Value
    capture: int
    transposed: bool  # the weight is [columns, depth]
    depth: int
    gates: int


@dataclass
class Stage:
    """What happens between two barriers: products, and the values that are stored."""

    products: list[CellProduct] = field(default_factory=list)
    stored: list[Value] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """A loop as stages over blocks of units.

    `op` is the scan with a body of plain ops; `kept` are values of a step that later stages of it read.
    """

    op: Scan
    dtype: DType
    rows: DimLike
    units: int
    stages: tuple[Stage, ...]
    kept: tuple[Value, ...]


def find_cell(op: Scan) -> Cell | None:
    """The loop as a recurrent cell, or None where it is none."""
    plain = _plain(op)
    return None if plain is None else _Finder(plain).cell()


def _plain(op: Scan) -> Scan | None:
    """The scan with the kernels of its body opened; None where there is a loop in it."""
    b = GraphBuilder(op.body.name, op.body.dims)
    done: dict[Value, Value] = {}
    for node in op.body.nodes:
        operands = [done[v] for v in node.operands]
        if isinstance(node.op, Fusion):
            new = inline(b, node.op.body, operands)
        else:
            with b.at(node.scope, node.span):
                new = b.emit(node.op, *operands)
        done.update(zip(node.values, new, strict=True))
    if any(node.op.regions for node in b.nodes):
        return None
    return replace(op, body=b.build([(n, done[v]) for n, v in op.body.outputs]))


class _Finder:
    def __init__(self, op: Scan) -> None:
        self.op, self.body = op, op.body
        self.inputs = {n.values[0]: i for i, n in enumerate(self.body.inputs)}
        self.products: dict[Value, CellProduct] = {}
        self.stage: dict[Value, int] = {}  # of products
        self.kept: dict[Value, int] = {}  # stage that stores it

    def cell(self) -> Cell | None:
        op, body = self.op, self.body
        dots = [n for n in body.nodes if isinstance(n.op, DotGeneral)]
        others = [n for n in body.nodes if n not in dots]
        if not dots or any(n.op.pattern not in _PLAIN or len(n.types) > 1 for n in others):
            return None
        weights = [self.inputs.get(n.operands[1]) for n in dots]
        if len(set(weights)) < len(weights) or not all(map(self._is_product, dots)):
            return None
        dtype, rows = dots[0].types[0].dtype, dots[0].types[0].shape[0]
        results = [*op.next, *op.emitted, *(n.values[0] for n in dots)]
        widths = [w for v in results if (w := row_width(body, v, rows)) is not None]
        if len(widths) < len(results) or any(n.types[0].dtype is not dtype for n in dots):
            return None
        if any(body.type_of(v).dtype is not dtype for v in op.carried):
            return None
        units = math.gcd(*widths)
        if sum(widths) > MAX_PARTS * units:
            return None
        for node in dots:
            if not self._stage(node, units):
                return None
        count = 1 + max([*self.stage.values(), *self.kept.values()])
        stages = [Stage() for _ in range(count)]
        for value, product in self.products.items():
            stages[self.stage[value]].products.append(product)
        for value in dict.fromkeys((*op.next, *op.emitted)):
            stages[self._of(value)].stored.append(value)
        for value, at in self.kept.items():
            if value not in stages[at].stored:
                stages[at].stored.append(value)
        for at, stage in enumerate(stages):
            for value in stage.stored:
                width = body.type_of(value).shape[1]
                assert isinstance(width, int)
                if width % units or not all(
                    self._reaches(value, part, at, units) for part in range(width // units)
                ):
                    return None
        return Cell(op, dtype, rows, units, tuple(stages), tuple(self.kept))

    def _is_product(self, node: Node) -> bool:
        """Whether a product is rows times a captured weight."""
        op = node.op
        assert isinstance(op, DotGeneral)
        lhs, rhs = (self.body.type_of(v) for v in node.operands)
        slot = self.inputs.get(node.operands[1], -1)
        return (
            lhs.rank == rhs.rank == 2
            and not op.lhs_batch
            and op.lhs_contract == (1,)
            and slot >= self.op.sequences + self.op.carries
            and rhs.is_static
            and lhs.dtype in (DType.F32, DType.F64)
        )

    def _stage(self, node: Node, units: int) -> bool:
        """Places a product, and stores its left side where the step computes that. False where it has no place."""
        op, (lhs, weight) = node.op, node.operands
        assert isinstance(op, DotGeneral)
        rows, columns = node.types[0].shape
        depth = row_width(self.body, lhs, rows)
        if depth is None or not isinstance(columns, int) or columns > MAX_GATES * units:
            return False
        gates = columns // units
        at = 0
        if lhs not in self.inputs:
            self.kept[lhs] = self._of(lhs)
            at = self.kept[lhs] + 1
        (value,) = node.values
        slot, transposed = self.inputs[weight], op.rhs_contract == (1,)
        self.products[value] = CellProduct(value, lhs, slot, transposed, depth, gates)
        self.stage[value] = at
        return True

    def _of(self, value: Value) -> int:
        """The stage in which a value can be computed: that of the last product it depends on."""
        found = 0
        for product, stage in self.stage.items():
            if value.node in depending(self.body.nodes, [product]):
                found = max(found, stage)
        return found

    def _reaches(self, value: Value, part: int, stage: int, units: int) -> bool:
        """Whether units of a value come from the same units of products, up to this stage, and from memory alone."""
        if value in self.stage:
            return self.stage[value] <= stage
        if value in self.kept and self.kept[value] < stage:
            return True
        node = self.body.node(value.node)
        touched = depending(self.body.nodes, self.stage)
        if node.id not in touched:
            return True
        op = node.op
        if op.pattern is Pattern.ELEMENTWISE:
            return all(self._reaches(v, part, stage, units) for v in node.operands)
        if isinstance(op, Slice):
            start = op.start[1]
            whole = op.start[0] == 0 and op.strides == (1, 1)
            if not whole or not isinstance(start, int) or start % units:
                return False
            return self._reaches(node.operands[0], part + start // units, stage, units)
        if isinstance(op, Concatenate) and op.axis == 1:
            for operand in node.operands:
                width = self.body.type_of(operand).shape[1]
                if not isinstance(width, int) or width % units:
                    return False
                if part < width // units:
                    return self._reaches(operand, part, stage, units)
                part -= width // units
        if isinstance(op, Pad) and op.low[0] == op.high[0] == 0 and not any(op.interior):
            width = self.body.type_of(node.operands[0]).shape[1]
            if not isinstance(width, int) or width % units or op.low[1] % units or op.low[1] < 0:
                return False
            inside = part - op.low[1] // units
            within = 0 <= inside < width // units
            return not within or self._reaches(node.operands[0], inside, stage, units)
        return False


def row_width(body: Graph, value: Value, rows: DimLike) -> int | None:
    """The number of columns of a value; None for what is no matrix of these rows."""
    shape = body.type_of(value).shape
    width = shape[1] if len(shape) == 2 and shape[0] == rows else None
    return width if isinstance(width, int) and width > 0 else None


__all__ = ["MAX_GATES", "MAX_PARTS", "Cell", "CellProduct", "Stage", "find_cell", "row_width"]
