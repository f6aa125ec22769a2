"""Dimension arithmetic against plain integers."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from graphc.ir.dim import (
    Bounds,
    Dim,
    DimLike,
    evaluate,
    floordiv,
    interval,
    names_of,
    product,
    proves_ge,
    proves_ne,
    substitute,
    upper,
)

N, T, H = (Dim.symbol(n) for n in "NTH")
NAMES = {"N": N, "T": T, "H": H}
ENVS = st.fixed_dictionaries({n: st.integers(1, 9) for n in NAMES})


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> str:
    """Python text of an expression over N, T and H; divisors are positive."""
    if depth == 0 or draw(st.booleans()):
        return draw(st.sampled_from(["N", "T", "H", "0", "1", "2", "3", "7", "-4"]))
    a, b = draw(expressions(depth=depth - 1)), draw(expressions(depth=depth - 1))
    op = draw(st.sampled_from(["+", "-", "*", "//", "%"]))
    if op in ("//", "%"):
        b = draw(st.sampled_from(["1", "2", "3", "6", "N", "2 * T", "(N + T)"]))
    return f"({a}) {op} ({b})"


def calculate(text: str, env: dict[str, DimLike]) -> DimLike:
    """The expression with Python's own operators, over dims or over integers."""
    result: DimLike = eval(text, {}, env)
    return result


@given(expressions(), ENVS)
def test_arithmetic_is_integer_arithmetic(text: str, env: dict[str, int]) -> None:
    assert evaluate(calculate(text, NAMES), env) == calculate(text, dict(env))


@given(expressions())
def test_text_reads_back_equal(text: str) -> None:
    dim = calculate(text, NAMES)
    assert calculate(str(dim), NAMES) == dim
    assert isinstance(dim, int) or dim.names


@given(expressions(), expressions(), ENVS)
def test_substitution_is_evaluation_of_parts(a: str, b: str, env: dict[str, int]) -> None:
    outer, inner = calculate(a, NAMES), calculate(b, NAMES)
    assume(evaluate(inner, env) > 0)
    replaced = substitute(outer, {"N": inner})
    assert evaluate(replaced, env) == evaluate(outer, {**env, "N": evaluate(inner, env)})


@given(expressions(), ENVS)
def test_interval_holds_every_value(text: str, env: dict[str, int]) -> None:
    dim = calculate(text, NAMES)
    for bounds in ({}, {n: Bounds(1, 9) for n in NAMES}, {n: Bounds(v, v) for n, v in env.items()}):
        low, high = interval(dim, bounds)
        assert low <= evaluate(dim, env) <= high


@given(expressions(), expressions(), ENVS)
def test_proofs_are_sound(a: str, b: str, env: dict[str, int]) -> None:
    x, y = calculate(a, NAMES), calculate(b, NAMES)
    if proves_ge(x, y, {}):
        assert evaluate(x, env) >= evaluate(y, env)
    if proves_ne(x, y, {}):
        assert evaluate(x, env) != evaluate(y, env)


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (N, "N"),
        (2 * N * H - 3, "2*H*N - 3"),
        ((H + 1) // 2, "(H + 1) // 2"),
        ((H + 1) // 2 * 2 + 1, "2*((H + 1) // 2) + 1"),
        (-N + 4, "-N + 4"),
        (N * N, "N*N"),
        (128 // T, "128 // T"),
        (N // T // H, "(N // T) // H"),
    ],
)
def test_text(dim: DimLike, text: str) -> None:
    assert str(dim) == text


def test_what_cancels_is_an_integer() -> None:
    assert N + 1 - N == 1
    assert isinstance(N - N, int)
    assert (6 * N + 4) // 2 == 3 * N + 2
    assert (2 * N + 1) // 2 == N
    assert N * T // T == N
    assert (2 * N + 2 * T) // (N + T) == 2
    assert (4 * N + 2) % 2 == 0
    assert ((H // 2) * 2 + 3) // 2 == H // 2 + 1


def test_products_and_names() -> None:
    assert product([]) == 1
    assert product([2, N, 3]) == 6 * N
    assert names_of(5) == ()
    assert names_of((N + T) // H) == ("H", "N", "T")


@given(expressions(), expressions(), ENVS)
def test_an_upper_bound_is_one(a: str, b: str, env: dict[str, int]) -> None:
    x, y = (eval(text, {}, dict(NAMES)) for text in (a, b))
    assume(isinstance(x, int) == isinstance(y, int))
    assert upper(x, x) == x
    if isinstance(x, int):
        assert upper(x, y) == max(x, y)
    elif "//" not in a + b and "%" not in a + b:  # what is rounded may be negative
        assert evaluate(upper(x, y), env) >= max(evaluate(x, env), evaluate(y, env))


def test_division_by_zero() -> None:
    with pytest.raises(ZeroDivisionError):
        floordiv(N, 0)


def test_missing_value() -> None:
    with pytest.raises(KeyError):
        evaluate(N + T, {"N": 1})
