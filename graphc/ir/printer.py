"""Graph to text: one line a node, readable, deterministic, and read back by `reader.py`.

    graph LeNet {
      dim N >= 1
      %image = input() {label = "image"} : f32[N, 1, 28, 28]
      %conv1.weight = parameter() {path = "conv1.weight", init = "..."} : f32[6, 1, 5, 5]
      %2 = conv_general(%image, %conv1.weight) {strides = [1, 1], ...} : f32[...] @ conv1: Conv2d
      output logits = %2
    }

Inputs and parameters go by their names, everything else by its id. Attributes are the op's fields
in their order; left out are those that equal their default and a `dtype` or `shape` that the result
type says anyway. `@` gives the block path. Places in the source are comments. The syntax is
`grammar/graph.lark`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphc.ir.dim import Bounds, Dim, DimLike, names_of, substitute
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node, Scope, Value
from graphc.ir.literal import Literal
from graphc.ir.op import Op
from graphc.ir.types import TensorType

INLINE_ELEMENTS = 16
"""A literal with more elements is printed as one repeated value or as hexadecimal bytes."""

RESERVED = frozenset({"true", "false", "none", "inf", "nan", "graph", "dim", "output"}) | {
    "splat",
    "hex",
    *(dtype.value for dtype in DType),
}
"""Words of the text form; a dim of that name is written in backquotes."""

_NAME = re.compile(r"[^\W\d]\w*")
_VALUE_NAME = re.compile(r"[^\W\d][\w.]*")
_LABEL = re.compile(r"[\w.]+")


def print_graph(graph: Graph, *, locations: bool = False) -> str:
    """The graph as text, with a final newline; `read_graph` gives an equal graph back.

    `locations` ends each line with a comment that says where in the source the node came from.

    Raises:
        TypeError: An attribute holds a kind of value that the text form does not know.
    """
    return "\n".join(_graph(graph, "", locations)) + "\n"


def value_names(graph: Graph) -> dict[int, str]:
    """Node id to the name its results are printed under, without `%`.

    A name that is taken or cannot be written falls back to the id.
    """
    names: dict[int, str] = {}
    taken: set[str] = set()
    for node in graph.nodes:
        attribute = {"input": "label", "parameter": "path"}.get(node.op.name)
        name = getattr(node.op, attribute) if attribute else ""
        if not _VALUE_NAME.fullmatch(name) or name in taken:
            name = str(node.id)
        names[node.id] = name
        taken.add(name)
    return names


def _graph(graph: Graph, indent: str, locations: bool) -> Iterator[str]:
    names = value_names(graph)
    inner = indent + "  "
    yield f"graph {_word(_NAME, graph.name)} {{"
    for name, bounds in graph.dims.items():
        yield f"{inner}dim {dim_text(Dim.symbol(name))} {_bounds(bounds)}"
    for node in graph.nodes:
        yield inner + _node(graph, node, names, inner, locations)
    for label, value in graph.outputs:
        yield f"{inner}output {_word(_LABEL, label)} = {_value(graph, value, names)}"
    yield indent + "}"


def _node(graph: Graph, node: Node, names: dict[int, str], indent: str, locations: bool) -> str:
    several = "" if len(node.types) == 1 else f":{len(node.types)}"
    operands = ", ".join(_value(graph, v, names) for v in node.operands)
    line = f"%{names[node.id]}{several} = {node.op.name}({operands})"
    attributes = [
        f"{name} = {_attribute(value, indent, locations)}"
        for name, value in printed_attributes(node.op, node.types)
    ]
    if attributes:
        line += f" {{{', '.join(attributes)}}}"
    types = [type_text(t) for t in node.types]
    line += f" : {types[0]}" if len(types) == 1 else f" : ({', '.join(types)})"
    if node.scope:
        line += " @ " + " / ".join(map(_scope, node.scope))
    if locations and node.span is not None:
        line += f"  # {_printable(str(node.span))}"
    return line


def printed_attributes(op: Op, types: tuple[TensorType, ...]) -> Iterator[tuple[str, Any]]:
    """The attributes that have to be written: neither defaults nor part of the result type."""
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        if len(types) == 1 and field.name in ("dtype", "shape"):
            stated: Any = getattr(types[0], field.name)
            if type(stated) is type(value) and stated == value:
                continue
        if field.default is not dataclasses.MISSING and _same(value, field.default):
            continue
        yield field.name, value


def _same(a: Any, b: Any) -> bool:
    """Equality that keeps 1, 1.0 and True, and 0.0 and -0.0 apart."""
    return type(a) is type(b) and a == b and repr(a) == repr(b)


def _attribute(value: Any, indent: str, locations: bool) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, (int, Dim)):
        return dim_text(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, DType):
        return value.value
    if isinstance(value, tuple):
        return f"[{', '.join(_attribute(v, indent, locations) for v in value)}]"
    if isinstance(value, Literal):
        return _literal(value)
    if isinstance(value, Graph):
        return "\n".join(_graph(value, indent, locations))
    raise TypeError(f"a graph's text cannot hold an attribute of type {type(value).__name__}")


def dim_text(dim: DimLike) -> str:
    """A dimension as text; names that are words of the text form in backquotes."""
    quoted = {n: Dim.symbol(f"`{n}`") for n in names_of(dim) if n in RESERVED}
    return str(substitute(dim, quoted)) if quoted else str(dim)


def type_text(type: TensorType) -> str:
    """A type as text: `f32[N, 28, 28]`."""
    return f"{type.dtype}[{', '.join(map(dim_text, type.shape))}]"


def _literal(literal: Literal) -> str:
    head = f"{literal.dtype}[{', '.join(map(str, literal.shape))}]"
    flat = literal.array.reshape(-1)
    size = literal.dtype.bytes
    if literal.shape == ():
        text, parsed = element_text(flat[0]), flat[:1]
        body = text
    elif flat.size > INLINE_ELEMENTS and literal.is_splat:
        text = element_text(flat[0])
        body, parsed = f"splat {text}", flat[:1]
    elif flat.size <= INLINE_ELEMENTS:
        body, parsed = f"[{', '.join(map(element_text, flat))}]", flat
    else:
        return f'{head} hex "{literal.data.hex()}"'
    texts = [element_text(x) for x in parsed]
    reread = Literal.of(np.array([element_value(t, literal.dtype) for t in texts], flat.dtype))
    if reread.data != literal.data[: size * len(parsed)]:  # a NaN with a payload
        return f'{head} hex "{literal.data.hex()}"'
    return f"{head} {body}"


def element_text(element: Any) -> str:
    """One element of a literal: the shortest text that reads back as the same number."""
    value = element.item() if not isinstance(element, float) else float(element)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    short = str(element.astype(np.float32)) if element.dtype != np.float64 else repr(float(value))
    dtype = DType.from_numpy(element.dtype)
    if "." not in short and "e" not in short and short.lstrip("-").isdigit():
        short += ".0"
    same = element_value(short, dtype) == element
    return short if same or value != value else repr(float(value))


def element_value(text: str, dtype: DType) -> Any:
    """The element that a text stands for, as a NumPy scalar. Raises ValueError or OverflowError."""
    if dtype is DType.BOOL:
        return np.bool_(text == "true")
    return dtype.numpy.type(int(text) if dtype.is_int else float(text))


def _bounds(bounds: Bounds) -> str:
    return f">= {bounds.low}" if bounds.high is None else f"in {bounds.low}..{bounds.high}"


def _value(graph: Graph, value: Value, names: dict[int, str]) -> str:
    several = len(graph.node(value.node).types) != 1
    return f"%{names[value.node]}" + (f"#{value.result}" if several else "")


def _scope(scope: Scope) -> str:
    return f"{_word(_LABEL, scope.label)}: {_word(_LABEL, scope.kind)}"


def _word(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else _string(text)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
