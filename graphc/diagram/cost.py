"""What a graph costs: parameters, FLOPs and multiply-adds of each node, for given values of the named dims.

Nodes that depend on parameters, literals and dims only are *fixed*: what is computed before any data flows. Pictures
and tables leave them out and count their parameters where they are first used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.ir.dim import DimLike, evaluate
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import Op, Pattern
from graphc.ir.types import TensorType
from graphc.ops import Input

BUFFERS = ("running_mean", "running_var")
"""Last path parts of parameters that PyTorch keeps as buffers; its parameter counts leave them out."""


def reference_dims(graph: Graph, given: Mapping[str, int] | None = None) -> dict[str, int]:
    """A value for each named dim: the given one, else the upper bound (`T <= 512`), else the lower one."""
    given = given or {}
    return {
        name: given.get(name, bound.low if bound.high is None else bound.high)
        for name, bound in graph.dims.items()
    }


def is_buffer(parameter: Node) -> bool:
    """True for running statistics, and for what an optimizer remembers."""
    path = str(getattr(parameter.op, "path", ""))
    kept = path in ("step", "rng") or path.startswith(("optimizer.", "ema."))
    return kept or path.rpartition(".")[2] in BUFFERS


class Costs:
    """Per-node costs of one graph. `dims` holds the values of the named dims the numbers are for."""

    def __init__(self, graph: Graph, dims: Mapping[str, int] | None = None) -> None:
        self.graph = graph
        self.dims = reference_dims(graph, dims)
        self.fixed = _fixed(graph)
        self.owned: dict[int, tuple[Node, ...]] = {}
        self.used: dict[int, tuple[Node, ...]] = {}
        behind: dict[int, tuple[Node, ...]] = {}
        seen: set[int] = set()
        for node in graph.nodes:
            inside = {p.id: p for v in node.operands for p in behind.get(v.node, ())}
            if node.op.name == "parameter":
                inside[node.id] = node
            found = tuple(inside[i] for i in sorted(inside))
            if node.id in self.fixed:
                behind[node.id] = found
                if any(graph.is_output(v) for v in node.values):
                    seen.update(p.id for p in found)
            elif found:
                self.used[node.id] = found
                self.owned[node.id] = tuple(p for p in found if p.id not in seen)
                seen.update(p.id for p in found)

    def value(self, dim: DimLike) -> int:
        """A dimension as a number, for the dims the costs are for."""
        return evaluate(dim, self.dims)

    def parameters(self, nodes: Iterable[Node], *, buffers: bool = False) -> int:
        """Elements of the parameters (or of the buffers) that these nodes are the first to use."""
        return sum(
            self.value(p.types[0].size)
            for node in nodes
            for p in self.owned.get(node.id, ())
            if is_buffer(p) == buffers
        )

    def shared(self, nodes: Iterable[Node]) -> tuple[Node, ...]:
        """Parameters these nodes use and an earlier node owns."""
        nodes = tuple(nodes)
        owned = {p.id for node in nodes for p in self.owned.get(node.id, ())}
        found = {p.id: p for node in nodes for p in self.used.get(node.id, ())}
        return tuple(found[i] for i in sorted(found) if i not in owned)

    def flops(self, nodes: Iterable[Node]) -> int:
        """Arithmetic operations; a multiply-add counts 2."""
        return sum(self.value(n.op.flops(self._operands(n), n.types)) for n in nodes)

    def macs(self, nodes: Iterable[Node]) -> int:
        """Multiply-adds of the contractions (matrix products and convolutions)."""
        return sum(self.value(_macs(n.op, self._operands(n), n.types)) for n in nodes)

    def nbytes(self, type: TensorType) -> int:
        """Bytes of a dense tensor."""
        return self.value(type.nbytes)

    def _operands(self, node: Node) -> tuple[TensorType, ...]:
        return tuple(self.graph.type_of(v) for v in node.operands)


def _fixed(graph: Graph) -> frozenset[int]:
    """Parameters, constants, dims as values, and nodes whose operands are all fixed."""
    fixed: set[int] = set()
    for node in graph.nodes:
        literal = node.op.name in ("parameter", "constant", "dim_value")
        if literal or (node.operands and all(v.node in fixed for v in node.operands)):
            fixed.add(node.id)
    return frozenset(fixed)


def _macs(op: Op, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
    if op.pattern is Pattern.CONTRACT:
        return op.flops(operands, results) // 2
    if op.regions:
        return op.over_bodies([_body_macs(body) for body in op.regions])
    if op.pattern is Pattern.COMPOSITE:
        b = GraphBuilder("decomposition")
        inputs = [b(Input(f"x{i}", t.dtype, t.shape)) for i, t in enumerate(operands)]
        values: Sequence[Value] = op.decompose(b, *inputs) or ()
        return _body_macs(b.build([(str(i), v) for i, v in enumerate(values)]))
    return 0


def _body_macs(body: Graph) -> DimLike:
    total: DimLike = 0
    for node in body.nodes:
        total = total + _macs(node.op, [body.type_of(v) for v in node.operands], node.types)
    return total
