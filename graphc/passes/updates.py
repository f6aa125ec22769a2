"""The update of one parameter becomes one kernel: weights and averages are read once and overwritten in one pass.

Every state that an optimizer keeps beside a parameter is an elementwise kernel after fusion, because each is a result
of its own. Those of one shape that read the same large value, or one another, join; so does what only they read (a
clipped gradient), and the product that makes the gradient itself, so that it is never stored. Only kernels that write
state do: others would rather write over an operand that dies, which a kernel with several results cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Pattern
from graphc.ops import Fusion
from graphc.passes.merge import Merger

MAX_NODES = 128  # of a body: an optimizer with everything has about 60

Shape = tuple[DimLike, ...]


def merge_updates(graph: Graph) -> Graph:
    """The fused graph with the kernels that write the state of one parameter together."""
    merger = _Updates(graph)
    merger.join()
    return merger.emit() if merger.joined else graph


def pointwise(body: Graph) -> Shape | None:
    """The shape that a body computes element by element, from values of that shape and scalars; else None."""
    shapes = {body.type_of(v).shape for _, v in body.outputs}
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    if not shape or 0 in shape:
        return None
    for node in body.nodes:
        plain = node.op.pattern in (Pattern.ELEMENTWISE, Pattern.SOURCE) or node.op.replicated
        if not plain or any(t.shape not in (shape, ()) for t in node.types):
            return None
    return shape


def product(body: Graph) -> Shape | None:
    """The shape that a body computes as a product of two operands and arithmetic on its elements; else None."""
    roots = [n for n in body.nodes if n.op.pattern is Pattern.CONTRACT]
    if len(roots) != 1 or len(body.outputs) != 1:
        return None
    (root,) = roots
    (type,) = root.types
    direct = all(body.node(v.node).op.name == "input" for v in root.operands)
    if not direct or type.dtype not in (DType.F32, DType.F64) or 0 in type.shape:
        return None
    for node in body.nodes:
        if node is root or node.op.name == "input":
            continue
        plain = node.op.pattern in (Pattern.ELEMENTWISE, Pattern.SOURCE) or node.op.replicated
        if not plain or any(t.shape not in (type.shape, ()) for t in node.types):
            return None
    return type.shape if body.type_of(body.outputs[0][1]).shape == type.shape else None


class _Updates(Merger):
    def __init__(self, graph: Graph) -> None:
        super().__init__(graph, MAX_NODES)
        bodies = [(n.id, n.op.body) for n in graph.nodes if isinstance(n.op, Fusion)]
        self.shapes = {id: s for id, body in bodies if (s := pointwise(body)) is not None}
        products = {id: s for id, body in bodies if (s := product(body)) is not None}
        self.products = frozenset(products)
        self.shapes |= products
        self.writers = [id for id in sorted({v.node for _, v in graph.state}) if id in self.shapes]

    def lead(self, members: Sequence[Node]) -> Node:
        """The product of a group, or the last."""
        return next((n for n in members if n.id in self.products), members[-1])

    def join(self) -> None:
        """Joins writers with one another and with what only they read, until nothing does."""
        changed = True
        while changed:
            changed = self._share()
            for id in self.writers:
                changed |= self._absorb(id)

    def _share(self) -> bool:
        """Joins groups of writers that read the same large value, or one the other's."""
        readers: dict[Value, list[int]] = {}
        joined = False
        for id in self.writers:
            for value in self._read(id):
                others = readers.setdefault(value, [])
                joined |= any(self.attempt(other, id) for other in others)
                others.append(id)
                joined |= value.node in self.writers and self.attempt(value.node, id)
        return joined

    def _absorb(self, writer: int) -> bool:
        """Joins the group of a writer with a kernel that nothing else reads; with one product at most."""
        return any(
            self._only_read_here(value, self.group[writer])
            and self._products(value.node) + self._products(writer) < 2
            and self.attempt(value.node, writer)
            for value in self._read(writer)
        )

    def _products(self, node: int) -> int:
        """How many products there are in a node's group."""
        return sum(n.id in self.products for n in self.members[self.group[node]])

    def _read(self, writer: int) -> list[Value]:
        """The values of the writer's shape that its group reads."""
        members = self.members[self.group[writer]]
        return list(dict.fromkeys(value for member in members for value in self._large(member)))

    def _large(self, node: Node) -> list[Value]:
        """The operands of the kernel's own shape."""
        shape = self.shapes[node.id]
        return [v for v in node.operands if self.graph.type_of(v).shape == shape]

    def _only_read_here(self, value: Value, group: int) -> bool:
        """True for a result of another such kernel that nothing outside of the group reads."""
        node = self.graph.node(value.node)
        if node.id not in self.shapes or self.group[node.id] == group:
            return False
        if any(v in self.outputs for v in node.values):
            return False
        return all(self.group[user.id] == group for user, _ in self.graph.users(node))
