"""The block tree of a graph: nodes grouped by the path they came from, repeated blocks folded.

A path is the dotted text of the scopes, so `layer1.0: Bottleneck` also makes a group `layer1` that holds the blocks of
a stage. A label that is called again later (a shared layer) would make a picture run in circles; each call is then a
block of its own, `emb` and `emb (2)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Union

from graphc.ir.graph import Graph, Node, Scope, Value
from graphc.ir.op import Op
from graphc.source import Span

MAX_TRACED = 20_000
"""Nodes of the largest graph in which calls of one layer are told apart: it takes memory that grows as the square."""

Part = Union["Block", Node]
Step = tuple[str, str, "Span | None"]  # label, kind, place


@dataclass(frozen=True, eq=False)
class Block:
    """One use of a block or layer, or a group implied by dotted labels (`kind` is then empty).

    `parts` are blocks and single ops in the order of their first node, `nodes` everything inside. After folding,
    `repeats` holds the other blocks this one stands for.
    """

    label: str
    kind: str
    path: str
    span: Span | None
    parts: tuple[Part, ...]
    nodes: tuple[Node, ...]
    repeats: tuple[Block, ...] = ()

    @property
    def times(self) -> int:
        """How many blocks this one stands for."""
        return 1 + len(self.repeats)

    @property
    def all_nodes(self) -> tuple[Node, ...]:
        """Nodes of the block and of those it stands for."""
        return self.nodes + tuple(n for r in self.repeats for n in r.nodes)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The parts that are blocks."""
        return tuple(p for p in self.parts if isinstance(p, Block))

    @property
    def common_kind(self) -> str:
        """The kind of all parts when an implied group holds blocks of one kind only, else empty."""
        kinds = {p.kind for p in self.blocks}
        many = sum(b.times for b in self.blocks) > 1
        return kinds.pop() if not self.kind and len(kinds) == 1 and many else ""


ScopeOf = Callable[[Node], Sequence[Scope]]


def scope_of_node(node: Node) -> Sequence[Scope]:
    """The scope a node carries."""
    return node.scope


def steps_of(scope: Iterable[Scope]) -> list[Step]:
    """A scope as single path steps; a dotted label becomes one step per part, the last of which is the block."""
    steps: list[Step] = []
    for s in scope:
        *groups, last = s.label.split(".")
        steps += [(g, "", None) for g in groups]
        steps.append((last, s.kind, s.span))
    return steps


@dataclass
class _Group:
    step: Step
    nodes: list[Node] = field(default_factory=list)
    mask: int = 0


class _Builder:
    def __init__(self, graph: Graph, scope_of: ScopeOf) -> None:
        self.steps = {n.id: steps_of(scope_of(n)) for n in graph.nodes}
        self.ancestors: dict[int, int] = {}
        for node in graph.nodes if len(graph) <= MAX_TRACED else ():
            mask = 0
            for v in node.operands:
                mask |= self.ancestors[v.node] | 1 << v.node
            self.ancestors[node.id] = mask

    def parts(self, nodes: Iterable[Node], level: int, prefix: str) -> tuple[Part, ...]:
        current: dict[tuple[str, str], _Group] = {}
        order: list[_Group | Node] = []
        for node in nodes:
            steps = self.steps[node.id]
            if len(steps) <= level:
                order.append(node)
                continue
            step = steps[level]
            group = current.get(step[:2])
            if group is None or self._leaves(group, node):
                group = current[step[:2]] = _Group(step)
                order.append(group)
            group.nodes.append(node)
            group.mask |= 1 << node.id
        seen: dict[str, int] = {}
        made: list[Part] = []
        for item in order:
            if isinstance(item, Node):
                made.append(item)
                continue
            label, kind, span = item.step
            seen[label] = use = seen.get(label, 0) + 1
            name = label if use == 1 else f"{label} ({use})"
            path = f"{prefix}{name}"
            parts = self.parts(item.nodes, level + 1, path + ".")
            made.append(Block(name, kind, path, span, parts, tuple(item.nodes)))
        return tuple(made)

    def _leaves(self, group: _Group, node: Node) -> bool:
        """True when a path from the group to the node runs outside the group."""
        return any(
            not group.mask >> v.node & 1 and self.ancestors.get(v.node, 0) & group.mask
            for v in node.operands
        )


