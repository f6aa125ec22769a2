"""Reverse mode through a choice: the same choice between the gradients of its bodies.

A body of the backward `cond` is the reverse mode of a body, over the same captures and the cotangents of the results.
What it needs of the forward body is kept where the other body has something of the same type to keep: two experts of
one shape. The rest it computes again, as a checkpoint does; to keep that, the body that did not run would have to fill
as much memory with nothing. What only one body depends on has the cotangent zero in the other.

The kept values come from a second forward `cond` with the same bodies and more results; the pass `merge-loops` makes
one of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.pullback import Pullback
from graphc.ops import arith
from graphc.ops.bodies import AGAIN, extract, fresh, needed_nodes
from graphc.ops.shape import BroadcastInDim
from graphc.ops.source import Input

if TYPE_CHECKING:
    from graphc.ops.cond import Cond


def cond_gradient(op: Cond, p: Pullback) -> tuple[Value | None, ...]:
    """The operands' cotangents. Raises what the gradient rules of the bodies' ops raise."""
    predicate, *captures = p.operands
    given = [(i, c) for i, c in enumerate(p.cotangents) if c is not None]
    kinds = [p.b.type_of(v) for v in captures]
    wanted = [i for i, v in enumerate(kinds) if p.wanted[i + 1] and v.dtype.is_float]
    sides = [_Side(body, p, [i for i, _ in given], wanted) for body in op.regions]
    flowing = [i for i in wanted if any(side.back[i] is not None for side in sides)]
    found: list[Value | None] = [None] * len(captures)
    if flowing:
        kept = _keep(sides, flowing)
        saved: tuple[Value, ...] = ()
        if kept:
            wider = [
                side.wider(values)
                for side, values in zip(sides, zip(*kept, strict=True), strict=True)
            ]
            saved = p.b.emit(type(op)(*wider), *p.operands)[len(p.results) :]
        read = sorted({i for side in sides for i in side.reads(flowing)})
        bodies = [side.body(read, flowing) for side in sides]
        operands = [*(captures[i] for i in read), *saved, *(c for _, c in given)]
        results = p.b.emit(type(op)(*bodies), predicate, *operands)
        for i, value in zip(flowing, results, strict=True):
            found[i] = value
    return (None, *found)


def _keep(sides: Sequence[_Side], flowing: Sequence[int]) -> list[tuple[Value, ...]]:
    """What the bodies keep for their gradients: values of both, in pairs of one type."""
    costly = [side.costly(flowing) for side in sides]
    kinds = dict.fromkeys(sides[0].forward.type_of(v) for v in costly[0])
    kept: list[tuple[Value, ...]] = []
    for kind in kinds:
        alike = [
            [v for v in values if side.forward.type_of(v) == kind]
            for side, values in zip(sides, costly, strict=True)
        ]
        kept += zip(*alike, strict=False)
    for side, values in zip(sides, zip(*kept, strict=True), strict=False):
        side.saved = values
    return kept


class _Side:
    """One body, and behind it its reverse mode.

    `back` has the cotangent of each capture that is asked for, `seeds` are the results', `saved` is what is not
    computed again.
    """

    def __init__(
        self, body: Graph, p: Pullback, results: Sequence[int], wanted: Sequence[int]
    ) -> None:
        """Differentiates a body: the results of those numbers have cotangents, captures of those numbers get them."""
        self.forward = body
        self.work = work = GraphBuilder(f"{body.name}_grad", p.b.dims)
        work.nodes = list(body.nodes)
        seeds: list[tuple[Value, Value | None]] = []
        for i in results:
            _, value = body.outputs[i]
            kind = body.type_of(value)
            seeds.append((value, work(Input(f"grad_out{i}", kind.dtype, kind.shape))))
        inputs = [body.inputs[i].values[0] for i in wanted]
        self.back = dict(zip(wanted, p.inside(work, seeds, inputs), strict=True))
        self.seeds = tuple(seed for _, seed in seeds if seed is not None)
        self.saved: tuple[Value, ...] = ()

    def _wanted(self, flowing: Sequence[int]) -> list[Value]:
        return [v for i in flowing if (v := self.back[i]) is not None]

    def costly(self, flowing: Sequence[int]) -> list[Value]:
        """Results of the forward body that those cotangents are computed from, beyond elementwise work and views."""
        found, seen, stack = list[Value](), set[Value](), self._wanted(flowing)
        while stack:
            v = stack.pop()
            if v not in seen:
                seen.add(v)
                node = self.work.node_of(v)
                if node.id < len(self.forward.nodes) and node.op.pattern not in AGAIN:
                    found.append(v)
                else:
                    stack += node.operands
        return sorted(found)

    def wider(self, values: Sequence[Value]) -> Graph:
        """The forward body with those results besides."""
        body, outputs = self.forward, list(self.forward.outputs)
        for value in values:
            outputs.append((fresh("saved", [n for n, _ in outputs]), value))
        return Graph(body.name, body.dims, body.nodes, outputs)

    def reads(self, flowing: Sequence[int]) -> list[int]:
        """The captures that those cotangents are computed from."""
        needed = needed_nodes(self.work.nodes, self._wanted(flowing), self.saved)
        return [i for i, n in enumerate(self.forward.inputs) if n.id in needed]

    def body(self, read: Sequence[int], flowing: Sequence[int]) -> Graph:
        """The body of the backward choice: from captures, what is kept and cotangents to the captures' cotangents."""
        names = [str(n.op.attributes()["label"]) for n in self.forward.inputs]
        given = [(names[i], self.forward.inputs[i].values[0]) for i in read]
        given += [("saved", v) for v in self.saved]
        given += [(str(self.work.node_of(v).op.attributes()["label"]), v) for v in self.seeds]
        inputs: list[tuple[str, Value]] = []
        for name, value in given:
            inputs.append((fresh(name, [n for n, _ in inputs]), value))
        outputs = [(f"grad_{names[i]}", self._cotangent(i)) for i in flowing]
        return extract(self.work.name, self.work.dims, self.work.nodes, inputs, outputs)

    def _cotangent(self, capture: int) -> Value:
        found = self.back[capture]
        if found is not None:
            return found
        kind = self.forward.inputs[capture].types[0]
        zero = arith.constant(self.work, 0.0, kind.dtype)
        return self.work(BroadcastInDim(kind.shape, ()), zero) if kind.shape else zero


__all__ = ["cond_gradient"]
