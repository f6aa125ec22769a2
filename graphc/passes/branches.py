"""Choices lose what a run need not choose.

- Choices between the same bodies on the same operands are one choice: what a backward pass keeps of the forward one.
  This comes first, while their bodies are still alike.
- A predicate that is known, and bodies that are alike, leave one body, which becomes part of the graph.
- Results that nobody reads, and captures that no body reads, disappear. A result that is the same capture in both
  bodies is that value; a capture that is one number is written into the bodies.
- What a body computes from weights alone moves in front of the choice, where it is done when a module is built.
- A choice by `not p` is the other choice by `p`.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import BroadcastInDim, Cond, Constant, Input, Not, arith
from graphc.ops.bodies import close, fresh, inline, needed_nodes
from graphc.passes.static import Static, open_ended, splat

MAX_WALKS = 16
"""Walks over a graph after which its choices stay as they are."""


def join(graph: Graph) -> Graph:
    """The graph with one choice for all between the same bodies on the same operands: see `ops/cond_gradient.py`."""
    while sum(isinstance(node.op, Cond) for node in graph.nodes) > 1:
        new = rewrite(graph, _Joiner(graph).rule)
        if new is graph:
            break
        graph = new
    return graph


class _Joiner:
    """Choices with equal operands and bodies become the first of them, which gives what all of them give."""

    def __init__(self, graph: Graph) -> None:
        self.pairs: dict[object, dict[tuple[Value, ...], str]] = {}
        self.count: dict[object, int] = {}
        self.done: dict[object, dict[tuple[Value, ...], Value]] = {}
        for node in graph.nodes:
            if isinstance(node.op, Cond):
                key, pairs = _key(node, node.op), _pairs(node.op)
                self.count[key] = self.count.get(key, 0) + 1
                known = self.pairs.setdefault(key, {})
                for pair, label in pairs.items():
                    known.setdefault(pair, fresh(label, known.values()))

    def rule(self, r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        op = node.op
        if not isinstance(op, Cond) or self.count[_key(node, op)] == 1:
            return None
        key = _key(node, op)
        if key not in self.done:
            pairs = self.pairs[key]
            bodies = [
                Graph(b.name, b.dims, b.nodes, [(label, pair[i]) for pair, label in pairs.items()])
                for i, b in enumerate(op.regions)
            ]
            made = r.emit(Cond(*bodies), *operands)
            self.done[key] = dict(zip(pairs, made, strict=True))
        values = zip(*([v for _, v in body.outputs] for body in op.regions), strict=True)
        return [self.done[key][pair] for pair in values]


def _key(node: Node, op: Cond) -> object:
    bodies = [tuple((n.op, n.operands, n.types) for n in body.nodes) for body in op.regions]
    return (node.operands, *bodies)


def _pairs(op: Cond) -> dict[tuple[Value, ...], str]:
    """The results of both bodies in pairs, and what they are called."""
    values = zip(*([v for _, v in body.outputs] for body in op.regions), strict=True)
    found: dict[tuple[Value, ...], str] = {}
    for pair, (label, _) in zip(values, op.on_true.outputs, strict=True):
        found.setdefault(pair, label)
    return found


def settle(graph: Graph) -> Graph:
    """The graph with choices that do less."""
    if not any(isinstance(node.op, Cond) for node in graph.nodes):
        return graph
    for _ in range(MAX_WALKS):
        new = rewrite(graph, _settled)
        if new is graph:
            break
        graph = new
    return graph


def _settled(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
    op = node.op
    if not isinstance(op, Cond):
        return None
    predicate, *captures = operands
    known = splat(r, predicate)
    if known is not None:
        return inline(r, op.on_true if known else op.on_false, captures)
    if _plain(op.on_true) == _plain(op.on_false):
        return inline(r, op.on_true, captures)
    maker = r.node_of(predicate)
    if isinstance(maker.op, Not):
        return r.emit(Cond(op.on_false, op.on_true), *maker.operands, *captures)
    return _Lean(r, node, op, predicate, captures).run()


def _plain(body: Graph) -> object:
    """A body without the places and names of what is in it."""
    kept = [(n.op.attributes()["label"] if isinstance(n.op, Input) else n.op) for n in body.nodes]
    wiring = [(n.operands, n.types) for n in body.nodes]
    return (kept, wiring, [v for _, v in body.outputs])


class _Lean:
    """One choice on its way to less."""

    def __init__(
        self, r: Rewriter, node: Node, op: Cond, predicate: Value, captures: Sequence[Value]
    ) -> None:
        self.r, self.node, self.op = r, node, op
        self.predicate, self.captures = predicate, list(captures)
        self.sides = [_Side(r, body, captures) for body in op.regions]

    def run(self) -> Sequence[Value] | None:
        """What the results are now, or None where nothing changes."""
        r, node = self.r, self.node
        pairs = list(zip(*(side.outputs for side in self.sides), strict=True))
        whole: dict[int, Value] = {}  # results that are there already
        kept: dict[tuple[Value, ...], int] = {}
        labels: list[str] = []
        for i, pair in enumerate(pairs):
            given = [s.operand.get(v) for s, v in zip(self.sides, pair, strict=True)]
            if given[0] is not None and given[0] == given[1]:
                whole[i] = given[0]
            elif r.users_left(node.values[i]) and pair not in kept:
                kept[pair] = len(kept)
                labels.append(self.op.on_true.outputs[i][0])
        for side, values in zip(self.sides, zip(*kept, strict=True), strict=False):
            side.keep(values)
        reads = {x for side in self.sides for x in side.reads.values()} if kept else set()
        operands = [x for x in dict.fromkeys(self.captures) if x in reads]
        operands += [x for x in sorted(reads) if x not in operands]
        if len(kept) == len(pairs) and operands == self.captures:
            return None
        results: Sequence[Value] = ()
        if kept:
            bodies = [side.write(operands, self._labels(operands), labels) for side in self.sides]
            results = r.emit(Cond(*bodies), self.predicate, *operands)
        return [
            whole[i]
            if i in whole
            else results[kept[pair]]
            if pair in kept
            else self._anything(node.values[i])
            for i, pair in enumerate(pairs)
        ]

    def _labels(self, operands: Sequence[Value]) -> list[str]:
        """What the bodies call their inputs: as before, or after what made them."""
        body, found = self.op.on_true, list[str]()
        for x in operands:
            if x in self.captures:
                name = str(body.inputs[self.captures.index(x)].op.attributes()["label"])
            else:
                name = self.r.node_of(x).op.name
            found.append(fresh(name, found))
        return found

    def _anything(self, result: Value) -> Value:
        """Some value of the type of a result that nobody reads."""
        kind = self.node.types[result.result]
        zero = arith.constant(self.r, 0, kind.dtype)
        return self.r(BroadcastInDim(kind.shape, ()), zero) if kind.shape else zero


class _Side:
    """One body: `operand` gives what its inputs stand for, `reads` what it reads from outside in the end."""

    def __init__(self, r: Rewriter, body: Graph, captures: Sequence[Value]) -> None:
        self.r, self.body = r, body
        inputs = [n.values[0] for n in body.inputs]
        self.operand = dict(zip(inputs, captures, strict=True))
        self.outputs = tuple(v for _, v in body.outputs)
        self.reads: dict[Value, Value] = {}
        self._moved: dict[Value, Value] = {}

    def keep(self, values: Sequence[Value]) -> None:
        """Decides what is left of the body when these are its results."""
        nodes = self.body.nodes
        self.outputs = tuple(values)
        moving = self._moving(needed_nodes(nodes, values, ()))
        staying = needed_nodes(nodes, values, [v for i in moving for v in nodes[i].values])
        read = [*values, *(v for i in sorted(staying) for v in nodes[i].operands)]
        for v in dict.fromkeys(read):
            if v.node in moving:
                self.reads[v] = self._outside(v)
            elif v in self.operand and not self._is_number(v):
                self.reads[v] = self.operand[v]

    def _moving(self, needed: frozenset[int]) -> set[int]:
        """Nodes that depend on weights only, and are worth storing; nothing that might fault on an index."""
        static, fixed, moving = Static(), set[int](), set[int]()
        for id in sorted(needed):
            node = self.body.node(id)
            if isinstance(node.op, Input):
                if static(self.r, self.operand[node.values[0]]):
                    fixed.add(id)
            elif isinstance(node.op, Constant):
                fixed.add(id)
            elif node.operands and not open_ended(node) and not node.op.regions:
                smooth = all(self.body.type_of(v).dtype.is_float for v in node.operands)
                if smooth and all(v.node in fixed for v in node.operands):
                    fixed.add(id)
                    if not node.op.replicated:
                        moving.add(id)
        return moving

    def _outside(self, value: Value) -> Value:
        """A value of the body, computed in front of the choice."""
        if value in self.operand:
            return self.operand[value]
        if value not in self._moved:
            node = self.body.node(value.node)
            operands = [self._outside(v) for v in node.operands]
            with self.r.at(node.scope, node.span):
                made = self.r.emit(node.op, *operands)
            self._moved.update(zip(node.values, made, strict=True))
        return self._moved[value]

    def _is_number(self, value: Value) -> bool:
        node = self.r.node_of(self.operand[value])
        if isinstance(node.op, BroadcastInDim):
            node = self.r.node_of(node.operands[0])
        return isinstance(node.op, Constant) and node.op.splat is not None

    def write(
        self, operands: Sequence[Value], labels: Sequence[str], outputs: Sequence[str]
    ) -> Graph:
        """The body over those operands."""
        b = GraphBuilder(self.body.name, self.r.dims)
        given = {}
        for x, label in zip(operands, labels, strict=True):
            kind = self.r.type_of(x)
            given[x] = b(Input(label, kind.dtype, kind.shape))
        done = {v: given[x] for v, x in self.reads.items()}
        for id in sorted(needed_nodes(self.body.nodes, self.outputs, done)):
            node = self.body.node(id)
            if isinstance(node.op, Input):
                done[node.values[0]] = self._written(b, self.operand[node.values[0]])
                continue
            with b.at(node.scope, node.span):
                made = b.emit(node.op, *(done[v] for v in node.operands))
            done.update(zip(node.values, made, strict=True))
        return close(b, [(label, done[v]) for label, v in zip(outputs, self.outputs, strict=True)])

    def _written(self, b: GraphBuilder, x: Value) -> Value:
        """A number, repeated, in the body."""
        node = self.r.node_of(x)
        return b(node.op, *(self._written(b, v) for v in node.operands))


__all__ = ["join", "settle"]
