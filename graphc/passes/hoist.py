"""Work that leaves a loop: in front of it, behind it, for all steps at once where it differs from step to step.

An op says itself how it does many steps at once: `Op.stacked`. A part of the body moves when it holds a product (or a
reduction, a window), since those are what one large call does faster than many small ones; elementwise work and views
move along with a product that needs them or that they follow, and stay where they are otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from graphc.ir.dim import DimLike
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Pattern
from graphc.ir.rewrite import Rewriter
from graphc.ops import BroadcastInDim, Constant, Input, Scan, Transpose
from graphc.ops.bodies import depending, extract, fresh, needed_nodes

_HEAVY = (Pattern.CONTRACT, Pattern.WINDOW, Pattern.COMPOSITE)
_STAYS = (Pattern.CONTRACT, Pattern.WINDOW, Pattern.OPAQUE, Pattern.REGION)
"""Readers that need a replicated operand (a broadcast, a counting tensor) in memory."""


def before(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
    """A scan whose body has lost what depends on no carry, or None."""
    op = node.op
    return _Before(r, op, operands).run() if isinstance(op, Scan) else None


def behind(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
    """A scan whose body has lost products that no carry depends on, and what follows them, or None."""
    op = node.op
    return _Behind(r, op, operands).run() if isinstance(op, Scan) else None


@dataclass(frozen=True)
class _Outside:
    """A value of a body outside of the loop; `each`: stacked, one for each step."""

    value: Value
    each: bool


class _Mover:
    """Computes values of a body outside of its loop. `known` are those that are there already."""

    def __init__(self, r: Rewriter, op: Scan) -> None:
        self.r, self.op = r, op
        self.known: dict[Value, _Outside | None] = {}

    def move(self, value: Value) -> _Outside | None:
        """A value outside of the loop, or None where some op on the way cannot do all steps at once."""
        if value not in self.known:
            node = self.op.body.node(value.node)
            operands = [self.move(v) for v in node.operands]
            for v, found in zip(node.values, self._emit(node, operands), strict=True):
                self.known[v] = found
        return self.known[value]

    def _emit(self, node: Node, operands: Sequence[_Outside | None]) -> Sequence[_Outside | None]:
        r, given = self.r, [x for x in operands if x is not None]
        nothing = [None] * len(node.types)
        if len(given) < len(operands) or isinstance(node.op, Input):
            return nothing
        with r.at(node.scope, node.span):
            each = [x.each for x in given]
            if not any(each):
                made = r.emit(node.op, *(x.value for x in given))
                return [_Outside(v, False) for v in made]
            ranks = [self.op.body.type_of(v).rank for v in node.operands]
            stacked = node.op.stacked(self.op.length, ranks, each)
            if stacked is None:
                return nothing
            values = [self._spread(x) if stacked.spread else x.value for x in given]
            result = r(stacked.op, *values)
            if stacked.axis:
                rest = (i for i in range(r.type_of(result).rank) if i != stacked.axis)
                result = r(Transpose((stacked.axis, *rest)), result)
            return [_Outside(result, True)]

    def _spread(self, x: _Outside) -> Value:
        if x.each:
            return x.value
        kind = self.r.type_of(x.value)
        shape: tuple[DimLike, ...] = (self.op.length, *kind.shape)
        return self.r(BroadcastInDim(shape, tuple(range(1, kind.rank + 1))), x.value)


class _Before:
    """One scan on its way to a lighter body."""

    def __init__(self, r: Rewriter, op: Scan, operands: tuple[Value, ...]) -> None:
        self.r, self.op, self.operands = r, op, operands
        self.mover = _Mover(r, op)
        inputs = (*op.steps, *op.carried, *op.captured)
        for v, x in zip(inputs, operands, strict=True):
            self.mover.known[v] = None if v in op.carried else _Outside(x, v in op.steps)

    def run(self) -> Sequence[Value] | None:
        op, nodes = self.op, self.op.body.nodes
        with_carries = depending(nodes, op.carried)
        with_steps = depending(nodes, op.steps)
        same = [n for n in nodes if n.id not in with_carries | with_steps]
        moving = {n.id for n in same if not isinstance(n.op, Input) and not self._stays(n)}
        free = [n for n in nodes if n.id in with_steps and n.id not in with_carries]
        free = [n for n in free if not isinstance(n.op, Input)]
        moving |= self._for_all_steps(free)
        # Only what the rest of the body reads has to be there for it.
        reads = [v for n in nodes if n.id not in moving for v in n.operands]
        reads += [v for _, v in op.body.outputs]
        frontier = [v for v in dict.fromkeys(reads) if v.node in moving]
        moved = {v: x for v in frontier if (x := self.mover.move(v)) is not None}
        return self._emit(moved) if moved else None

    def _stays(self, node: Node) -> bool:
        """Whether something that is the same at every step is as cheap inside: it is in no memory there."""
        if isinstance(node.op, Constant):
            return node.op.splat is not None
        users = self.op.body.users(node)
        return node.op.replicated and not any(
            user.op.pattern in _STAYS or user.op.alias for user, _ in users
        )

    def _for_all_steps(self, free: Sequence[Node]) -> set[int]:
        """The nodes, of those that depend on sequences alone, to do for all steps at once."""
        nodes = self.op.body.nodes
        ids = {n.id for n in free}
        heavy = [n for n in free if n.op.pattern in _HEAVY and self.mover.move(n.values[0])]
        given = (*self.op.steps, *self.op.captured)
        needed = needed_nodes(nodes, [v for n in heavy for v in n.values], given)
        moving = ids & needed
        for node in free:
            if node.op.pattern is not Pattern.ELEMENTWISE or node.id in moving:
                continue
            depends = [v for v in node.operands if v.node in ids or v in self.op.steps]
            follows = any(v.node in moving for v in depends)
            if follows and all(v.node in moving or v in self.op.steps for v in depends):
                moving.add(node.id)
        return moving

    def _emit(self, moved: dict[Value, _Outside]) -> Sequence[Value]:
        op, body = self.op, self.op.body
        new_steps = [v for v, x in moved.items() if x.each]
        new_captures = [v for v, x in moved.items() if not x.each]
        old = dict(zip((*op.steps, *op.carried, *op.captured), op.labels, strict=True))
        inputs: list[tuple[str, Value]] = []
        order = (*op.steps, *new_steps, *op.carried, *op.captured, *new_captures)
        for v in order:
            label = old.get(v) or body.node(v.node).op.name
            inputs.append((fresh(label, [n for n, _ in inputs]), v))
        lighter = extract(body.name, self.r.dims, body.nodes, inputs, body.outputs)
        first = op.sequences + op.carries
        operands = [
            *self.operands[: op.sequences],
            *(moved[v].value for v in new_steps),
            *self.operands[op.sequences : first],
            *self.operands[first:],
            *(moved[v].value for v in new_captures),
        ]
        new = replace(op, body=lighter, sequences=op.sequences + len(new_steps))
        return self.r.emit(new, *operands)


class _Behind:
    """One scan whose products of emitted values move behind it."""

    def __init__(self, r: Rewriter, op: Scan, operands: tuple[Value, ...]) -> None:
        self.r, self.op, self.operands = r, op, operands

    def run(self) -> Sequence[Value] | None:
        op, nodes = self.op, self.op.body.nodes
        kept = needed_nodes(nodes, op.next, ())
        with_steps = depending(nodes, (*op.steps, *op.carried))
        late = [n for n in nodes if n.id not in kept and n.id in with_steps]
        roots = [v for n in late if n.op.pattern is Pattern.CONTRACT for v in n.values]
        if not roots:
            return None
        moving = depending(nodes, roots)
        given = dict(zip((*op.steps, *op.captured), self._ends(), strict=True))
        mover = _Mover(self.r, op)
        reads = [v for n in nodes if n.id in moving for v in n.operands if v.node not in moving]
        stacks: list[Value] = []  # what the steps stack for it
        for v in dict.fromkeys(reads):
            if v in given:
                mover.known[v] = _Outside(given[v], v in op.steps)
            elif v.node in with_steps:
                stacks.append(v)
        body = op.body
        outputs = [*body.outputs[: op.carries]]
        keep = [v for v in dict.fromkeys((*op.emitted, *stacks)) if v.node not in moving]
        for v in keep:
            outputs.append((fresh("out", [n for n, _ in outputs]), v))
        inputs = list(zip(op.labels, (n.values[0] for n in body.inputs), strict=True))
        lighter: Graph = extract(body.name, self.r.dims, body.nodes, inputs, outputs)
        results = self.r.emit(replace(op, body=lighter), *self.operands)
        for v, x in zip(keep, results[op.carries :], strict=True):
            mover.known[v] = _Outside(x, True)
        found = [mover.move(v) for v in op.emitted]
        if not all(found):
            return None
        return (*results[: op.carries], *(x.value for x in found if x is not None))

    def _ends(self) -> tuple[Value, ...]:
        first = self.op.sequences + self.op.carries
        return self.operands[: self.op.sequences] + self.operands[first:]


__all__ = ["before", "behind"]
