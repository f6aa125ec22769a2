"""Transposes move together, cancel, and disappear into what reads them.

Walking the graph in order, a transpose sinks below every op that can do without it (`Op.transposed`)
while its other operands can be transposed for free: build-time values, broadcasts, iotas, moves of
dimensions of size 1. Where two meet they become one or none. A reshape lets a transpose pass that
keeps its groups of dimensions together; a product reads transposed operands in place (`absorb.py`).
What is left in front of an op that another transpose follows is hoisted above it when that saves
one. The number of transposes never grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Op, Pattern
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import BroadcastInDim, DotGeneral, Iota, Reshape, Transpose
from graphc.passes.absorb import absorb
from graphc.passes.static import Static
from graphc.passes.views import (
    Permutation,
    compose,
    inverse,
    moves_nothing,
    reshape_after,
    reshape_before,
)

_ONE_OPERAND = (Pattern.COMPOSITE, Pattern.CONTRACT, Pattern.WINDOW)
"""Ops of these patterns move with the transpose of their first operand alone."""

MAX_DEPTH = 6
"""How far up a free transpose may go through elementwise ops."""


def sink_transposes(graph: Graph) -> Graph:
    """The graph with as few transposes as local moves can reach."""
    while True:
        new = rewrite(graph, _Mover().rule)
        if new is graph:
            return graph
        graph = new


class _Mover:
    """One walk over a graph."""

    def __init__(self) -> None:
        self.static = Static()

    def rule(self, r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Value | None:
        """What becomes of one node: see the module."""
        if len(node.types) != 1 or all(self.static(r, v) for v in operands):
            return None
        if isinstance(node.op, Transpose):
            found = self.free(r, operands[0], node.op.permutation)
            return found if found is not None else self._hoist(r, node, node.op)
        if isinstance(node.op, DotGeneral):
            return absorb(r, self.static, node.op, operands)
        if isinstance(node.op, Reshape):
            return self._sink_reshape(r, node.op, operands[0])
        return None if node.op.spatial else self._sink(r, node.op, operands)

    def real(self, r: Rewriter, value: Value) -> tuple[Value, Permutation] | None:
        """The operand and permutation of a transpose that costs something, if the value is one."""
        node = r.node_of(value)
        if isinstance(node.op, Transpose) and not self.static(r, value):
            return node.operands[0], node.op.permutation
        return None

    def _sink(self, r: Rewriter, op: Op, operands: Sequence[Value]) -> Value | None:
        moving = operands[:1] if op.pattern in _ONE_OPERAND else operands
        found = next((t for t in (self.real(r, v) for v in moving) if t is not None), None)
        if found is None:
            return None
        permutation = found[1]
        moved = op.transposed(permutation)
        if moved is None:
            return None
        below = [self.free(r, v, inverse(permutation)) for v in moving]
        if None in below:
            return None
        new_op, after = moved
        result = r(new_op, *(v for v in below if v is not None), *operands[len(moving) :])
        return self.transpose(r, result, after)

    def _sink_reshape(self, r: Rewriter, op: Reshape, x: Value) -> Value | None:
        found = self.real(r, x)
        if found is None:
            return None
        source, permutation = found
        moved = reshape_after(r.type_of(source).shape, permutation, op.shape)
        if moved is None:
            return None
        shape, after = moved
        same = r.type_of(source).shape == shape
        return self.transpose(r, source if same else r(Reshape(shape), source), after)

    def transpose(self, r: Rewriter, x: Value, permutation: Permutation) -> Value:
        """The transposed value, for free if possible."""
        found = self.free(r, x, permutation)
        if found is not None:
            return found
        node = r.node_of(x)
        if isinstance(node.op, Transpose):
            whole = compose(node.op.permutation, permutation)
            return r(Transpose(whole), node.operands[0])
        return r(Transpose(permutation), x)

    def free(self, r: Rewriter, x: Value, permutation: Permutation, depth: int = 0) -> Value | None:
        """The transposed value if that costs nothing at run time, else None."""
        node, type = r.node_of(x), r.type_of(x)
        if permutation == tuple(range(len(permutation))):
            return x
        if isinstance(node.op, Transpose):
            whole = compose(node.op.permutation, permutation)
            (inner,) = node.operands
            if self.static(r, x) and whole != tuple(range(len(whole))):
                return r(Transpose(whole), inner)
            return self.free(r, inner, whole, depth)
        if isinstance(node.op, BroadcastInDim):
            return self._free_broadcast(r, node, node.op, permutation, depth)
        if isinstance(node.op, Iota):
            shape = tuple(type.shape[p] for p in permutation)
            return r(Iota(node.op.dtype, shape, permutation.index(node.op.axis)))
        if self.static(r, x):
            return r(Transpose(permutation), x)
        if moves_nothing(type.shape, permutation):
            return r(Reshape(tuple(type.shape[p] for p in permutation)), x)
        cheap = node.op.pattern is Pattern.ELEMENTWISE and not node.op.expensive
        if cheap and depth < MAX_DEPTH:
            operands = [self.free(r, v, permutation, depth + 1) for v in node.operands]
            if None not in operands:
                return r(node.op, *(v for v in operands if v is not None))
        return None

    def _free_broadcast(
        self, r: Rewriter, node: Node, op: BroadcastInDim, permutation: Permutation, depth: int
    ) -> Value | None:
        place = inverse(permutation)
        dims = [place[d] for d in op.dims]
        order = tuple(sorted(range(len(dims)), key=dims.__getitem__))
        operand = self.free(r, node.operands[0], order, depth)
        if operand is None:
            return None
        shape = tuple(op.shape[p] for p in permutation)
        return r(BroadcastInDim(shape, tuple(sorted(dims))), operand)

    # Hoisting looks at the old graph, which knows how often a value is used.

    def _hoist(self, r: Rewriter, node: Node, op: Transpose) -> Value | None:
        (old,) = node.operands
        above = r.old.node(old.node)
        if isinstance(above.op, Reshape) and r.users_left(old) == 1:
            return self._hoist_reshape(r, above.op, r.map[above.operands[0]], op.permutation)
        cost, build = self._above(r, old, op.permutation)
        return build() if cost < 1 else None

    def _above(
        self, r: Rewriter, old: Value, permutation: Permutation, depth: int = 0
    ) -> tuple[int, Callable[[], Value]]:
        """The cheapest way to have an old value transposed: transposes added, and how to emit it."""
        x = r.map[old]
        found = self.free(r, x, permutation)
        if found is not None:
            saved = self.real(r, x) is not None and r.users_left(old) == 1
            return -1 if saved else 0, lambda: found
        node = r.old.node(old.node)
        back = inverse(permutation)
        moved = node.op.transposed(back) if self._may_follow(r, node, old, depth) else None
        if moved is not None and moved[1] == back:
            ways = [self._above(r, v, permutation, depth + 1) for v in node.operands]
            cost = sum(cost for cost, _ in ways)
            if cost < 1:
                with_op = moved[0]
                return cost, lambda: r(with_op, *(build() for _, build in ways))
        return 1, lambda: r(Transpose(permutation), x)

    def _may_follow(self, r: Rewriter, node: Node, old: Value, depth: int) -> bool:
        moves = node.op.pattern in (Pattern.ELEMENTWISE, Pattern.INDEX)
        return moves and depth < MAX_DEPTH and r.users_left(old) == 1 and len(node.types) == 1

    def _hoist_reshape(
        self, r: Rewriter, op: Reshape, x: Value, permutation: Permutation
    ) -> Value | None:
        if self.real(r, x) is None:
            return None
        moved = reshape_before(r.type_of(x).shape, op.shape, permutation)
        if moved is None:
            return None
        return r(Reshape(moved[1]), self.transpose(r, x, moved[0]))
