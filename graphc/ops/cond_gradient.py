"""Reverse mode through a choice: the same choice between the gradients of its bodies.

A body of the backward `cond` is the reverse mode of a body, over the same captures and the cotangents of the results.
It computes again what it needs of the forward body, as a checkpoint does: to keep that, the body that did not run would
have to fill as much memory with nothing. What only one body depends on has the cotangent zero in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc.ir.graph import Graph, GraphBuilder, Value
from graphc.ir.pullback import Pullback
from graphc.ops import arith
from graphc.ops.bodies import extract, fresh, needed_nodes
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
    sides = [_Side.of(body, p, [i for i, _ in given], wanted) for body in op.regions]
    flowing = [i for i in wanted if any(side.back[i] is not None for side in sides)]
    found: list[Value | None] = [None] * len(captures)
    if flowing:
        read = sorted({i for side in sides for i in side.reads(flowing)})
        bodies = [side.body(read, flowing) for side in sides]
        operands = [captures[i] for i in read] + [c for _, c in given]
        results = p.b.emit(type(op)(*bodies), predicate, *operands)
        for i, value in zip(flowing, results, strict=True):
            found[i] = value
    return (None, *found)


@dataclass(frozen=True)
class _Side:
    """One body, and behind it its reverse mode.

    `back` has the cotangent of each capture that is asked for, `seeds` are the results'.
    """

    forward: Graph
    work: GraphBuilder
    seeds: tuple[Value, ...]
    back: dict[int, Value | None]

    @staticmethod
    def of(body: Graph, p: Pullback, results: Sequence[int], wanted: Sequence[int]) -> _Side:
        """Differentiates a body: the results of those numbers have cotangents, captures of those numbers get them."""
        work = GraphBuilder(f"{body.name}_grad", p.b.dims)
        work.nodes = list(body.nodes)
        taken = _labels(body)
        seeds: list[tuple[Value, Value | None]] = []
        for i in results:
            _, value = body.outputs[i]
            kind = body.type_of(value)
            taken.append(fresh(f"grad_out{i}", taken))
            seeds.append((value, work(Input(taken[-1], kind.dtype, kind.shape))))
        inputs = [body.inputs[i].values[0] for i in wanted]
        back = p.inside(work, seeds, inputs)
        made = tuple(seed for _, seed in seeds if seed is not None)
        return _Side(body, work, made, dict(zip(wanted, back, strict=True)))

    def reads(self, flowing: Sequence[int]) -> list[int]:
        """The captures that those cotangents are computed from."""
        wanted = [v for i in flowing if (v := self.back[i]) is not None]
        needed = needed_nodes(self.work.nodes, wanted, ())
        return [i for i, n in enumerate(self.forward.inputs) if n.id in needed]

    def body(self, read: Sequence[int], flowing: Sequence[int]) -> Graph:
        """The body of the backward choice: from captures and cotangents to the captures' cotangents."""
        labels = _labels(self.forward)
        nodes = [self.forward.inputs[i] for i in read]
        inputs = [(labels[i], n.values[0]) for i, n in zip(read, nodes, strict=True)]
        inputs += [(str(self.work.node_of(v).op.attributes()["label"]), v) for v in self.seeds]
        outputs = [(f"grad_{labels[i]}", self._cotangent(i)) for i in flowing]
        return extract(self.work.name, self.work.dims, self.work.nodes, inputs, outputs)

    def _cotangent(self, capture: int) -> Value:
        found = self.back[capture]
        if found is not None:
            return found
        kind = self.forward.inputs[capture].types[0]
        zero = arith.constant(self.work, 0.0, kind.dtype)
        return self.work(BroadcastInDim(kind.shape, ()), zero) if kind.shape else zero


def _labels(body: Graph) -> list[str]:
    return [str(n.op.attributes()["label"]) for n in body.inputs]


__all__ = ["cond_gradient"]
