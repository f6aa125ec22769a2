"""The graph: a networkx.MultiDiGraph behind a typed, immutable front.

The only module that imports networkx. A node is one application of one op. Ids are creation
ordinals, and operands exist before their users, so id order is a topological order and the one
order everything iterates in. Graphs are made by a `GraphBuilder` and never change; a pass builds a
new one (see `rewrite.py`). Edges run from producer to user, keyed by operand slot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import networkx as nx

from graphc.ir.dim import Bounds, DimLike
from graphc.ir.op import Op, OpError, Pattern
from graphc.ir.types import TensorType
from graphc.source import Span


class Value(NamedTuple):
    """One result of one node. (A tuple, for it is hashed more often than anything else.)"""

    node: int
    result: int = 0


@dataclass(frozen=True)
class Scope:
    """One step of the block path: the label (`conv1`) and what it is a use of (`Conv2d`)."""

    label: str
    kind: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Node:
    """One application of an op: its operands, result types, and where in the source it is from."""

    id: int
    op: Op
    operands: tuple[Value, ...]
    types: tuple[TensorType, ...]
    scope: tuple[Scope, ...] = ()
    span: Span | None = field(default=None, compare=False)
    values: tuple[Value, ...] = field(init=False, repr=False, compare=False)
    """The node's results."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", _results(self.id, len(self.types)))

    def moved(self, id: int, operands: tuple[Value, ...]) -> Node:
        """The same node under another id, on other operands of the same types."""
        # Passes do this to most nodes of a graph: a copy takes a third of what the constructor does.
        new = object.__new__(Node)
        new.__dict__.update(self.__dict__)
        new.__dict__.update(id=id, operands=operands, values=_results(id, len(self.types)))
        return new

    @property
    def path(self) -> str:
        """The block path as text: `layer1.0.conv1`."""
        return ".".join(s.label for s in self.scope)


def _results(id: int, count: int) -> tuple[Value, ...]:
    return (Value(id),) if count == 1 else tuple(Value(id, i) for i in range(count))


class Graph:
    """An immutable dataflow graph with named dims, inputs and named outputs."""

    def __init__(
        self,
        name: str,
        dims: Mapping[str, Bounds],
        nodes: Sequence[Node],
        outputs: Sequence[tuple[str, Value]],
    ) -> None:
        self.name = name
        self.dims: Mapping[str, Bounds] = MappingProxyType(dict(dims))
        self.outputs = tuple(outputs)
        self.sound = False  # set by the verifier, which looks at a body once
        self._net: nx.MultiDiGraph = nx.MultiDiGraph()
        self._index: dict[int, Node] = {}  # the nodes of the network, found without its views
        for node in nodes:
            if node.id in self._index:
                raise ValueError(f"node {node.id} is defined twice")
            self._net.add_node(node.id, node=node)
            self._index[node.id] = node
            for slot, value in enumerate(node.operands):
                self._check(value, f"operand {slot} of node {node.id} ({node.op.name})")
                if value.node >= node.id:
                    raise ValueError(f"node {node.id} uses node {value.node} before it is made")
                self._net.add_edge(value.node, node.id, key=slot, result=value.result)
        for out, value in self.outputs:
            self._check(value, f"output {out!r}")

    def _check(self, value: Value, what: str) -> None:
        node = self._index.get(value.node)
        if node is None or value.result >= len(node.types):
            raise ValueError(f"{what} refers to {value}, which does not exist")

    def node(self, id: int) -> Node:
        """The node with this id. Raises KeyError."""
        return self._index[id]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, operands before users."""
        return tuple(self._index[i] for i in sorted(self._index))

    def type_of(self, value: Value) -> TensorType:
        """The type of a value."""
        return self._index[value.node].types[value.result]

    def users(self, node: int | Node) -> tuple[tuple[Node, int], ...]:
        """(user, operand slot) of every use of a node's results, in id and slot order."""
        return self._users[node.id if isinstance(node, Node) else node]

    @cached_property
    def _users(self) -> dict[int, tuple[tuple[Node, int], ...]]:
        found: dict[int, list[tuple[Node, int]]] = {node.id: [] for node in self.nodes}
        for user in self.nodes:  # in id and slot order
            for slot, value in enumerate(user.operands):
                found[value.node].append((user, slot))
        return {id: tuple(users) for id, users in found.items()}

    def uses(self, value: Value) -> tuple[tuple[Node, int], ...]:
        """(user, operand slot) of every use of one value."""
        return tuple((n, s) for n, s in self.users(value.node) if n.operands[s] == value)

    def is_output(self, value: Value) -> bool:
        """True when the value is a result of the graph."""
        return value in self.output_uses

    @cached_property
    def output_uses(self) -> Mapping[Value, int]:
        """How many outputs are a value, for those that any is."""
        return Counter(value for _, value in self.outputs)

    @cached_property
    def inputs(self) -> tuple[Node, ...]:
        """The input nodes, in declaration order."""
        return tuple(n for n in self.nodes if n.op.name == "input")

    @cached_property
    def state(self) -> tuple[tuple[Node, Value], ...]:
        """The inputs that are state, each with its next value: the output of its name, or itself if there is none."""
        after = dict(self.outputs)
        return tuple(
            (n, after.get(str(getattr(n.op, "label", "")), n.values[0]))
            for n in self.inputs
            if getattr(n.op, "state", False)
        )

    @cached_property
    def results(self) -> tuple[tuple[str, Value], ...]:
        """The outputs that a caller gets: all but the next values of the state."""
        kept = {str(getattr(n.op, "label", "")) for n, _ in self.state}
        return tuple((name, value) for name, value in self.outputs if name not in kept)

    @cached_property
    def parameters(self) -> tuple[Node, ...]:
        """The parameter nodes, in declaration order."""
        return tuple(n for n in self.nodes if n.op.name == "parameter")

    @cached_property
    def live(self) -> frozenset[int]:
        """Ids of the inputs and of all nodes that an output needs."""
        return _live(self.nodes, self.outputs)

    @property
    def edges(self) -> Iterator[tuple[Value, int, int]]:
        """(value, user's id, operand slot) of every edge of the underlying multigraph."""
        for producer, user, slot, result in self._net.edges(keys=True, data="result"):
            yield Value(producer, result), user, slot

    @property
    def networkx(self) -> nx.MultiDiGraph:
        """A copy of the underlying multigraph, for analyses by networkx's own algorithms."""
        return self._net.copy()

    def substitute_dims(self, env: Mapping[str, DimLike], name: str | None = None) -> Graph:
        """Named dims replaced everywhere; types are inferred anew. Fixed names leave `dims`."""
        kept = {n: b for n, b in self.dims.items() if n not in env}
        b = GraphBuilder(name or self.name, kept)
        values: dict[Value, Value] = {}
        for node in self.nodes:
            with b.at(node.scope, node.span):
                new = b.emit(node.op.substitute(env), *(values[v] for v in node.operands))
            values.update(zip(node.values, new, strict=True))
        return b.build([(n, values[v]) for n, v in self.outputs])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Graph):
            return NotImplemented
        return (
            self.name == other.name
            and dict(self.dims) == dict(other.dims)
            and self.outputs == other.outputs
            and self.nodes == other.nodes
        )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.name, self.outputs, self.nodes))

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self)} nodes>"


