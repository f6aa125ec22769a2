"""Elementwise ops and activations against PyTorch and the standard library."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphc import ops as o
from graphc.ir.dtype import DType
from graphc.ir.op import Op, OpError
from graphc.ir.types import TensorType
from graphc.ops.numerics import erf
from tests.ops.samples import FLOATS, INTS, array
from tests.ops.torch_oracle import agree, quick, tensor

F = torch.nn.functional
Torch = Callable[..., torch.Tensor]

UNARY: list[tuple[Op, Torch]] = [
    (o.Negate(), torch.neg),
    (o.Abs(), torch.abs),
    (o.Exp(), torch.exp),
    (o.Expm1(), torch.expm1),
    (o.Log(), torch.log),
    (o.Log1p(), torch.log1p),
    (o.Sqrt(), torch.sqrt),
    (o.Rsqrt(), torch.rsqrt),
    (o.Tanh(), torch.tanh),
    (o.Logistic(), torch.sigmoid),
    (o.Erf(), torch.erf),
    (o.Sine(), torch.sin),
    (o.Cosine(), torch.cos),
    (o.Floor(), torch.floor),
    (o.Ceil(), torch.ceil),
    (o.RoundNearestEven(), torch.round),
    (o.IsNan(), torch.isnan),
    (o.Relu(), F.relu),
    (o.LeakyRelu(0.2), lambda x: F.leaky_relu(x, 0.2)),
    (o.Elu(1.3), lambda x: F.elu(x, 1.3)),
    (o.Selu(), F.selu),
    (o.Gelu(), F.gelu),
    (o.Gelu("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    (o.Silu(), F.silu),
    (o.Softplus(2.0, 5.0), lambda x: F.softplus(x, 2.0, 5.0)),
    (o.Hardswish(), F.hardswish),
    (o.Hardsigmoid(), F.hardsigmoid),
    (o.Hardtanh(-0.5, 2.0), lambda x: F.hardtanh(x, -0.5, 2.0)),
    (o.Mish(), F.mish),
]
BINARY: list[tuple[Op, Torch]] = [
    (o.Add(), torch.add),
    (o.Subtract(), torch.sub),
    (o.Multiply(), torch.mul),
    (o.Divide(), torch.div),
    (o.Power(), torch.pow),
    (o.Maximum(), torch.maximum),
    (o.Minimum(), torch.minimum),
    (o.Prelu(), lambda x, slope: torch.where(x > 0, x, x * slope)),
    *[(o.Compare(d), getattr(torch, d)) for d in ("eq", "ne", "lt", "le", "gt", "ge")],
]
seeds = st.integers(0, 2**32 - 1)


def named(cases: list[tuple[Op, Torch]]) -> list[object]:
    return [pytest.param(op, f, id=str(op)) for op, f in cases]


@pytest.mark.parametrize(("op", "function"), named(UNARY))
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_of_one_operand(op: Op, function: Torch, dtype: DType) -> None:
    rng = np.random.default_rng(3)
    x = array(rng, dtype, (40,), special=True)
    if op.family == "activation":  # PyTorch's own vector and scalar paths differ at infinity
        x = np.where(np.isinf(x.astype(np.float32)), np.asarray(2, x.dtype), x)
    agree(op, [x], function(tensor(x)), scale=2)


@pytest.mark.parametrize(("op", "function"), named(BINARY))
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_floats_of_two_operands(op: Op, function: Torch, dtype: DType) -> None:
    rng = np.random.default_rng(4)
    x, y = (array(rng, dtype, (60,), special=True) for _ in range(2))
    agree(op, [x, y], function(tensor(x), tensor(y)), scale=2)


@given(seeds)
@quick
def test_float_division_with_rounding_follows_python(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (array(rng, DType.F64, (8,)) for _ in range(2))
    y = np.where(y == 0, 1.5, y)
    (quotient,), (rest,) = (op.evaluate(x, y) for op in (o.FloorDivide(), o.Remainder()))
    for a, b, q, r in zip(x.tolist(), y.tolist(), quotient, rest, strict=True):
        assert (q, r) == (a // b, a % b)


@pytest.mark.parametrize("dtype", INTS, ids=str)
def test_integer_division_follows_python_and_never_traps(dtype: DType) -> None:
    info = np.iinfo(dtype.numpy)
    chosen = {info.min, info.min + 1, -7, -1, 0, 1, 2, 7, info.max}
    values = sorted(v for v in chosen if info.min <= v <= info.max)
    pairs = [(a, b) for a in values for b in values]
    x, y = (np.array(side, dtype.numpy) for side in zip(*pairs, strict=True))
    (quotient,), (rest,) = (op.evaluate(x, y) for op in (o.FloorDivide(), o.Remainder()))
    for (a, b), q, r in zip(pairs, quotient.tolist(), rest.tolist(), strict=True):
        if b == 0:
            assert (q, r) == (0, 0)
        else:
            assert q == int(np.array(a // b).astype(dtype.numpy))
            assert r == a % b


@pytest.mark.parametrize("dtype", INTS, ids=str)
def test_integers_wrap_around(dtype: DType) -> None:
    x = np.array([np.iinfo(dtype.numpy).max, 3], dtype.numpy)
    for op, function in (
        (o.Add(), torch.add),
        (o.Multiply(), torch.mul),
        (o.Subtract(), torch.sub),
    ):
        agree(op, [x, x], function(tensor(x), tensor(x)))
    agree(o.Negate(), [x], torch.neg(tensor(x)))
    agree(o.Abs(), [x], torch.abs(tensor(x)))
    agree(o.Sign(), [x], torch.sign(tensor(x)))
    agree(o.Not(), [x], torch.bitwise_not(tensor(x)))


def test_logic_of_bools_and_bits_of_integers() -> None:
    p, q = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
    for op, function in (
        (o.And(), torch.bitwise_and),
        (o.Or(), torch.bitwise_or),
        (o.Xor(), torch.bitwise_xor),
    ):
        agree(op, [p, q], function(tensor(p), tensor(q)))
        a, b = np.array([12, -3], np.int32), np.array([10, 5], np.int32)
        agree(op, [a, b], function(tensor(a), tensor(b)))
    agree(o.Not(), [p], ~tensor(p))


def test_sign_keeps_nan_and_zeros() -> None:
    (y,) = o.Sign().evaluate(np.array([np.nan, -0.0, 0.0, -3.5, np.inf], np.float32))
    assert np.isnan(y[0])
    assert np.signbit(y[1]) and not np.signbit(y[2])
    assert y[3:].tolist() == [-1, 1]


@pytest.mark.parametrize("source", [*FLOATS, *INTS, DType.BOOL], ids=str)
@pytest.mark.parametrize("target", [*FLOATS, *INTS, DType.BOOL], ids=str)
def test_convert(source: DType, target: DType) -> None:
    x = np.abs(array(np.random.default_rng(5), source, (30,)).astype(source.numpy))
    names = {"bool": "bool", "bf16": "bfloat16", "u8": "uint8"}
    name = names.get(str(target), target.numpy.name)
    agree(o.Convert(target), [x], tensor(x).to(getattr(torch, name)))


def test_convert_rounds_once() -> None:
    x = np.array([1 + 2**-11 + 2**-30])  # through f32 it would be a tie, and round down
    assert o.Convert(DType.F16).evaluate(x)[0][0] == np.float16(1 + 2**-10)
    (same,) = o.Convert(DType.F64).evaluate(x)
    assert same is not x


def test_half_precision_is_computed_in_f32() -> None:
    x = np.array([300.0], np.float16)
    (y,) = o.Hardswish().evaluate(x)  # x * 6 / 6: the product overflows only in f16
    assert y[0] == 300
    b = np.array([3.0], ml_dtypes.bfloat16)
    assert o.Gelu().evaluate(b)[0].dtype == b.dtype


def test_select_keeps_bits() -> None:
    p = np.array([True, False])
    x = np.array([-0.0, 1.0], np.float32)
    y = np.array([2.0, np.nan], np.float32)
    (out,) = o.Select().evaluate(p, x, y)
    assert out.tobytes() == np.array([-0.0, np.nan], np.float32).tobytes()


@given(st.floats(allow_nan=False, width=64))
@quick
def test_erf_is_accurate_to_the_last_bits(x: float) -> None:
    assert float(erf(np.array(x))) == pytest.approx(math.erf(x), rel=1e-15, abs=5e-324)


def test_erf_over_its_whole_range() -> None:
    x = np.linspace(-7, 7, 20011)
    expected = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(erf(x), expected, rtol=1e-15)
    assert np.isnan(erf(np.array(np.nan)))
    assert erf(np.array([-0.0, np.inf, -np.inf])).tolist() == [0.0, 1.0, -1.0]
    assert erf(x.astype(np.float32)).dtype == np.float32


def test_functions_do_not_overflow_where_their_results_are_finite() -> None:
    x = np.array([-1000.0, 1000.0], np.float32)
    assert o.Logistic().evaluate(x)[0].tolist() == [0, 1]
    assert o.Softplus().evaluate(x)[0].tolist() == [0, 1000]
    assert o.Mish().evaluate(x)[0].tolist() == [0, 1000]
    assert o.Silu().evaluate(x)[0].tolist() == [0, 1000]


F32 = TensorType(DType.F32, (2, 3))


@pytest.mark.parametrize(
    ("op", "types", "code", "slot"),
    [
        (o.Exp(), [F32.with_dtype(DType.I64)], "E0206", 0),
        (o.Add(), [F32.with_dtype(DType.BOOL)] * 2, "E0206", 0),
        (o.Add(), [F32, F32.with_dtype(DType.F64)], "E0206", 1),
        (o.Divide(), [F32.with_dtype(DType.I64)] * 2, "E0206", 0),
        (o.And(), [F32, F32], "E0206", 0),
        (o.Select(), [F32, F32, F32], "E0206", 0),
        (o.Select(), [F32.with_dtype(DType.BOOL), F32, F32.with_dtype(DType.F16)], "E0206", 2),
        (o.Compare("is"), [F32, F32], "E0207", None),
        (o.Gelu("erf"), [F32], "E0207", None),
        (o.Hardtanh(2.0, 1.0), [F32], "E0207", None),
        (o.Softplus(0.0), [F32], "E0207", None),
        (o.Add(), [F32, F32.with_shape((3,))], "E0202", 1),
    ],
)
def test_operands_that_do_not_fit(
    op: Op, types: list[TensorType], code: str, slot: int | None
) -> None:
    with pytest.raises(OpError) as caught:
        op.infer(*types)
    assert (caught.value.code, caught.value.operand) == (code, slot)


def test_help_names_the_conversion_or_the_broadcast() -> None:
    with pytest.raises(OpError) as caught:
        o.Add().infer(F32.with_dtype(DType.I64), F32)
    assert caught.value.help == "convert one of them, for example to f32"
    with pytest.raises(OpError) as caught:
        o.Add().infer(F32, F32.with_shape((3,)))
    assert caught.value.message == "add needs operands of one shape and got f32[2, 3] and f32[3]"
    assert caught.value.help == "broadcast [3] to [2, 3]"
