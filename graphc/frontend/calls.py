"""Calls: `softmax(x, dim=1)` runs a function, `Conv2d(64, 3)` makes a layer that a chain can apply."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from graphc.frontend.emission import Emission
from graphc.frontend.keys import RandomKey
from graphc.frontend.kinds import takes_key, takes_mixed
from graphc.frontend.layers.base import LayerClass
from graphc.frontend.report import FailedError
from graphc.frontend.scope import Frame
from graphc.frontend.signature import Function, assign, converted
from graphc.frontend.values import (
    Argument,
    BlockDef,
    Bound,
    Method,
    MixedLabels,
    Shared,
    Spec,
    SubChainValue,
    Tensor,
    describe,
    is_poisoned,
    tensors_in,
)
from graphc.ir.graph import Value
from graphc.source import Span
from graphc.syntax import ast


class Calls(Emission, ABC):
    """Evaluates calls."""

    @abstractmethod
    def attempt(self, node: ast.Node, frame: Frame) -> Any:
        """The value of an expression, or poison where it fails."""

    @abstractmethod
    def drawn(self, given: RandomKey | None) -> RandomKey | None:
        """The key of one use of a function that draws random numbers: of the tensor given, or of the training step."""

    @abstractmethod
    def make_spec(
        self, callee: LayerClass | BlockDef, arguments: tuple[Argument, ...], span: Span
    ) -> Spec:
        """A layer with its arguments, checked as far as that goes without inputs."""

    def arguments(self, node: ast.Call, frame: Frame) -> tuple[Argument, ...]:
        """The arguments of a call; poison where one fails."""
        found = [Argument(self.attempt(a, frame), a.span) for a in node.args]
        found += [
            Argument(self.attempt(k.value, frame), k.value.span, k.name) for k in node.keywords
        ]
        return tuple(found)

    def call(self, node: ast.Call, frame: Frame) -> Any:
        """The value of a call: a function's result, or a layer with its arguments. Raises FailedError."""
        callee = self.attempt(node.callee, frame)
        arguments = self.arguments(node, frame)
        if is_poisoned(callee):
            raise FailedError
        if isinstance(callee, Function):
            if _open(callee, arguments):
                return Bound(callee, arguments, node.span)
            return self.call_function(callee, arguments, frame, node.span)
        if isinstance(callee, (LayerClass, BlockDef)):
            first = next((a for a in arguments if a.name is None), None)
            if (
                first is not None
                and isinstance(first.value, Tensor)
                and isinstance(callee, LayerClass)
            ):
                text = first.span.text if len(first.span.text) < 30 else "x"
                self.report.fail(
                    "E0310",
                    f"a layer is applied with an arrow, not called with {describe(first.value)}",
                    node.span,
                    help=f"write `{text} -> {callee.name}(...)`",
                )
            return self.make_spec(callee, arguments, node.span)
        if isinstance(callee, (Spec, Shared, Method, Bound, SubChainValue)):
            self.report.fail(
                "E0310",
                f"{describe(callee)} is applied with an arrow, not called",
                node.span,
                help=f"write `x -> {node.callee.span.text}`",
            )
        self.report.fail("E0308", f"{describe(callee)} cannot be called", node.callee.span)

    def call_function(
        self, function: Function, arguments: tuple[Argument, ...], frame: Frame, span: Span
    ) -> Any:
        """Calls a built-in function. Raises FailedError."""
        what = f"function {function.name}"
        keys = [p for p in function.signature.parameters if takes_key(p.hint)]
        named = {a.name.id for a in arguments if a.name is not None}
        given = [p.name for p in keys if p.name not in named]
        bound, rest = assign(function.signature, what, arguments, span, self.report, given=given)
        values = converted(function.signature, what, bound, self.report)
        self._unmixed(function, bound)
        for p in keys:
            values[p.name] = self.drawn(values.get(p.name))
            if values[p.name] is None:
                self.report.fail(
                    "E0402",
                    f"{what} needs `{p.name}` outside of training",
                    span,
                    help="declare `input rng: i64[2]` (a seed, and a number that changes with every call) "
                    f"and give `{p.name}=rng`",
                )
        variadic = function.signature.variadic
        extra: list[Any] = []
        if variadic is not None:
            for number, argument in enumerate(rest):
                single = {variadic.name: argument}
                extra.append(converted_variadic(self, function, single, number))
        positional, keywords = self._ordered(function, values)
        inputs = tuple(t.value for a in arguments for t in tensors_in(a.value))

        def run() -> Any:
            return function.implementation(self.b, *positional, *extra, **keywords)

        return self.emit(frame, span, run, inputs, bound)

    def _unmixed(self, function: Function, bound: dict[str, Argument]) -> None:
        """A loss that knows of one class for each row would miss the other that mixing gave. Reports E0404."""
        for name, argument in bound.items():
            hint = function.signature.by_name[name].hint
            mixed = isinstance(argument.value, MixedLabels) and function.group == "Losses"
            if mixed and not takes_mixed(hint):
                self.report.fail(
                    "E0404",
                    f"`{name}` of function {function.name} is one class for each row, and mixing made it two",
                    argument.span,
                    help="`cross_entropy` takes mixed labels",
                )

    @staticmethod
    def _ordered(function: Function, values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments for Python; all by position where more follow them."""
        if function.signature.variadic is None:
            return [], values
        positional = [values[p.name] for p in function.signature.positional if p.name in values]
        names = {p.name for p in function.signature.positional}
        return positional, {k: v for k, v in values.items() if k not in names}


def _open(function: Function, arguments: tuple[Argument, ...]) -> bool:
    """True when a function lacks just its tensor, `softmax(dim=1)`: it can be passed on as a layer."""
    positional = function.signature.positional
    if not positional or not positional[0].required or positional[0].hint is not Value:
        return False
    names = {a.name.id for a in arguments if a.name is not None}
    return len(names) == len(arguments) and positional[0].name not in names


def converted_variadic(
    ev: Calls, function: Function, single: dict[str, Argument], number: int
) -> Any:
    """One further positional argument as its kind wants it."""
    assert function.signature.variadic is not None
    signature = type(function.signature)((function.signature.variadic,))
    what = f"function {function.name} (number {number + 1})"
    return converted(signature, what, single, ev.report)[function.signature.variadic.name]
