"""What a box says: the facts of an op or a layer that a reader wants to see, in few words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from graphc.diagram import text
from graphc.diagram.cost import Costs, is_buffer
from graphc.diagram.tree import steps_of
from graphc.ir.dim import Dim
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, Pattern
from graphc.ir.types import TensorType
from graphc.ops import Constant, DimValue, Fusion

MAX_STEPS = 9
"""Lines of a fused group in a picture; more are counted."""


def _each(values: Sequence[Any]) -> str:
    first = values[0]
    return str(first) if all(v == first for v in values) else "×".join(map(str, values))


def _sizes(word: str, neutral: int) -> Callable[[Any], str]:
    def show(values: Any) -> str:
        items = values if isinstance(values, tuple) else (values,)
        if not items or all(v == neutral for v in items):
            return ""
        return f"{word} {_each(items)}"

    return show


def _padding(values: Any) -> str:
    if not any(v for pair in values for v in pair):
        return ""
    flat = [v for pair in values for v in pair]
    if all(v == flat[0] for v in flat):
        return f"padding {flat[0]}"
    if all(low == high for low, high in values):
        return "padding " + "×".join(str(low) for low, _ in values)
    return "padding " + " ".join(f"({low}, {high})" for low, high in values)


def _window(values: Any) -> str:
    return "×".join(map(str, values))


def _list(word: str) -> Callable[[Any], str]:
    def show(values: Any) -> str:
        items = values if isinstance(values, tuple) else (values,)
        return f"{word} {', '.join(map(str, items))}"

    return show


_SHOWN: dict[str, Callable[[Any], str]] = {
    "window": _window,
    "strides": _sizes("stride", 1),
    "padding": _padding,
    "lhs_dilation": _sizes("upsampled by", 1),
    "rhs_dilation": _sizes("dilation", 1),
    "dilation": _sizes("dilation", 1),
    "groups": _sizes("groups", 1),
    "axis": _list("axis"),
    "axes": _list("axes"),
    "permutation": _list("order"),
    "size": _list("to"),
    "mode": str,
    "direction": str,
    "causal": lambda on: "causal" if on else "",
}


_IMPLIED = frozenset(("axis", "axes", "permutation", "direction"))
"""Attributes that the name of a layer implies; boxes of single ops show them."""


def facts(node: Node, operands: Sequence[TensorType], *, layer: bool = False) -> list[str]:
    """The attributes worth showing in a box: `5×5`, `stride 2`, `padding 1`, `groups 32`, `axis 1`."""
    found = []
    attributes = node.op.attributes()
    if node.op.pattern is Pattern.CONTRACT and "rhs_dilation" in attributes:
        found.append(_window(operands[1].shape[2:]))
    for name, show in _SHOWN.items():
        if layer and name in _IMPLIED:
            continue
        if name in attributes and attributes[name] is not None:
            found.append(show(attributes[name]))
    return [f for f in found if f]


def literals(node: Node, graph: Graph) -> list[str]:
    """Numbers and dims that an op gets as operands: the `0.125` of `scores * 0.125`."""
    found = []
    for value in node.operands:
        source = graph.node(value.node)
        while source.op.name in ("broadcast_in_dim", "convert", "reshape"):
            source = graph.node(source.operands[0].node)
        if isinstance(source.op, Constant) and source.op.splat is not None:
            number = source.op.splat
            found.append(f"{number:g}" if isinstance(number, float) else str(number))
        elif isinstance(source.op, DimValue):
            found.append(str(source.op.dim))
    return found


def main_op(nodes: Sequence[Node], costs: Costs) -> Node:
    """The node that says what a layer is: a composite or contraction before all else, then the costliest."""
    rank = {Pattern.CONTRACT: 3, Pattern.COMPOSITE: 2, Pattern.WINDOW: 2, Pattern.REDUCE: 1}

    def weight(node: Node) -> tuple[int, int, int]:
        return costs.macs([node]), costs.flops([node]), rank.get(node.op.pattern, 0)

    return max(reversed(nodes), key=weight)


def family(node: Node, costs: Costs) -> str:
    """The family of an op; a fused group has the family of its main op."""
    for body in node.op.regions:
        inner = [n for n in body.nodes if n.op.name != "input"]
        if inner:
            inside = Costs(body, costs.dims)
            return family(main_op(inner, inside), inside)
    return node.op.family


def cost_line(nodes: Sequence[Node], costs: Costs) -> str:
    """`9.41 K params · 231 MFLOP`; parts that are zero are left out."""
    params, flops = costs.parameters(nodes), costs.flops(nodes)
    parts = []
    if params:
        parts.append(f"{text.count(params)} params")
    if flops:
        parts.append(text.count(flops, "FLOP"))
    return " · ".join(parts)


def computes(node: Node) -> bool:
    """False for what a fused group only reads or repeats: arguments, literals, broadcasts."""
    return node.op.name not in ("input", "constant") and not node.op.replicated


def fused_steps(body: Graph, is_layer: Callable[[str], bool]) -> list[tuple[str, list[str]]]:
    """What a fused group holds, in order: (layer, its ops), neighbours of one layer together.

    Ops that a block wrote itself, like the addition of a residual, have no layer.
    """
    lines: list[tuple[str, list[str]]] = []
    moving = [n for n in _unfused(body) if n.op.name not in ("input", "constant")]
    for node in [n for n in moving if computes(n)] or moving:
        steps = steps_of(node.scope)
        label, kind, _ = steps[-1] if steps else ("", "", None)
        name = title(label, kind) if is_layer(kind) else ""
        if not lines or lines[-1][0] != name:
            lines.append((name, []))
        lines[-1][1].append(node.op.name)
    if len(lines) > MAX_STEPS:
        lines[MAX_STEPS:] = [("", [f"and {len(lines) - MAX_STEPS} more"])]
    return lines


def _unfused(body: Graph) -> Iterator[Node]:
    """The nodes of a body, and those of its kernels in their place."""
    for node in body.nodes:
        if isinstance(node.op, Fusion):
            yield from _unfused(node.op.body)
        else:
            yield node


def chosen(op: Op) -> Op:
    """The loop or choice that a kernel is, or the op as it is."""
    inner = [n for body in op.regions for n in body.nodes if n.op.name != "input"]
    alone = isinstance(op, Fusion) and len(inner) == 1 and bool(inner[0].op.regions)
    return inner[0].op if alone else op


def title(label: str, kind: str) -> str:
    """`conv1: Conv2d`, or the kind alone where the label was made from it (`relu_2`, `ReLU`)."""
    if re.sub(r"_\d+$", "", label).replace("_", "").casefold() == kind.casefold():
        return kind
    if not kind[:1].isupper():  # a group, or a labelled chain
        return label
    return f"{label}: {kind}"


def tooltip(nodes: Sequence[Node], graph: Graph, costs: Costs, head: str = "") -> str:
    """All there is to know, for hovering: path, source line, ops with types and attributes, weights."""
    lines = [head] if head else []
    spans = [n.span for n in nodes if n.span is not None]
    if spans:
        lines.append(str(spans[0]))
    for node in nodes[:12]:
        operands = ", ".join(str(graph.type_of(v)) for v in node.operands)
        results = ", ".join(map(str, node.types))
        lines.append(f"{node.op.name}({operands}) → {results}{_attributes(node)}")
    if len(nodes) > 12:
        lines.append(f"… and {len(nodes) - 12} more ops")
    for p in _weights(nodes, costs)[:8]:
        kind = "buffer" if is_buffer(p) else "parameter"
        lines.append(f"{kind} {getattr(p.op, 'path', '')}: {p.types[0]}")
    return "\n".join(lines)


def _weights(nodes: Iterable[Node], costs: Costs) -> list[Node]:
    found = {p.id: p for n in nodes for p in costs.used.get(n.id, ())}
    return [found[i] for i in sorted(found)]


def _attributes(node: Node) -> str:
    def show(value: Any) -> str:
        if isinstance(value, tuple):
            return "(" + ", ".join(map(show, value)) + ("," if len(value) == 1 else "") + ")"
        return str(value) if isinstance(value, Dim) else repr(value)

    shown = [
        f"{name}={value if isinstance(value, str) else show(value)}"
        for name, value in node.op.attributes().items()
        if not isinstance(value, Graph) and value is not None
    ]
    return f"  [{', '.join(shown)}]" if shown else ""
