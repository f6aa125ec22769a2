"""Sizes that depend on named dims, as plain data: what module.so evaluates and what manifest.json
holds.

In JSON a size is an integer, a dim's name, or `[op, left, right]` with op `+`, `*` or `//` (floor
division, as in Python). In module.so it is a postfix program for the little stack machine of
`native/binding.c`. The loader needs neither `graphc.ir` nor any other part of the compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from graphc.ir.dim import DimLike

Expr = Union[int, str, "tuple[str, Expr, Expr]"]
"""An integer, a dim's name, or (op, left, right)."""

MAX_DEPTH = 400
"""Deepest nesting of an expression."""

MAX_STACK = 60
"""Most operands at once while evaluating one; the runtime (GRAPHC_EXPR_DEPTH) has room for them."""

_END, _CONST, _DIM = 0, 1, 2
_OPCODES = {"+": 3, "*": 4, "//": 5}


def from_dim(dim: DimLike) -> Expr:
    """The expression of a dimension."""
    if isinstance(dim, int):
        return int(dim)

    def leaf(value: str | int) -> Expr:
        return value

    def node(op: str) -> Callable[[Expr, Expr], Expr]:
        return lambda left, right: (op, left, right)

    return dim.fold(leaf, leaf, node("+"), node("*"), node("//"))


def postfix(expr: Expr, dims: Sequence[str]) -> list[int]:
    """The program that evaluates `expr`, with dims by their place in `dims`: (op, argument) pairs,
    then 0.
    """

    def emit(e: Expr) -> list[int]:
        if isinstance(e, int):
            return [_CONST, e]
        if isinstance(e, str):
            return [_DIM, dims.index(e)]
        op, left, right = e
        return [*emit(left), *emit(right), _OPCODES[op], 0]

    return [*emit(expr), _END]


def depth(expr: Expr) -> int:
    """Nesting of an expression; 1 for a number or a name."""
    return 1 + max(depth(expr[1]), depth(expr[2])) if isinstance(expr, tuple) else 1


def stack(expr: Expr) -> int:
    """Operands on the stack at once when the postfix program runs."""
    return max(stack(expr[1]), 1 + stack(expr[2])) if isinstance(expr, tuple) else 1


def largest(expr: Expr) -> int:
    """The largest magnitude of a number in an expression."""
    if isinstance(expr, tuple):
        return max(largest(expr[1]), largest(expr[2]))
    return abs(expr) if isinstance(expr, int) else 0


def evaluate(expr: Expr, dims: Mapping[str, int]) -> int:
    """The value for given dims. Raises KeyError for a missing dim, ZeroDivisionError for a zero
    divisor.
    """
    if isinstance(expr, int):
        return expr
    if isinstance(expr, str):
        return dims[expr]
    op, left, right = expr
    a, b = evaluate(left, dims), evaluate(right, dims)
    return a + b if op == "+" else a * b if op == "*" else a // b


def names(expr: Expr) -> set[str]:
    """The dims an expression mentions."""
    if isinstance(expr, tuple):
        return names(expr[1]) | names(expr[2])
    return {expr} if isinstance(expr, str) else set()


def to_json(expr: Expr) -> Any:
    """Lists for tuples."""
    return [expr[0], to_json(expr[1]), to_json(expr[2])] if isinstance(expr, tuple) else expr


def from_json(data: object, level: int = 1) -> Expr:
    """Reads `to_json`'s form from an untrusted file. Raises ValueError for anything else."""
    if isinstance(data, str) or (isinstance(data, int) and not isinstance(data, bool)):
        return data
    if isinstance(data, list) and len(data) == 3 and data[0] in _OPCODES and level < MAX_DEPTH:
        return (str(data[0]), from_json(data[1], level + 1), from_json(data[2], level + 1))
    raise ValueError(f"{data!r:.60} is no size: expected an integer, a dim or [op, left, right]")


def to_text(expr: Expr) -> str:
    """The expression as a person writes it: `2*N`, `(H + 1) // 2`."""
    if not isinstance(expr, tuple):
        return str(expr)
    op, left, right = expr
    if op == "*" and isinstance(right, int):
        left, right = right, left
    if op == "+" and isinstance(right, int) and right < 0:
        return f"{to_text(left)} - {-right}"
    a, b = (
        f"({to_text(e)})"
        if isinstance(e, tuple) and op != "+" and (e[0] != op or op == "//")
        else to_text(e)
        for e in (left, right)
    )
    return f"{a}*{b}" if op == "*" else f"{a} {op} {b}"
