"""Operators on plain values: numbers, named dims, strings, lists. What tensors do is in `evaluate.py`."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from graphc.frontend.limits import Limits
from graphc.frontend.report import RejectError
from graphc.frontend.values import describe, shown
from graphc.ir.dim import Bounds, Dim, DimLike, floordiv, names_of, proves_ge, proves_ne

_PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
COMPARISONS: dict[str, str] = {
    "==": "eq",
    "!=": "ne",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
}
"""Comparison operators and the direction of the op that compares tensors."""


def binary(op: str, x: Any, y: Any, limits: Limits) -> Any:
    """`x op y`. Raises RejectError E0512 (kinds), E0513 (no result), E0218 (dims), E0502 (too large)."""
    if _number(x) and _number(y):
        if isinstance(x, Dim) or isinstance(y, Dim):
            return _dims(op, x, y, limits)
        return _numbers(op, x, y, limits)
    if op == "+" and isinstance(x, str) and isinstance(y, str):
        return _short(x + y, limits)
    if op == "+" and isinstance(x, list) and isinstance(y, list):
        return _short(x + y, limits)
    if op == "+" and isinstance(x, tuple) and isinstance(y, tuple):
        return _short(x + y, limits)
    if op == "*" and isinstance(x, int) and isinstance(y, (list, tuple)):
        x, y = y, x
    if op == "*" and isinstance(x, (list, tuple)) and isinstance(y, int) and _number(y):
        if len(x) * max(0, y) > limits.length:
            raise _too_long(limits)
        return x * y
    raise RejectError(
        f"`{op}` does not work on {describe(x)} and {describe(y)}",
        code="E0512",
        label="cannot be combined",
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, Dim)) and not isinstance(value, bool)


def _short(value: Any, limits: Limits) -> Any:
    if len(value) > limits.length:
        raise _too_long(limits)
    return value


def _too_long(limits: Limits) -> RejectError:
    return RejectError(f"this has more than {limits.length:,} elements", code="E0502")


def _numbers(op: str, x: int | float, y: int | float, limits: Limits) -> int | float:
    try:
        if op == "**":
            return checked_integer(_power(x, y), limits)
        result: int | float = _PLAIN[op](x, y)
        return checked_integer(result, limits)
    except ZeroDivisionError:
        raise RejectError(f"{shown(x)} {op} {shown(y)} divides by zero", code="E0513") from None
    except OverflowError:
        raise RejectError(f"{shown(x)} {op} {shown(y)} is too large", code="E0513") from None


def _power(x: int | float, y: int | float) -> int | float:
    """A power that cannot take long: integers that would leave 64 bits are refused before they are computed."""
    if isinstance(x, int) and isinstance(y, int) and y >= 0:
        if abs(x) > 1 and y * (abs(x).bit_length() - 1) > 64:
            raise OverflowError
        return int(x**y)
    if isinstance(x, (int, float)) and x < 0 and float(y) != int(y):
        raise RejectError(f"{shown(x)} ** {shown(y)} is no real number", code="E0513")
    return math.pow(x, y)


def checked_integer(value: int | float, limits: Limits) -> int | float:
    """The value; raises RejectError (E0513) for an integer that 64 bits cannot hold."""
    if isinstance(value, int) and not -limits.integer <= value < limits.integer:
        raise RejectError("the result does not fit into 64 bits", code="E0513")
    return value


def _dims(op: str, x: DimLike | float, y: DimLike | float, limits: Limits) -> DimLike:
    if isinstance(x, float) or isinstance(y, float):
        dim = x if isinstance(x, Dim) else y
        raise RejectError(
            f"`{dim}` is only known at run time, so `{x} {op} {y}` is no number yet",
            code="E0216",
            help=fix_help(dim),
        )
    result: DimLike
    if op in ("+", "-", "*"):
        result = _PLAIN[op](x, y)
    elif op in ("//", "%", "/"):
        if y == 0:
            raise RejectError(f"{x} {op} 0 divides by zero", code="E0513")
        quotient = floordiv(x, y)
        if op == "/":
            if quotient * y != x:
                raise RejectError(
                    f"`{x}` may not divide by {y}",
                    code="E0219",
                    help=f"`{x} // {y}` rounds down; or fix the dim, {fix_help(x)}",
                )
            result = quotient
        else:
            result = quotient if op == "//" else x - quotient * y
    elif isinstance(y, int) and 0 <= y <= limits.dim_degree:
        result = 1
        for _ in range(y):
            result = checked_dim(result * x, limits)
    else:
        raise RejectError(f"a dim has small integer powers only, not {shown(y)}", code="E0513")
    return checked_dim(result, limits)


def checked_dim(dim: DimLike, limits: Limits) -> DimLike:
    """The dim; raises RejectError (E0513) for a polynomial that has grown out of hand."""
    if isinstance(dim, int):
        checked_integer(dim, limits)
        return dim
    degree = max(sum(p for _, p in mono) for mono, _ in dim.terms)
    if (
        len(dim.terms) > limits.dim_terms
        or degree > limits.dim_degree
        or any(abs(c) >= limits.integer for _, c in dim.terms)
        or len(str(dim)) > 40 * limits.dim_terms
    ):
        raise RejectError("this dimension has become too complicated", code="E0513")
    return dim


def fix_help(dim: object) -> str:
    """How to fix the named dims in a dimension from outside."""
    names = names_of(dim) if isinstance(dim, (int, Dim)) else ()
    return "for example with " + " ".join(f"`--dim {n}=8`" for n in names)


def compare(op: str, x: Any, y: Any, bounds: Mapping[str, Bounds]) -> bool:
    """`x op y` of plain values. Raises RejectError E0219 (not decided), E0512 (kinds)."""
    if _number(x) and _number(y):
        if isinstance(x, Dim) or isinstance(y, Dim):
            return _decide(op, x, y, bounds)
        return bool(getattr(operator, COMPARISONS[op])(x, y))
    if op in ("==", "!="):
        equal = type(x) is type(y) and bool(x == y)
        return equal if op == "==" else not equal
    if isinstance(x, str) and isinstance(y, str):
        return bool(getattr(operator, COMPARISONS[op])(x, y))
    raise RejectError(
        f"`{op}` does not work on {describe(x)} and {describe(y)}",
        code="E0512",
        label="cannot be compared",
    )


def _decide(op: str, x: Any, y: Any, bounds: Mapping[str, Bounds]) -> bool:
    """A comparison that holds for all values of the dims, or for none. Raises RejectError (E0219) otherwise."""
    if isinstance(x, float):
        x = int(x) if x.is_integer() else x
    if isinstance(y, float):
        y = int(y) if y.is_integer() else y
    if not isinstance(x, float) and not isinstance(y, float):
        if op in ("==", "!="):
            if x == y:
                return op == "=="
            if proves_ne(x, y, bounds):
                return op == "!="
        else:
            big, small = (y, x) if op in ("<", "<=") else (x, y)
            strict = 1 if op in ("<", ">") else 0  # over the integers x > y is x >= y + 1
            if proves_ge(big, small + strict, bounds):
                return True
            if proves_ge(small + strict - 1, big, bounds):
                return False
    dim = x if isinstance(x, Dim) else y
    name = names_of(dim)[0]
    other = y if dim is x else x
    bound = (
        f"declare it as `{name} <= {other}`, or "
        if isinstance(other, int) and str(dim) == name
        else ""
    )
    raise RejectError(
        f"whether `{x} {op} {y}` depends on the dim `{name}`, which is only known at run time",
        code="E0219",
        label="cannot be decided while the graph is built",
        help=f"{bound}fix the dim with `--dim {name}=8`",
    )
