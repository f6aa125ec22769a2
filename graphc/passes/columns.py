"""Sums over columns that belong together become one kernel with several results.

What a batch norm or a bias asks of a batch are sums over all dimensions but the last: mean and variance, and on the way
back two sums over the same cotangent. Each would read its large operands by itself. Sums of one shape join when they
read the same operand or one needs the other; small vectors (`[C]`) computed from the sums, or for them, join as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Pattern
from graphc.ops import Fusion, ReduceSum
from graphc.passes.merge import Merger

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
    merger = _Columns(graph)
    merger.join()
    return merger.emit() if merger.joined else graph


class _Columns(Merger):
    def __init__(self, graph: Graph) -> None:
        super().__init__(graph, MAX_NODES)
        bodies = [(n.id, n.op.body) for n in graph.nodes if isinstance(n.op, Fusion)]
        self.sums = {id: s for id, body in bodies if (s := column_sums(body)) is not None}
        self.vectors = {
            id: s
            for id, body in bodies
            if id not in self.sums and (s := _vectors(body)) is not None
        }

    def lead(self, members: Sequence[Node]) -> Node:
        """The first that sums."""
        return next(n for n in members if self._reduces(n))

    def join(self) -> None:
        """Joins what may join, until nothing does."""
        shared: dict[tuple[Shape, Value], int] = {}
        for id, shape in self.sums.items():
            for value in self.graph.node(id).operands:
                if self.graph.type_of(value).shape == shape:
                    other = shared.setdefault((shape, value), id)
                    self.attempt(other, id)
        for id, shape in self.sums.items():
            for value in self.graph.node(id).operands:
                if self.sums.get(value.node) == shape:
                    self.attempt(value.node, id)
        changed = True
        while changed:
            changed = False
            for id, vector in self.vectors.items():
                for near in self._around(self.graph.node(id)):
                    wide = self.sums.get(near)
                    fits = wide is not None and wide[-1:] == vector
                    if fits and len(self.members[self.group[id]]) == 1 and self.attempt(near, id):
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

    def _reduces(self, node: Node) -> bool:
        return isinstance(node.op, Fusion) and column_sums(node.op.body) is not None
