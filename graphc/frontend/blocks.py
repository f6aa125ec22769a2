"""Expanding blocks: arguments to names, the body run, the returned value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphc.diagnostics import Frame as TraceFrame
from graphc.frontend.layers.base import LayerClass
from graphc.frontend.limits import LimitError, Limits
from graphc.frontend.names import unbound_dims
from graphc.frontend.report import FailedError, Reporter
from graphc.frontend.scope import Frame, assigned, constant_labels
from graphc.frontend.shapes import Match, bind_names, check_rest
from graphc.frontend.signature import Function, Parameter, Signature, assign
from graphc.frontend.statements import Statements
from graphc.frontend.values import (
    POISON,
    Argument,
    BlockDef,
    Bound,
    Method,
    Shared,
    Spec,
    Tensor,
    describe,
    is_poisoned,
)
from graphc.ir.dim import Dim
from graphc.ir.graph import GraphBuilder
from graphc.source import Span
from graphc.syntax import ast

_LAYERS = (LayerClass, BlockDef, Spec, Shared, Method, Function, Bound)
_KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int, Dim),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "list": (list, tuple, range),
    "layer": _LAYERS,
    "block": (LayerClass, BlockDef),
}
"""Values that a parameter of each kind takes; a named dim counts as an integer."""

WORDS = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a string",
    "list": "a list",
    "layer": "a layer",
    "block": "a layer or block without arguments",
}
"""Kinds of parameters in words."""


def fits(kind: str, value: Any) -> bool:
    """True when a value is of a kind; `true` is no integer."""
    if isinstance(value, bool):
        return kind == "bool"
    return isinstance(value, _KINDS[kind])


class Blocks(Statements):
    """Expands blocks."""

    def __init__(self, b: GraphBuilder, report: Reporter, limits: Limits) -> None:
        super().__init__(b, report, limits)
        self._labels: dict[int, frozenset[str]] = {}

    def run_block(
        self,
        block: BlockDef,
        arguments: tuple[Argument, ...],
        inputs: tuple[Any, ...],
        frame: Frame,
        inner: Frame,
        span: Span,
    ) -> Any:
        """The value that a block returns for its inputs and arguments. Raises FailedError."""
        node = block.node
        if isinstance(node, ast.Model):
            self.report.fail(
                "E0308", f"`{node.name.id}` is a model; only blocks and layers can be used", span
            )
        if inner.depth > self.limits.depth:
            raise LimitError(
                "E0501",
                f"blocks are nested more than {self.limits.depth} deep",
                "a block that uses itself needs an argument that ends the recursion",
            )
        what = f"block {block.name}"
        if len(inputs) > len(node.parameters):
            self.report.fail(
                "E0409",
                f"{what} takes {len(node.parameters)} inputs and gets {len(inputs)}",
                span,
                related=[(node.name.span, "declared here")],
            )
        given = {
            p.name.id: Argument(v, span) for p, v in zip(node.parameters, inputs, strict=False)
        }
        bound, _ = assign(
            block_signature(node), what, arguments, span, self.report, given=tuple(given)
        )
        inner.reserved = self._reserved(node.body)
        self._fill(node, {**given, **bound}, what, inner, span)
        self.report.trace.append(TraceFrame(f"while expanding `{block.name}`", span))
        try:
            value = self.body(node.body, inner)
        finally:
            self.report.trace.pop()
        if value is None and not inner.failed:
            self.report.fail(
                "E0511",
                f"block `{block.name}` returns nothing",
                node.name.span,
                help="end it with `return y`",
            )
        if value is None or is_poisoned(value.value):
            raise FailedError
        return value.value

    def _reserved(self, body: ast.Body) -> frozenset[str]:
        key = id(body)
        if key not in self._labels:
            self._labels[key] = constant_labels(body)
        return self._labels[key]

    def _fill(
        self, node: ast.Block, values: dict[str, Argument], what: str, inner: Frame, span: Span
    ) -> None:
        """Checks the arguments of a block and gives its names their values. Raises FailedError."""
        failed = False
        matches: list[Match] = []
        for parameter in node.parameters:
            argument = values.get(parameter.name.id)
            if argument is None:
                continue
            try:
                match = self._fits(parameter, argument, what)
            except FailedError:
                failed = True
                continue
            inner.env[parameter.name.id] = argument.value
            if match is not None:
                matches.append(match)
        # Names first, then defaults, which may use them, then what is written with both.
        for match in matches:
            try:
                bind_names(match, inner, self.report, self.b.dims)
            except FailedError:
                failed = True
        if failed:
            raise FailedError
        for parameter in node.parameters:
            if parameter.name.id not in values and parameter.default is not None:
                value = self.value(parameter.default, inner)
                if isinstance(parameter.type, ast.KindType):
                    self._fits(parameter, Argument(value, parameter.default.span), what)
                inner.env[parameter.name.id] = value
        for match in matches:
            for dim in match.declared.dims:
                if isinstance(dim, ast.Dim) and not isinstance(dim.size, ast.Name):
                    unbound_dims(dim.size, inner.env, inner.module, self.report)
            check_rest(match, inner, self.report, self.dim, self.b.dims)

    def _fits(self, parameter: ast.Parameter, argument: Argument, what: str) -> Match | None:
        """Checks one argument. Returns what a tensor is to be matched with; reports E0404."""
        name, value = parameter.name.id, argument.value
        optional = isinstance(parameter.default, ast.Nothing)
        if is_poisoned(value):
            raise FailedError
        if value is None and optional:
            return None
        if isinstance(parameter.type, ast.TensorType):
            if isinstance(value, Tensor):
                origin = tuple(p for p in self.provenance.of(value.value) if p[0] != argument.span)
                return Match(name, parameter.type, value, origin, argument.span)
            wanted = f"a tensor {parameter.type.span.text}"
        elif fits(parameter.type.kind, value):
            return None
        else:
            wanted = WORDS[parameter.type.kind]
        self.report.fail(
            "E0404",
            f"`{name}` of {what} has to be {wanted} and is {describe(value)}",
            argument.span,
            related=[(parameter.span, "declared here")],
        )

    def poison_assigned(self, node: ast.Node, frame: Frame) -> None:
        """Everything a statement would have given a value is poison: it was not run."""
        for name in assigned(node):
            frame.env[name.id] = POISON


def block_signature(node: ast.Block) -> Signature:
    """The parameters of a block as a signature; kinds and shapes are checked apart."""
    return Signature(
        tuple(
            Parameter(p.name.id, required=p.default is None, written=p.span.text)
            for p in node.parameters
        )
    )
