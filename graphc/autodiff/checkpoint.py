"""Checkpoints: blocks whose inner values the backward pass computes again instead of keeping them (Chen et al. 2016).

A block is told by its scope, so that it costs nothing where no gradient is taken. What is read outside of it
is kept, and what goes into it stands behind a barrier, so that no pass merges the second computation with the first.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.ir.graph import GraphBuilder, Node, Scope, Value
from graphc.ops import OptimizationBarrier

BACKWARD = Scope("grad", "Gradient")
"""The first step of the block path of every backward node: a picture shows a box with the same layers again."""

CHECKPOINT = "Checkpoint"
"""The kind of the scope around a block that is computed again."""


def backward(node: Node) -> tuple[Scope, ...]:
    """The scope of what belongs to a node's gradient."""
    return node.scope if node.scope[:1] == (BACKWARD,) else (BACKWARD, *node.scope)


class Recomputation:
    """The second computation of each checkpoint block, emitted when reverse mode first needs it."""

    def __init__(self, b: GraphBuilder) -> None:
        self.b = b
        self._blocks: dict[tuple[Scope, ...], list[Node]] = {}
        for node in b.nodes:
            block = _block(node)
            if block is not None and node.operands:  # weights and literals are there anyway
                self._blocks.setdefault(block, []).append(node)
        self._again: dict[int, Node] = {}
        self._kept = {v for n in b.nodes for v in n.operands if _block(n) != _block(b.node_of(v))}

    def of(self, node: Node) -> Node:
        """The node to take the gradient at: itself, or its second computation."""
        block = _block(node)
        if block is None or node.id >= self._end(block):
            return node
        if node.id not in self._again:
            self._recompute(self._blocks[block])
        return self._again[node.id]

    def _end(self, block: tuple[Scope, ...]) -> int:
        nodes = self._blocks.get(block)
        return nodes[-1].id + 1 if nodes else 0

    def _recompute(self, nodes: list[Node]) -> None:
        moved: dict[Value, Value] = {}
        for node in nodes:
            with self.b.at(backward(node), node.span):
                for value in node.operands:
                    if value not in moved:
                        moved[value] = self._outside(value)
                operands = tuple(moved[v] for v in node.operands)
                if all(v in self._kept for v in node.values):  # read outside, so it is there
                    self._again[node.id] = replace(node, operands=operands)
                    continue
                new = self.b.emit(node.op, *operands)
            moved.update(zip(node.values, new, strict=True))
            self._again[node.id] = self.b.node_of(new[0])

    def _outside(self, value: Value) -> Value:
        """A value from outside of the block: behind a barrier, but for what is there anyway, such as weights."""
        node = self.b.node_of(value)
        kept = node.op.name != "input" or bool(getattr(node.op, "state", False))
        if not node.operands and kept:
            return value
        return self.b(OptimizationBarrier(), value)


def _block(node: Node) -> tuple[Scope, ...] | None:
    """The path of the outermost checkpoint block that a node lies in."""
    for depth, scope in enumerate(node.scope):
        if scope.kind == CHECKPOINT:
            return node.scope[: depth + 1]
    return None
