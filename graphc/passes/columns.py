"""Sums over columns that belong together become one kernel with several results.

What a batch norm or a bias asks of a batch are sums over all dimensions but the last: mean and variance, and on the way
back two sums over the same cotangent. Each would read its large operands by itself. Sums of one shape join when they
read the same operand or one needs the other; small vectors (`[C]`) computed from the sums, or for them, join as well.

Two kernels may join unless a third one lies between them, which would have to run both before and after.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Pattern
from graphc.ops import Fusion, Input, ReduceSum
from graphc.passes.fuse import used_dims

MAX_NODES = 64  # of a body: keeps kernels readable and their compile time bounded
_AROUND = (Pattern.SOURCE, Pattern.ELEMENTWISE, Pattern.INDEX)

Shape = tuple[DimLike, ...]


def column_sums(body: Graph) -> Shape | None:
    """The shape that a body sums the columns of; None for bodies that do more, or other, than that."""
    sums = [n for n in body.nodes if n.op.pattern is Pattern.REDUCE]
    if not sums:
        return None
    shape = body.type_of(sums[0].operands[0]).shape
    if len(shape) < 2 or not isinstance(shape[-1], int) or 0 in shape:
        return None
    along = tuple(range(len(shape) - 1))
    for node in body.nodes:
        if node.op.pattern is Pattern.REDUCE:
            (type,) = node.types
            fits = isinstance(node.op, ReduceSum) and node.op.axes == along
            same = body.type_of(node.operands[0]).shape == shape
            if not (fits and same and type.dtype in (DType.F32, DType.F64)):
                return None
        elif node.op.pattern not in _AROUND:
            return None
    ends = [body.type_of(v).shape for _, v in body.outputs]
    return shape if all(end == shape[-1:] for end in ends) else None


def _vectors(body: Graph) -> Shape | None:
    """The shape of a body of small vectors computed element by element, else None."""
    shapes = {t.shape for n in body.nodes for t in n.types}
    vector = next((s for s in shapes if len(s) == 1 and isinstance(s[0], int)), None)
    plain = all(
        n.op.pattern in (Pattern.SOURCE, Pattern.ELEMENTWISE) or n.op.replicated for n in body.nodes
    )
    ends = {body.type_of(v).shape for _, v in body.outputs}
    return vector if vector and plain and shapes <= {vector, ()} and ends == {vector} else None


def merge_columns(graph: Graph) -> Graph:
    """The fused graph with sums over columns of one shape together where they share what they read."""
    merger = _Merger(graph)
    merger.join()
    return merger.emit() if merger.joined else graph


class _Merger:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.outputs = {v for _, v in graph.outputs}
        self.joined = False
        self.group: dict[int, int] = {n.id: n.id for n in graph.nodes}
        self.members: dict[int, list[Node]] = {n.id: [n] for n in graph.nodes}
        bodies = [(n.id, n.op.body) for n in graph.nodes if isinstance(n.op, Fusion)]
        self.sums = {id: s for id, body in bodies if (s := column_sums(body)) is not None}
        self.vectors = {
            id: s
            for id, body in bodies
            if id not in self.sums and (s := _vectors(body)) is not None
        }

    # Joining

    def join(self) -> None:
        """Joins what may join, until nothing does."""
        shared: dict[tuple[Shape, Value], int] = {}
        for id, shape in self.sums.items():
            for value in self.graph.node(id).operands:
                if self.graph.type_of(value).shape == shape:
                    other = shared.setdefault((shape, value), id)
                    self._try(other, id)
        for id, shape in self.sums.items():
            for value in self.graph.node(id).operands:
                if self.sums.get(value.node) == shape:
                    self._try(value.node, id)
        changed = True
        while changed:
            changed = False
            for id, vector in self.vectors.items():
                for near in self._around(self.graph.node(id)):
                    wide = self.sums.get(near)
                    fits = wide is not None and wide[-1:] == vector
                    if fits and len(self.members[self.group[id]]) == 1 and self._try(near, id):
                        changed = True
            self._spread()

    def _spread(self) -> None:
        """Vectors that have joined sums count as such, so that what is around them may follow."""
        for id in list(self.vectors):
            for other in self.members[self.group[id]]:
                if other.id in self.sums:
                    self.sums[id] = self.sums[other.id]

    def _around(self, node: Node) -> list[int]:
        before = [v.node for v in node.operands]
        return before + [user.id for user, _ in self.graph.users(node)]

    def _try(self, one: int, two: int) -> bool:
        """Joins the groups of two kernels where no other one lies between them."""
        a, b = self.group[one], self.group[two]
        if a == b or self._size(a) + self._size(b) > MAX_NODES or self._apart({a, b}):
            return False
        keep, gone = min(a, b), max(a, b)
        self.members[keep] = sorted(self.members[keep] + self.members.pop(gone), key=lambda n: n.id)
        for node in self.members[keep]:
            self.group[node.id] = keep
        self.joined = True
        return True

    def _size(self, group: int) -> int:
        return sum(len(n.op.body) for n in self.members[group] if isinstance(n.op, Fusion))

    def _apart(self, pair: set[int]) -> bool:
        """Whether a path leaves the pair and comes back."""
        stack = [g for group in pair for g in self._after(group) if g not in pair]
        seen = set(stack)
        while stack:
            for group in self._after(stack.pop()):
                if group in pair:
                    return True
                if group not in seen:
                    seen.add(group)
                    stack.append(group)
        return False

    def _after(self, group: int) -> Iterable[int]:
        for node in self.members[group]:
            for user, _ in self.graph.users(node):
                yield self.group[user.id]

    # Writing the graph

    def emit(self) -> Graph:
        """The graph in an order in which every group finds its operands."""
        b = GraphBuilder(self.graph.name, self.graph.dims)
        done: dict[Value, Value] = {}
        for group in self._order():
            members = self.members[group]
            if len(members) > 1:
                self._emit_group(b, members, done)
                continue
            (node,) = members
            with b.at(node.scope, node.span):
                new = b.emit(node.op, *(done[v] for v in node.operands))
            done.update(zip(node.values, new, strict=True))
        return b.build([(name, done[v]) for name, v in self.graph.outputs], prune=False)

    def _order(self) -> list[int]:
        waits = {
            group: {self.group[v.node] for n in members for v in n.operands} - {group}
            for group, members in self.members.items()
        }
        users: dict[int, list[int]] = {group: [] for group in waits}
        for group, before in waits.items():
            for other in before:
                users[other].append(group)
        left = {group: len(before) for group, before in waits.items()}
        ready = [group for group, count in left.items() if count == 0]
        heapq.heapify(ready)
        order = []
        while ready:
            group = heapq.heappop(ready)
            order.append(group)
            for user in users[group]:
                left[user] -= 1
                if left[user] == 0:
                    heapq.heappush(ready, user)
        return order

    def _emit_group(
        self, b: GraphBuilder, members: Sequence[Node], done: dict[Value, Value]
    ) -> None:
        """One fusion of several bodies; what both compute is computed once."""
        lead = next(n for n in members if self._reduces(n))
        inside = {n.id for n in members}
        assert isinstance(lead.op, Fusion)
        body = GraphBuilder(lead.op.body.name, self.graph.dims)
        known: dict[Value, Value] = {}  # of the outer graph -> of the body
        same: dict[object, tuple[Value, ...]] = {}
        external: list[Value] = []
        for member in members:
            assert isinstance(member.op, Fusion)
            inner = member.op.body
            at: dict[Value, Value] = {}
            for node, value in zip(inner.inputs, member.operands, strict=True):
                if value not in known:
                    (type,) = node.types
                    label = f"arg{len(external)}"
                    known[value] = body(Input(label, type.dtype, type.shape))
                    external.append(value)
                at[node.values[0]] = known[value]
            for node in inner.nodes:
                if node.op.name == "input":
                    continue
                operands = tuple(at[v] for v in node.operands)
                key = (node.op, operands)
                if key not in same:
                    with body.at(node.scope, node.span):
                        same[key] = tuple(body.emit(node.op, *operands))
                at.update(zip(node.values, same[key], strict=True))
            for value, (_, result) in zip(member.values, inner.outputs, strict=True):
                known[value] = at[result]
        results = [v for n in members for v in n.values if self._read_outside(v, inside)]
        used = used_dims(body)
        body.dims = {n: d for n, d in body.dims.items() if n in used}
        op = Fusion(
            lead.op.kind, body.build([(f"out{i}", known[v]) for i, v in enumerate(results)])
        )
        with b.at(lead.scope, lead.span):
            new = b.emit(op, *(done[v] for v in external))
        done.update(zip(results, new, strict=True))

    def _reduces(self, node: Node) -> bool:
        return isinstance(node.op, Fusion) and column_sums(node.op.body) is not None

    def _read_outside(self, value: Value, inside: set[int]) -> bool:
        readers = (user.id for user, _ in self.graph.uses(value))
        return value in self.outputs or any(id not in inside for id in readers)