class GraphBuilder:
    """Builds a graph node by node; an ill-typed node cannot be built."""

    def __init__(self, name: str, dims: Mapping[str, Bounds] | None = None) -> None:
        self.name = name
        self.dims: dict[str, Bounds] = dict(dims or {})
        self.nodes: list[Node] = []
        self._scope: tuple[Scope, ...] = ()
        self._span: Span | None = None

    @contextmanager
    def at(self, scope: tuple[Scope, ...], span: Span | None) -> Iterator[None]:
        """Nodes made inside carry this scope and span."""
        saved = self._scope, self._span
        self.place(scope, span)
        try:
            yield
        finally:
            self.place(*saved)

    def place(self, scope: tuple[Scope, ...], span: Span | None) -> None:
        """Nodes made from now on carry this scope and span."""
        self._scope, self._span = scope, span

    def emit(self, op: Op, *operands: Value) -> tuple[Value, ...]:
        """Adds one application. Raises OpError when the op rejects the operand types."""
        if op.arity is not None and op.arity != len(operands):
            raise OpError(f"{op.name} takes {op.arity} operands and got {len(operands)}")
        types = op.typed(*(self.type_of(v) for v in operands))
        node = Node(len(self.nodes), op, operands, types, self._scope, self._span)
        self.nodes.append(node)
        return node.values

    def __call__(self, op: Op, *operands: Value) -> Value:
        """`emit` for an op with one result."""
        (value,) = self.emit(op, *operands)
        return value

    def type_of(self, value: Value) -> TensorType:
        """The type of a value made so far."""
        return self.nodes[value.node].types[value.result]

    def node_of(self, value: Value) -> Node:
        """The node that made a value."""
        return self.nodes[value.node]

    def build(self, outputs: Sequence[tuple[str, Value]], *, prune: bool = False) -> Graph:
        """The finished graph.

        `prune` drops nodes that no output needs (inputs and their order stay) and renumbers.
        """
        if not prune:
            return Graph(self.name, self.dims, self.nodes, outputs)
        live = _live(self.nodes, outputs)
        ids: dict[int, int] = {}
        kept: list[Node] = []
        for node in self.nodes:
            if node.id in live:
                at = ids[node.id] = len(kept)
                if any(ids[v.node] != v.node for v in node.operands) or at != node.id:
                    operands = tuple(Value(ids[v.node], v.result) for v in node.operands)
                    node = node.moved(at, operands)
                kept.append(node)
        renamed = [(n, Value(ids[v.node], v.result)) for n, v in outputs]
        return Graph(self.name, self.dims, kept, renamed)


def _live(nodes: Sequence[Node], outputs: Sequence[tuple[str, Value]]) -> frozenset[int]:
    live = {v.node for _, v in outputs}
    for node in reversed(nodes):
        if node.id in live:
            live.update(v.node for v in node.operands)
        elif node.op.name == "input":
            live.add(node.id)
    return frozenset(live)


__all__ = ["Graph", "GraphBuilder", "Node", "Pattern", "Scope", "Value"]
