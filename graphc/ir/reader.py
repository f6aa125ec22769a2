"""Text to graph: the inverse of `printer.py`, over `grammar/graph.lark`.

Reading re-emits every node through the op's own shape rule and compares the result with the type
in the text, so that only well-typed graphs come out. Whatever the text is, the outcome is a graph
or a `DiagnosticError` with a place. A short text cannot ask for much: repeated elements of literals
are limited in sum, brackets in depth, integers in digits, and products of sums are refused.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, NoReturn

import numpy as np
from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedToken

from graphc.diagnostics import Diagnostic, DiagnosticError, Label, nearest
from graphc.ir.attributes import conforms, hints
from graphc.ir.dim import Bounds, Dim, DimLike, floordiv
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, GraphBuilder, Scope, Value
from graphc.ir.literal import Literal
from graphc.ir.op import Op, OpError
from graphc.ir.printer import element_value
from graphc.ir.types import TensorType
from graphc.source import Source, Span

MAX_REPEATED_BYTES = 1 << 26
"""Bytes that the `splat` literals of one text may take together."""
MAX_DEPTH = 32
"""Nesting of lists, parentheses and graphs."""
MAX_INTEGER = (1 << 64) - 1
MAX_FACTORS = 64
"""Factors of one product and terms of one sum of named dims."""

Ops = Mapping[str, type[Op]]
_WORDS = {"true": True, "false": False, "none": None}
_DTYPES = {dtype.value: dtype for dtype in DType}


def read_graph(text: str, ops: Ops, *, name: str = "<graph>") -> Graph:
    """The graph that `print_graph` printed.

    `ops` gives the op classes (`graphc.ops.OPS`), `name` the file to show in diagnostics. Nodes
    get the place of their line in this text as span.

    Raises:
        DiagnosticError: The text is not a well-typed graph; E09xx, with the place.
    """
    source = Source(name, text)
    try:
        tree = _parser().parse(text)
    except UnexpectedToken as error:
        token = error.token
        if token.type == "$END":
            _fail(source.span(len(text), len(text)), "E0901", "the text of a graph ends too early")
        at = token.start_pos or 0
        message = f"unexpected `{token}` in the text of a graph"
        _fail(source.span(at, at + len(token)), "E0901", message)
    except UnexpectedCharacters as error:
        at = error.pos_in_stream
        message = f"unexpected character {text[at : at + 1]!r} in the text of a graph"
        _fail(source.span(at, at + 1), "E0901", message)
    by_name = {op.name: op for op in ops.values()}
    return _Reader(source, by_name).graph(tree.children[0], 0)


@cache
def _parser() -> Lark:
    grammar = resources.files("graphc") / "grammar" / "graph.lark"
    return Lark(
        grammar.read_text(encoding="utf-8"),
        parser="lalr",
        propagate_positions=True,
        maybe_placeholders=False,
    )


def _fail(span: Span, code: str, message: str, *, help: str | None = None) -> NoReturn:
    hint = (help,) if help else ()
    raise DiagnosticError([Diagnostic(code, message, Label(span, ""), help=hint)])


class _Reader:
    """Walks one parse tree. One reader reads nested graphs too, so that limits hold in sum."""

    def __init__(self, source: Source, ops: Ops) -> None:
        self.source = source
        self.ops = ops
        self.repeated_bytes = 0
        self.declared: dict[type[Op], dict[str, Any]] = {}

    def span(self, item: Any) -> Span:
        """The place of a tree or token."""
        if isinstance(item, Token):
            return self.source.span(item.start_pos or 0, item.end_pos or 0)
        meta = item.meta
        return self.source.span(getattr(meta, "start_pos", 0), getattr(meta, "end_pos", 0))

    def fail(self, item: Any, code: str, message: str, *, help: str | None = None) -> NoReturn:
        _fail(self.span(item), code, message, help=help)

    # ---- Graphs and nodes ---------------------------------------------------------------------

    def graph(self, tree: Tree[Token], depth: int) -> Graph:
        self.limit_depth(tree, depth)
        head, *rest = tree.children
        builder = GraphBuilder(self.word(head))
        body = _GraphReader(self, builder, depth)
        outputs: list[tuple[str, Value]] = []
        for child in rest:
            assert isinstance(child, Tree)
            if child.data == "dim":
                body.dim(child)
            elif child.data == "node":
                body.node(child)
            else:
                label, value = child.children
                outputs.append((self.word(label), body.value(value)))
        return builder.build(outputs)

    def limit_depth(self, item: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            self.fail(item, "E0906", f"nested more than {MAX_DEPTH} deep")

    # ---- Words and numbers --------------------------------------------------------------------

    def word(self, token: Any) -> str:
        """A bare word, or the text of a quoted one."""
        if token.type != "STRING":
            return str(token)
        try:
            text: str = json.loads(str(token))
        except ValueError:
            self.fail(token, "E0901", "a string with an unknown escape")
        return text

    def integer(self, token: Any) -> int:
        if len(token) > 20 or int(token) > MAX_INTEGER:
            self.fail(token, "E0906", "an integer of more than 64 bits")
        return int(token)

    def constant(self, token: Any) -> Any:
        text = str(token)
        return _WORDS[text] if text in _WORDS else float(text)


class _GraphReader:
    """Reads the lines of one graph into a builder."""

    def __init__(self, reader: _Reader, builder: GraphBuilder, depth: int) -> None:
        self.reader = reader
        self.builder = builder
        self.depth = depth
        self.results: dict[str, tuple[Value, ...]] = {}

    def dim(self, tree: Tree[Token]) -> None:
        r = self.reader
        name_tree, bounds = tree.children
        name = str(name_tree.children[0]).strip("`")
        if name in self.builder.dims:
            r.fail(name_tree, "E0904", f"dim `{name}` is declared twice")
        low, *high = (r.integer(t) for t in bounds.children)
        if high and high[0] < low:
            r.fail(bounds, "E0904", f"the bounds of dim `{name}` leave no value")
        self.builder.dims[name] = Bounds(low, high[0] if high else None)

    def value(self, tree: Tree[Token]) -> Value:
        r = self.reader
        name, _, index = str(tree.children[0])[1:].partition("#")
        results = self.results.get(name)
        if results is None:
            near = nearest(name, self.results)
            hint = f"did you mean `%{near}`?" if near else None
            r.fail(tree, "E0903", f"`%{name}` is not defined above", help=hint)
        number = r.integer(index) if index else 0
        if number >= len(results) or bool(index) != (len(results) != 1):
            r.fail(tree, "E0903", f"`%{name}` has {len(results)} results: write them as `#0` ...")
        return results[number]

    def node(self, tree: Tree[Token]) -> None:
        r = self.reader
        children = list(tree.children)
        scopes = children.pop() if _is(children[-1], "scopes") else None
        types_tree = children.pop()
        attributes = children.pop() if _is(children[-1], "attributes") else None
        target, *rest = children
        several = r.integer(rest.pop(0)) if rest[0].type == "INT" else 1
        op_name, *operands = rest
        op_class = r.ops.get(str(op_name))
        if op_class is None:
            near = nearest(str(op_name), r.ops)
            hint = f"did you mean `{near}`?" if near else None
            r.fail(op_name, "E0902", f"there is no operation `{op_name}`", help=hint)
        values = [self.value(v) for v in operands]
        types = tuple(self.tensor_type(t) for t in types_tree.children)
        if len(types) != several:
            r.fail(types_tree, "E0905", f"{several} results, but {len(types)} types")
        scope = tuple(self.scope(s) for s in scopes.children) if scopes is not None else ()
        op = self.op(tree, op_class, attributes, types)
        with self.builder.at(scope, r.span(tree)):
            try:
                results = self.builder.emit(op, *values)
            except OpError as error:
                r.fail(tree, "E0905", error.message)
            except Exception as error:  # a shape rule given attributes that make no sense
                r.fail(tree, "E0905", f"`{op_name}` rejects its attributes: {error}")
        inferred = tuple(self.builder.type_of(v) for v in results)
        if inferred != types:
            texts = [", ".join(map(str, t)) for t in (types, inferred)]
            r.fail(types_tree, "E0905", f"the text says {texts[0]}, the operation gives {texts[1]}")
        name = str(target)[1:]
        if name in self.results or "#" in name:
            r.fail(target, "E0903", f"`%{name}` is defined twice")
        self.results[name] = results

    def scope(self, tree: Any) -> Scope:
        label, kind = (self.reader.word(t) for t in tree.children)
        return Scope(label, kind)

    def tensor_type(self, tree: Any) -> TensorType:
        r = self.reader
        name, *dims = tree.children
        dtype = _DTYPES.get(str(name))
        if dtype is None:
            hint = "the dtypes are " + ", ".join(_DTYPES)
            r.fail(name, "E0905", f"`{name}` is not a dtype", help=hint)
        return TensorType(dtype, tuple(self.dimension(d, self.depth + 1) for d in dims))

    # ---- Attributes ---------------------------------------------------------------------------

    def op(
        self, tree: Any, op_class: type[Op], attributes: Any, types: tuple[TensorType, ...]
    ) -> Op:
        """The op with its attributes, missing ones from their defaults and the result type."""
        r = self.reader
        fields = {f.name: f for f in dataclasses.fields(op_class)}
        if op_class not in r.declared:
            r.declared[op_class] = hints(op_class)
        declared = r.declared[op_class]
        given: dict[str, Any] = {}
        for attribute in attributes.children if attributes is not None else ():
            name, item = attribute.children
            key = str(name)
            if key not in fields or key in given:
                wrong = "given twice" if key in given else "not one of its attributes"
                near = nearest(key, fields)
                hint = f"did you mean `{near}`?" if near else None
                r.fail(name, "E0904", f"`{op_class.name}`: `{key}` is {wrong}", help=hint)
            value = self.item(item, self.depth + 1)
            hint_type = declared[key]
            if hint_type is float and type(value) is int:
                value = float(value)
            if not conforms(value, hint_type):
                r.fail(item, "E0904", f"`{op_class.name}`: `{key}` cannot be this kind of value")
            given[key] = value
        for name, field in fields.items():
            if name in given or field.default is not dataclasses.MISSING:
                continue
            if name not in ("dtype", "shape") or len(types) != 1:
                r.fail(tree, "E0904", f"`{op_class.name}` needs the attribute `{name}`")
            given[name] = getattr(types[0], name)
        try:
            return op_class(**given)
        except Exception as error:  # an op that checks its own attributes
            r.fail(tree, "E0904", f"`{op_class.name}` rejects its attributes: {error}")

    def item(self, tree: Any, depth: int) -> Any:
        """One attribute value."""
        r = self.reader
        r.limit_depth(tree, depth)
        kind = tree.data
        if kind == "list":
            return tuple(self.item(t, depth + 1) for t in tree.children)
        if kind == "graph":
            return r.graph(tree, depth)
        if kind == "literal":
            return self.literal(tree)
        if kind == "string":
            return r.word(tree.children[0])
        if kind == "number":
            return float(tree.children[0])
        if kind == "constant":
            return r.constant(tree.children[0])
        bare = _bare_name(tree)
        if bare in _DTYPES:
            return _DTYPES[bare]
        return self.dimension(tree, depth)

    def literal(self, tree: Any) -> Literal:
        r = self.reader
        type_tree, body = tree.children
        type = self.tensor_type(type_tree)
        if not type.is_static or any(d < 0 for d in type.shape):  # type: ignore[operator]
            r.fail(type_tree, "E0905", "a literal's shape holds plain integers")
        shape = tuple(int(d) for d in type.shape)  # type: ignore[arg-type]
        count = math.prod(shape)
        if body.data == "bytes":
            try:
                data = bytes.fromhex(r.word(body.children[0]))
            except ValueError:
                r.fail(body, "E0904", "not hexadecimal bytes")
        else:
            elements = [body] if body.data == "element" else body.children
            repeat = 1
            if body.data == "splat":
                repeat = count
                self.reader.repeated_bytes += count * type.dtype.bytes
                if self.reader.repeated_bytes > MAX_REPEATED_BYTES:
                    r.fail(tree, "E0906", f"literals of more than {MAX_REPEATED_BYTES} bytes")
            array = np.array([self.element(e, type.dtype) for e in elements], type.dtype.numpy)
            data = Literal.of(array).data * repeat
        if len(data) != count * type.dtype.bytes:
            found, wanted = len(data), count * type.dtype.bytes
            r.fail(body, "E0904", f"{type} takes {wanted} bytes of elements and gets {found}")
        return Literal(type.dtype, shape, data)

    def element(self, tree: Any, dtype: DType) -> Any:
        text = "".join(map(str, tree.children))
        kinds = {t.type for t in tree.children}
        ok = text in ("true", "false") if dtype is DType.BOOL else text not in _WORDS
        if dtype.is_int and kinds & {"FLOAT", "WORD"}:
            ok = False
        if len(text) > 40 or not ok:
            self.reader.fail(tree, "E0904", f"`{text[:40]}` is not an element of {dtype}")
        with np.errstate(over="ignore"):
            try:
                return element_value(text, dtype)
            except (ValueError, OverflowError):
                self.reader.fail(tree, "E0904", f"`{text}` does not fit into {dtype}")

    # ---- Dimensions ---------------------------------------------------------------------------

    def dimension(self, tree: Any, depth: int) -> DimLike:
        """The canonical dimension of an expression."""
        r = self.reader
        r.limit_depth(tree, depth)
        if tree.data == "integer":
            return r.integer(tree.children[0])
        if tree.data == "dim_name":
            name = str(tree.children[0]).strip("`")
            if name not in self.builder.dims:
                near = nearest(name, self.builder.dims)
                hint = f"did you mean `{near}`?" if near else None
                r.fail(tree, "E0904", f"dim `{name}` is not declared", help=hint)
            return Dim.symbol(name)
        if sum(isinstance(t, Tree) for t in tree.children) > MAX_FACTORS:
            r.fail(tree, "E0906", f"more than {MAX_FACTORS} terms or factors")
        if tree.data == "quotient":
            above, below = (self.dimension(t, depth + 1) for t in tree.children)
            if below == 0:
                r.fail(tree, "E0904", "division by zero")
            return floordiv(above, below)
        total: DimLike = 0 if tree.data == "sum" else 1
        sign = 1
        for child in tree.children:
            if isinstance(child, Token):
                sign = -1 if child == "-" else 1
                continue
            part = self.dimension(child, depth + (tree.data == "product"))
            if tree.data == "sum":
                total = total + sign * part
            elif _terms(total) > 1 and _terms(part) > 1:
                r.fail(tree, "E0906", "a product of sums")
            else:
                total = total * part
        return total


def _terms(dim: DimLike) -> int:
    return len(dim.terms) if isinstance(dim, Dim) else 1


def _is(item: Any, rule: str) -> bool:
    return isinstance(item, Tree) and item.data == rule


def _bare_name(tree: Any) -> str:
    """The name, if an expression is nothing else."""
    while isinstance(tree, Tree) and len(tree.children) == 1:
        (tree,) = tree.children
    return str(tree) if isinstance(tree, Token) and tree.type == "NAME" else ""
