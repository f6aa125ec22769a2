"""Module descriptions: what is refused, in which order dims are found, and sizes as data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.artifact import ModuleSpecError, capi, expr
from graphc.artifact.spec import (
    DTYPES,
    MAX_RANK,
    DimSpec,
    ModuleSpec,
    Port,
    WeightSpec,
    binding_steps,
    linear,
)
from graphc.ir.dim import Dim, DimLike, evaluate
from tests.artifact.modules import BIAS, H, N, T, linear_spec


def steps(*shapes: tuple[DimLike, ...], dims: str = "NTH") -> list[str]:
    """The binding steps as text."""
    inputs = tuple(Port(f"in{i}", "f32", shape) for i, shape in enumerate(shapes))
    return [
        f"{s.input}.{s.axis}: "
        + (f"({s.coefficient})*{s.dim} + {s.rest}" if s.dim else str(s.rest))
        for s in binding_steps(inputs, tuple(DimSpec(name) for name in dims))
    ]


def test_plain_names_bind_first_and_the_rest_is_checked() -> None:
    assert steps((2 * T + 1, N, 7), (T, N), dims="NT") == [
        "0.1: (1)*N + 0",
        "1.0: (1)*T + 0",
        "1.1: N",
        "0.0: 2*T + 1",
        "0.2: 7",
    ]


def test_linear_axes_bind_when_everything_else_is_known() -> None:
    assert steps((N * H - 3,), (16 * N,), dims="NH") == ["1.0: (16)*N + 0", "0.0: (N)*H + -3"]


def test_an_axis_that_binds_nothing_waits() -> None:
    assert steps(((H + 1) // 2,), (H,), dims="H") == ["1.0: (1)*H + 0", "0.0: (H + 1) // 2"]


@pytest.mark.parametrize(
    "shape", [(4,), (N * T, T), ((T + 1) // 2, N), (T * T, N)], ids=str
)  # fmt: skip
def test_a_dim_that_no_input_determines_is_refused(shape: tuple[DimLike, ...]) -> None:
    if shape == (N * T, T):
        assert steps(shape, dims="NT")
        return
    with pytest.raises(ModuleSpecError, match=r"cannot be found from the shapes.*--dim"):
        steps(shape, dims="NT")


def test_linear_parts() -> None:
    assert linear(N * T * 3 + N - 2, "T") == (N * 3, N - 2)
    assert linear(4 * T, "T") == (4, 0)
    assert linear(N + 1, "T") == (0, N + 1)
    assert linear(T * T, "T") is None
    assert linear(T + (T + 1) // 2, "T") is None
    assert linear(N * ((T + 1) // 2), "N") == ((T + 1) // 2, 0)
    assert linear(7, "T") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": (Port("x", "f32", (N, 4)), Port("x", "f32", (N,)))}, "two inputs are called"),
        ({"inputs": (Port("a b", "f32", (N, 4)),)}, "no name for input"),
        ({"inputs": (Port("x", "f99", (N, 4)),)}, "has dtype 'f99'; known: f64"),
        ({"inputs": (Port("x", "f32", (N,) * 9),)}, "9 axes, a module's inputs at most 8"),
        ({"outputs": (Port("y", "f32", (N, -1)),)}, "negative"),
        ({"outputs": (Port("y", "f32", (T,)),)}, "unknown dims: T"),
        ({"arena_bytes": N * T}, "unknown dims: T"),
        ({"cpu_features": ("quantum",)}, "'quantum' cannot be checked"),
        ({"weights": (WeightSpec("w", BIAS, 32),)}, "multiples of 64"),
        ({"weights": (WeightSpec("a", np.zeros(17, "f4"), 0), WeightSpec("b", BIAS, 64))}, "overlap"),
        ({"weights": (WeightSpec("a", BIAS, 0), WeightSpec("a", BIAS, 64))}, "two weights"),
        ({"arena_bytes": 1 << 63}, "64 bits"),
        ({"dims": (DimSpec("N", 5, 4),)}, "bounds"),
    ],
)  # fmt: skip
def test_what_makes_no_module_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModuleSpecError, match=message):
        linear_spec(**changes)


def test_a_size_of_too_many_terms_is_refused() -> None:
    size: DimLike = 0
    for i in range(450):
        size = size + Dim.symbol(f"D{i}")
    dims = tuple(DimSpec(f"D{i}") for i in range(450))
    inputs = tuple(Port(f"i{i}", "u8", (Dim.symbol(f"D{i}"),)) for i in range(450))
    with pytest.raises(ModuleSpecError, match="too many terms"):
        ModuleSpec("Many", inputs, (), dims=dims, arena_bytes=size)


def test_the_loader_and_the_spec_agree() -> None:
    assert capi.DTYPES == DTYPES
    assert capi.MAX_RANK == MAX_RANK
    assert {f.name for f in dataclasses.fields(ModuleSpec)} >= {"inputs", "outputs", "steps"}


@st.composite
def dim_likes(draw: st.DrawFn, depth: int = 3) -> DimLike:
    if depth == 0 or draw(st.booleans()):
        return draw(st.one_of(st.integers(-9, 9), st.sampled_from([N, T, H])))
    a, b = draw(dim_likes(depth=depth - 1)), draw(dim_likes(depth=depth - 1))
    op = draw(st.sampled_from("+*/"))
    if op == "/":
        return a // draw(st.integers(1, 9)) if not isinstance(a, int) else a
    return a + b if op == "+" else a * b


@given(dim_likes(), st.tuples(*[st.integers(0, 20)] * 3))
@settings(max_examples=200, deadline=None)
def test_expressions_mean_what_dims_mean(dim: DimLike, values: tuple[int, int, int]) -> None:
    env = dict(zip("NTH", values, strict=True))
    expected = evaluate(dim, env)
    e = expr.from_dim(dim)
    assert expr.evaluate(e, env) == expected
    assert expr.from_json(expr.to_json(e)) == e
    assert expr.names(e) <= set(env)
    assert eval(expr.to_text(e), {}, dict(env)) == expected
    stack: list[int] = []  # what binding.c does
    code = expr.postfix(e, "NTH")
    for op, argument in zip(code[:-1:2], code[1::2], strict=True):
        if op <= 2:
            stack.append(argument if op == 1 else values[argument])
            continue
        b, a = stack.pop(), stack.pop()
        stack.append(a + b if op == 3 else a * b if op == 4 else a // b)
    assert stack == [expected]


@pytest.mark.parametrize(
    "data", [None, 1.5, True, [], ["+", 1], ["^", 1, 2], {"N": 1}, ["+", 1, []]]
)
def test_what_is_no_expression_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="is no size"):
        expr.from_json(data)