def build(graph: Graph, nodes: Iterable[Node], scope_of: ScopeOf = scope_of_node) -> Block:
    """The tree over some of a graph's nodes (in id order); the root carries the graph's name and an empty path."""
    nodes = tuple(nodes)
    parts = _Builder(graph, scope_of).parts(nodes, 0, "")
    return Block("", graph.name, "", None, parts, nodes)


def layers_of(root: Block, kinds: Callable[[str], bool]) -> frozenset[str]:
    """Paths of the outermost blocks of a layer's kind: each is one call of a layer."""
    found: set[str] = set()

    def visit(block: Block) -> None:
        for child in block.blocks:
            if child.kind and kinds(child.kind):
                found.add(child.path)
            else:
                visit(child)

    visit(root)
    return frozenset(found)


def _op_key(op: Op) -> object:
    """The op without the names inside the bodies it owns."""
    if op.name == "input":
        return op.name
    if not op.regions:
        return op
    plain = tuple((k, v) for k, v in op.attributes().items() if not isinstance(v, Graph))
    return op.name, plain, tuple(_shape_of(body, body.nodes, lambda n: ()) for body in op.regions)


def _shape_of(graph: Graph, nodes: Sequence[Node], extra: Callable[[Node], object]) -> object:
    """Equal for node lists that compute the same on values of the same types, whatever their names."""
    index = {n.id: i for i, n in enumerate(nodes)}

    def operand(v: Value) -> object:
        return (index[v.node], v.result) if v.node in index else graph.type_of(v)

    return tuple(
        (_op_key(n.op), tuple(operand(v) for v in n.operands), n.types, extra(n)) for n in nodes
    )


def _number(label: str) -> tuple[str, int] | None:
    """`layer3` is number 3 of `layer`; None for a label without a number at its end."""
    found = re.fullmatch(r"(.*?)(\d{1,9})", label)
    return (found[1], int(found[2])) if found else None


class _Folder:
    def __init__(self, graph: Graph, scope_of: ScopeOf) -> None:
        self.graph = graph
        self.scope_of = scope_of

    def key(self, block: Block) -> object:
        depth = len(block.path.split("."))

        def kinds(node: Node) -> object:
            return tuple(step[1] for step in steps_of(self.scope_of(node))[depth:])

        return block.kind, _shape_of(self.graph, block.nodes, kinds)

    def runs(self, parts: Iterable[Part]) -> Iterator[list[Part]]:
        run: list[Part] = []
        number: tuple[str, int] | None = None
        key: object = None
        for part in parts:
            new = _number(part.label) if isinstance(part, Block) and part.kind else None
            new_key = self.key(part) if isinstance(part, Block) and new else None
            follows = new and number and new == (number[0], number[1] + 1) and new_key == key
            if not follows:
                if run:
                    yield run
                run = []
            run.append(part)
            number, key = new, new_key
        if run:
            yield run

    def fold(self, block: Block) -> Block:
        parts: list[Part] = []
        for first, *rest in self.runs(block.parts):
            if isinstance(first, Block):
                others = tuple(r for r in rest if isinstance(r, Block))
                parts.append(replace(self.fold(first), repeats=others))
            else:
                parts.append(first)
        return replace(block, parts=tuple(parts))


def fold(graph: Graph, block: Block, scope_of: ScopeOf = scope_of_node) -> Block:
    """The tree with repeated blocks folded.

    A run of neighbours that are numbered in order (`layer1.1`, `layer1.2`), of one kind and of one structure becomes
    its first block, with the others as `repeats`. Blocks with names of their own (`query`, `key`) stay apart.
    """
    return _Folder(graph, scope_of).fold(block)
