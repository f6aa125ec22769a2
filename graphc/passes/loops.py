"""Loops lose what they need not do: the work of every step that can be done once, or for all steps at once.

- Loops over the same sequences with the same carries are one loop: what a backward pass saves of the forward one. This
  comes first, while their bodies are still alike.
- Results nobody reads, carries that only feed themselves, sequences and captures nobody uses disappear. A sequence
  whose elements are all equal is a capture; a capture that is one number is written into the body.
- What is the same at every step moves in front of the loop.
- Products of sequences move in front of the loop as well, as one product over all steps, with what leads to them and
  the arithmetic right behind: the input projection of a recurrent layer is one large product.
- Products that no later step depends on move behind the loop, with all that follows: an output projection.

`hoist.py` holds the last three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.rewrite import Rewriter, rewrite
from graphc.ops import BroadcastInDim, Constant, Input, Reshape, Scan, arith
from graphc.ops.bodies import close, fresh, needed_nodes
from graphc.passes.hoist import before, behind

MAX_WALKS = 16
"""Walks over a graph after which its loops stay as they are."""


def merge(graph: Graph) -> Graph:
    """The graph with one loop for all that go over the same sequences with the same carries."""
    while sum(isinstance(node.op, Scan) for node in graph.nodes) > 1:
        new = rewrite(graph, _Merger(graph).rule)
        if new is graph:
            break
        graph = new
    return graph


def lighten(graph: Graph) -> Graph:
    """The graph with loops that do less."""
    if not any(isinstance(node.op, Scan) for node in graph.nodes):
        return graph
    for _ in range(MAX_WALKS):
        new = rewrite(graph, _leaner)
        for moved in (before, behind):
            new = rewrite(new, moved)
        if new is graph:
            break
        graph = new
    return graph


# ---- Loops that are one ---------------------------------------------------------------------------


class _Merger:
    """Scans with equal operands and carries become the first of them, which stacks what all of them stack."""

    def __init__(self, graph: Graph) -> None:
        self.same: dict[object, list[Node]] = {}
        for node in graph.nodes:
            if isinstance(node.op, Scan):
                self.same.setdefault(_key(node, node.op), []).append(node)
        self.done: dict[object, tuple[Value, ...]] = {}

    def rule(self, r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
        op = node.op
        if not isinstance(op, Scan):
            return None
        key = _key(node, op)
        group = [n.op for n in self.same[key] if isinstance(n.op, Scan)]
        if len(group) == 1:
            return None
        stacked = list(dict.fromkeys(v for each in group for v in each.emitted))
        if key not in self.done:
            outputs = [*op.body.outputs[: op.carries]]
            for value in stacked:
                outputs.append((fresh("out", [n for n, _ in outputs]), value))
            body = Graph(op.body.name, op.body.dims, op.body.nodes, outputs)
            self.done[key] = r.emit(replace(op, body=body), *operands)
        results = self.done[key]
        return (
            *results[: op.carries],
            *(results[op.carries + stacked.index(v)] for v in op.emitted),
        )


def _key(node: Node, op: Scan) -> object:
    nodes = tuple((n.op, n.operands, n.types) for n in op.body.nodes)
    shape = (op.length, op.sequences, op.carries, op.reverse)
    return (node.operands, shape, nodes, op.next)


# ---- What nobody needs ----------------------------------------------------------------------------


def _leaner(r: Rewriter, node: Node, operands: tuple[Value, ...]) -> Sequence[Value] | None:
    """A scan without what nobody needs, or None if it has nothing of the kind."""
    op = node.op
    if not isinstance(op, Scan):
        return None
    used = [r.users_left(v) > 0 for v in node.values]
    lean = _Lean(r, op, operands, used)
    return lean.emit() if lean.changes() else None


class _Lean:
    """What is left of one scan. Results that are not needed are some value of their type."""

    def __init__(
        self, r: Rewriter, op: Scan, operands: tuple[Value, ...], used: Sequence[bool]
    ) -> None:
        self.r, self.op, self.operands = r, op, operands
        body = op.body
        inputs = (*op.steps, *op.carried, *op.captured)
        self.operand = dict(zip(inputs, operands, strict=True))
        self.fixed = {  # carries that never change
            v for v, after in zip(op.carried, op.next, strict=True) if v == after
        }
        self.even = {v: x for v in op.steps if (x := self._repeated(self.operand[v])) is not None}
        wanted = {v for v, u in zip(op.emitted, used[op.carries :], strict=True) if u}
        live = {i for i in range(op.carries) if used[i] and op.carried[i] not in self.fixed}
        # Stacks of what is there already are no results of the loop.
        self.outside = {v for v in wanted if v in op.steps or v in op.captured or v in self.fixed}
        self.stacked = [v for v in dict.fromkeys(op.emitted) if v in wanted - self.outside]
        while True:
            outputs = [op.next[i] for i in sorted(live)] + self.stacked
            read = {
                v for id in needed_nodes(body.nodes, outputs, ()) for v in body.nodes[id].values
            }
            read |= set(outputs)
            more = {i for i, v in enumerate(op.carried) if v in read and v not in self.fixed} - live
            if not more:
                break
            live |= more
        self.live = sorted(live)
        self.read = read & set(inputs)

    def _repeated(self, sequence: Value) -> tuple[BroadcastInDim, Value] | None:
        """How to make one element of a sequence whose elements are all the same."""
        node = self.r.node_of(sequence)
        if not isinstance(node.op, BroadcastInDim):
            return None
        op, (x,) = node.op, node.operands
        if 0 in op.dims and self.r.type_of(x).shape[0] != 1:
            return None
        if 0 in op.dims:
            return None if self.op.length == 1 else (op, x)
        return op, x

    def _literal(self, value: Value) -> bool:
        """Whether an operand is a number, repeated."""
        node = self.r.node_of(value)
        if isinstance(node.op, BroadcastInDim):
            node = self.r.node_of(node.operands[0])
        return isinstance(node.op, Constant) and node.op.splat is not None

    def changes(self) -> bool:
        """Whether anything is left out."""
        op = self.op
        steps = [v for v in op.steps if v in self.read and v not in self.even]
        captures = [v for v in op.captured if v in self.read]
        same = (
            len(self.live) == op.carries
            and len(self.stacked) == len(op.emitted)
            and len(steps) == op.sequences
            and len(captures) == len(op.captured)
        )
        distinct = all(
            len({self.operand[v] for v in group}) == len(group) for group in (steps, captures)
        )
        return not (same and distinct) or any(self._literal(self.operand[v]) for v in captures)

    def emit(self) -> tuple[Value, ...]:
        """The scan that is left, and what the results of the old one are now."""
        r, op = self.r, self.op
        labels = dict(zip((*op.steps, *op.carried, *op.captured), op.labels, strict=True))
        b = GraphBuilder(op.body.name, r.dims)
        taken: list[str] = []

        def enter(old: Value) -> Value:
            taken.append(fresh(labels[old], taken))
            kind = op.body.type_of(old)
            return b(Input(taken[-1], kind.dtype, kind.shape))

        done: dict[Value, Value] = {}
        steps: dict[Value, Value] = {}  # operand -> the body's input; so in captures
        for v in op.steps:
            if v in self.read and v not in self.even:
                x = self.operand[v]
                done[v] = steps[x] if x in steps else steps.setdefault(x, enter(v))
        carried = [op.carried[i] for i in self.live]
        done.update((v, enter(v)) for v in carried)
        captures: dict[Value, Value] = {}
        same = [(v, self._element(v)) for v in op.steps if v in self.read and v in self.even]
        same += [(v, self.operand[v]) for v in (*op.carried, *op.captured) if v not in done]
        for v, x in same:
            if v in self.read and v not in done and not self._literal(x):
                done[v] = captures[x] if x in captures else captures.setdefault(x, enter(v))
        for v, x in same:
            if v in self.read and v not in done:
                done[v] = self._written(b, x)
        outputs = [(labels[op.carried[i]], op.next[i]) for i in self.live]
        for v in self.stacked:
            outputs.append((fresh("out", [n for n, _ in outputs]), v))
        for id in sorted(needed_nodes(op.body.nodes, [v for _, v in outputs], done)):
            node = op.body.nodes[id]
            with b.at(node.scope, node.span):
                made = b.emit(node.op, *(done[v] for v in node.operands))
            done.update(zip(node.values, made, strict=True))
        body = close(b, [(n, done[v]) for n, v in outputs])
        if not outputs:
            return self._results(())
        new = replace(op, body=body, sequences=len(steps), carries=len(carried))
        return self._results(r.emit(new, *steps, *(self.operand[v] for v in carried), *captures))

    def _element(self, v: Value) -> Value:
        """The one element that a sequence repeats."""
        r, (broadcast, x) = self.r, self.even[v]
        if 0 in broadcast.dims:
            x = r(Reshape(r.type_of(x).shape[1:]), x)
        dims = tuple(d - 1 for d in broadcast.dims if d)
        shape = broadcast.shape[1:]
        return x if r.type_of(x).shape == shape else r(BroadcastInDim(shape, dims), x)

    def _written(self, b: GraphBuilder, x: Value) -> Value:
        """A number, repeated, in the body."""
        node = self.r.node_of(x)
        return b(node.op, *(self._written(b, v) for v in node.operands))

    def _results(self, results: tuple[Value, ...]) -> tuple[Value, ...]:
        """What each result is now; one that nobody reads is some value of its type."""
        op = self.op
        made = [
            results[self.live.index(i)] if i in self.live else self.operand[v]
            for i, v in enumerate(op.carried)
        ]
        for v in op.emitted:
            if v in self.stacked:
                made.append(results[len(self.live) + self.stacked.index(v)])
            elif v in op.steps and v in self.outside:
                made.append(self.operand[v])
            else:
                made.append(self._everywhere(v))
        return tuple(made)

    def _everywhere(self, v: Value) -> Value:
        """The stack of a value that is the same at every step; of zeros if nobody reads it."""
        kind = self.op.body.type_of(v)
        shape = (self.op.length, *kind.shape)
        if v in self.outside:
            dims = tuple(range(1, kind.rank + 1))
            return self.r(BroadcastInDim(shape, dims), self.operand[v])
        return self.r(BroadcastInDim(shape, ()), arith.constant(self.r, 0, kind.dtype))


__all__ = ["lighten", "merge"]
