"""Signatures by introspection, and the one way arguments are bound to them.

A layer or a function is described by its Python signature: names, order, defaults and kinds come from there, so that
documentation, checks and error messages cannot disagree with the code.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from graphc.diagnostics import nearest
from graphc.frontend.kinds import MismatchError, convert, spelled
from graphc.frontend.report import FailedError, Reporter
from graphc.frontend.values import Argument, is_poisoned, shown
from graphc.source import Span

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Parameter:
    """One parameter of a layer, block or function; `required` ones have no default."""

    name: str
    hint: Any = Any
    default: Any = None
    required: bool = True
    keyword_only: bool = False
    written: str | None = None  # a block's parameter as its author wrote it

    def __str__(self) -> str:
        if self.written is not None:
            return self.written
        text = f"{self.name}: {spelled(self.hint)}"
        return text if self.required else f"{text} = {shown(self.default)}"


@dataclass(frozen=True)
class Signature:
    """Parameters in order; `variadic` takes any number of further positional arguments."""

    parameters: tuple[Parameter, ...]
    variadic: Parameter | None = None

    @staticmethod
    def of(function: Callable[..., Any], *, skip: int = 0) -> Signature:
        """The signature of a Python function without its first `skip` parameters."""
        hints = typing.get_type_hints(function)
        found = list(inspect.signature(function).parameters.values())[skip:]
        parameters: list[Parameter] = []
        variadic = None
        for p in found:
            hint = hints.get(p.name, Any)
            if p.kind is p.VAR_POSITIONAL:
                variadic = Parameter(p.name, hint)
                continue
            required = p.default is p.empty
            default = None if required else p.default
            keyword_only = p.kind is p.KEYWORD_ONLY
            parameters.append(Parameter(p.name, hint, default, required, keyword_only))
        return Signature(tuple(parameters), variadic)

    @cached_property
    def by_name(self) -> Mapping[str, Parameter]:
        """Parameters by name."""
        return {p.name: p for p in self.parameters}

    @cached_property
    def positional(self) -> tuple[Parameter, ...]:
        """Parameters that a positional argument can reach."""
        return tuple(p for p in self.parameters if not p.keyword_only)

    def __str__(self) -> str:
        parts: list[str] = []
        if self.variadic:
            parts.append(f"*{self.variadic.name}: {spelled(self.variadic.hint)}")
        for p in self.parameters:
            if p.keyword_only and "*" not in parts and not self.variadic:
                parts.append("*")
            parts.append(str(p))
        return f"({', '.join(parts)})"


def assign(
    signature: Signature,
    what: str,
    arguments: Sequence[Argument],
    span: Span,
    report: Reporter,
    *,
    given: Sequence[str] = (),
) -> tuple[dict[str, Argument], tuple[Argument, ...]]:
    """Which argument goes to which parameter, and the variadic rest. Reports every mistake, then raises FailedError.

    `given` are parameters filled by the value of the chain; they take no argument and count as present.
    """
    bound: dict[str, Argument] = {}
    rest: list[Argument] = []
    failure: FailedError | None = None
    free = [p for p in signature.positional if p.name not in given]
    placed = 0
    for argument in arguments:
        if argument.name is None:
            if placed < len(free) and free[placed].name not in bound:
                bound[free[placed].name] = argument
                placed += 1
            elif signature.variadic:
                rest.append(argument)
            else:
                takes = "no arguments" if not free else f"at most {len(free)} by position"
                failure = report.error(
                    "E0403",
                    f"{what} takes {takes}",
                    argument.span,
                    "one too many",
                    help=f"it is `{what.split()[-1]}{signature}`",
                )
            continue
        name = argument.name.id
        if name not in signature.by_name:
            failure = _unknown(signature, what, argument, report)
        elif name in bound or name in given:
            other = bound[name].span if name in bound else span
            failure = report.error(
                "E0406",
                f"{what} gets `{name}` twice",
                argument.name.span,
                "given again here",
                related=[(other, "first given here")] if name in bound else (),
            )
        else:
            bound[name] = argument
    missing = [
        p.name for p in signature.parameters if p.required and p.name not in (*bound, *given)
    ]
    if missing and failure is None:
        names = " and ".join(f"`{m}`" for m in missing)
        failure = report.error(
            "E0402",
            f"{what} needs {names}",
            span,
            f"{missing[0]} is missing",
            help=f"it is `{what.split()[-1]}{signature}`",
        )
    if failure is not None:
        raise failure
    if any(is_poisoned(a.value) for a in (*bound.values(), *rest)):
        raise FailedError
    return bound, tuple(rest)


def _unknown(signature: Signature, what: str, argument: Argument, report: Reporter) -> FailedError:
    assert argument.name is not None
    name = argument.name.id
    names = [p.name for p in signature.parameters]
    near = nearest(name, names)
    if near:
        help = f"did you mean `{near}`?"
    elif names:
        help = f"it takes {', '.join(f'`{n}`' for n in names)}"
    else:
        help = "it takes no arguments"
    return report.error(
        "E0401", f"{what} has no argument `{name}`", argument.name.span, "unknown", help=help
    )


def converted(
    signature: Signature,
    what: str,
    bound: Mapping[str, Argument],
    report: Reporter,
) -> dict[str, Any]:
    """The bound arguments as the kinds of their parameters want them. Reports every mismatch, raises FailedError."""
    values: dict[str, Any] = {}
    failure: FailedError | None = None
    for name, argument in bound.items():
        try:
            values[name] = convert(argument.value, signature.by_name[name].hint)
        except MismatchError as error:
            failure = report.error(
                error.code,
                f"`{name}` of {what} {error.message}",
                argument.span,
                help=error.help,
            )
    if failure is not None:
        raise failure
    return values


@dataclass(frozen=True)
class Function:
    """A built-in function: `softmax`. `implementation(b, ...)` takes the builder and graph values.

    `group` is the heading it is listed under.
    """

    name: str
    signature: Signature
    implementation: Callable[..., Any]
    group: str

    kind = "function"

    @property
    def doc(self) -> str:
        """What it does: the docstring of its implementation."""
        return inspect.getdoc(self.implementation) or ""

    @property
    def summary(self) -> str:
        """The first line of `doc`."""
        return self.doc.split("\n", 1)[0]


class Registry(dict[str, Function]):
    """Functions by name; `registry.add(group)` is the decorator that fills it."""

    def add(self, group: str) -> Callable[[F], F]:
        """Registers an implementation under its own name, without a trailing `_`."""

        def register(implementation: F) -> F:
            name = implementation.__name__.rstrip("_")
            signature = Signature.of(implementation, skip=1)
            self[name] = Function(name, signature, implementation, group)
            return implementation

        return register
