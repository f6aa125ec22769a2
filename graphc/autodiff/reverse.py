"""Reverse mode: from a value back to what it depends on, in graph ops appended to the same builder.

What is appended is a graph like any other, so calling this again on its results gives higher derivatives. Zero
cotangents are None until somebody asks for them; integer and bool values have none. Nodes are visited in falling id
order, so the result is the same every time. Backward nodes carry the scope of the forward node inside of `BACKWARD`.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.autodiff.application import Application, Seeds, filled
from graphc.autodiff.checkpoint import Recomputation, backward
from graphc.ir.graph import Graph, GraphBuilder, Node, Value
from graphc.ir.op import OpError
from graphc.ops import Add


def gradients(
    b: GraphBuilder, y: Value, xs: Sequence[Value], cotangent: Value | None = None
) -> tuple[Value, ...]:
    """The gradient of y with respect to each of `xs`, which has the x's type; zeros where y does not depend on it.

    y is a scalar, or `cotangent` has its type and the gradients are those of `sum(y * cotangent)`. An x may be an
    intermediate value, and may depend on another x. Raises OpError E0812 for values without a gradient (integers, y
    not a scalar) and E0811 when an op on the way has none.
    """
    type = b.type_of(y)
    for slot, value in enumerate((y, *xs)):
        if not b.type_of(value).dtype.is_float:
            raise OpError(
                f"{b.type_of(value)} has no gradient: only floats change smoothly",
                operand=slot,
                code="E0812",
                help="convert it to f32 before it is used",
            )
    if cotangent is None:
        if type.shape:
            raise OpError(
                f"the gradient of {type} needs a scalar",
                operand=0,
                code="E0812",
                help="reduce it first, for example with sum or mean",
            )
        cotangent = filled(b, 1.0, type)
    elif b.type_of(cotangent) != type:
        raise OpError(f"a cotangent of {type} cannot be {b.type_of(cotangent)}", code="E0812")
    found = _sweep(b, [(y, cotangent)], xs, 0)
    return tuple(
        filled(b, 0.0, b.type_of(x)) if c is None else c for x, c in zip(xs, found, strict=True)
    )


def grad_graph(graph: Graph, output: str, wrt: Sequence[str], keep: Sequence[str] = ()) -> Graph:
    """The graph that computes the gradients of a scalar output, as outputs `grad_<name>`.

    `wrt` names inputs and parameters; outputs in `keep` (the loss, say) stay, in front. Raises ValueError for unknown
    names and OpError as `gradients` does.
    """
    outputs = dict(graph.outputs)
    sources = {str(n.op.attributes()["label"]): n.values[0] for n in graph.inputs}
    sources |= {str(n.op.attributes()["path"]): n.values[0] for n in graph.parameters}
    for name in (output, *keep):
        if name not in outputs:
            raise ValueError(f"{graph.name} has no output {name!r}, only {', '.join(outputs)}")
    for name in wrt:
        if name not in sources:
            raise ValueError(f"{graph.name} has no input or parameter {name!r}")
    b = GraphBuilder(graph.name, graph.dims)
    b.nodes = list(graph.nodes)
    found = gradients(b, outputs[output], [sources[name] for name in wrt])
    new = [(f"grad_{name}", value) for name, value in zip(wrt, found, strict=True)]
    return b.build([(name, outputs[name]) for name in keep] + new, prune=True)


def _sweep(
    b: GraphBuilder, seeds: Seeds, xs: Sequence[Value], first: int
) -> tuple[Value | None, ...]:
    """Cotangents of `xs` from those of the seeds, through the nodes from id `first` on."""
    todo, active = _between(b, [y for y, _ in seeds], xs, first)
    again = Recomputation(b) if first == 0 else None
    found: dict[Value, Value] = {}

    def flow(value: Value, cotangent: Value) -> None:
        found[value] = b(Add(), found[value], cotangent) if value in found else cotangent

    for y, cotangent in seeds:
        if cotangent is not None:
            flow(y, cotangent)
    for node in reversed(todo):
        cotangents = [found.get(v) for v in node.values]
        if all(c is None for c in cotangents):
            continue
        with b.at(backward(node), node.span):
            wanted = [v in active for v in node.operands]
            known = node if again is None else again.of(node)
            parts = _pulled(b, known, wanted, cotangents)
            for operand, asked, part in zip(node.operands, wanted, parts, strict=True):
                if part is not None and asked:
                    flow(operand, part)
    return tuple(found.get(x) for x in xs)


def _between(
    b: GraphBuilder, ys: Sequence[Value], xs: Sequence[Value], first: int
) -> tuple[list[Node], set[Value]]:
    """The nodes that carry something from `xs` to `ys`, in order, and the values that depend on `xs`."""
    reached: set[int] = set()
    stack = [y.node for y in ys]
    while stack:
        id = stack.pop()
        if id >= first and id not in reached:
            reached.add(id)
            stack += [v.node for v in b.nodes[id].operands]
    active, todo = set(xs), []
    for id in sorted(reached):
        node = b.nodes[id]
        if any(v in active for v in node.operands):
            smooth = [v for v in node.values if b.type_of(v).dtype.is_float]
            active.update(smooth)
            if smooth:
                todo.append(node)
    return todo, active


def _pulled(
    b: GraphBuilder, node: Node, wanted: Sequence[bool], cotangents: Sequence[Value | None]
) -> tuple[Value | None, ...]:
    """What the op's rule gives, checked. Raises OpError E0811 with the place of the forward node."""
    try:
        parts = node.op.gradient(Application(b, node, wanted, cotangents, _sweep))
    except OpError as error:
        error.span = error.span or node.span
        raise
    for operand, part in zip(node.operands, parts, strict=True):
        if part is not None and b.type_of(part) != b.type_of(operand):
            wrong, right = b.type_of(part), b.type_of(operand)
            raise TypeError(f"{node.op.name} gives {wrong} as the cotangent of {right}")
    return parts
