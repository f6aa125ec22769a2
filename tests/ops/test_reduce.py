"""Reductions against PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from graphc import ops as o
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.op import Op, OpError
from graphc.ir.types import TensorType
from tests.ops.samples import FLOATS, array
from tests.ops.torch_oracle import agree, tensor


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_float_reductions(dtype: DType, axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x = array(rng, dtype, (3, 4, 2))
    agree(o.ReduceSum(axes), [x], tensor(x).sum(axes), scale=4)
    special = array(rng, dtype, (3, 4, 2), special=True)
    agree(o.ReduceMax(axes), [special], tensor(special).amax(axes))
    agree(o.ReduceMin(axes), [special], tensor(special).amin(axes))
    if len(axes) == 1:
        agree(o.ReduceProd(axes), [x], tensor(x).prod(axes[0]), scale=4)


def test_bool_and_integer_reductions() -> None:
    p = np.array([[True, False], [True, True], [False, False]])
    agree(o.ReduceAny((1,)), [p], tensor(p).any(1))
    agree(o.ReduceAll((1,)), [p], tensor(p).all(1))
    x = np.array([100, 100, 100], np.int8)
    assert o.ReduceSum((0,)).evaluate(x)[0] == np.int64(300).astype(np.int8)


def test_reductions_of_nothing_give_the_identity() -> None:
    x = np.zeros((2, 0), np.float32)
    identities: list[tuple[Op, float]] = [
        (o.ReduceSum((1,)), 0),
        (o.ReduceProd((1,)), 1),
        (o.ReduceMax((1,)), -math.inf),
        (o.ReduceMin((1,)), math.inf),
    ]
    for op, value in identities:
        assert op.evaluate(x)[0].tolist() == [value] * 2
    assert o.ReduceMax((0,)).evaluate(np.zeros(0, np.int8))[0] == -128
    assert o.ReduceAny((0,)).evaluate(np.zeros(0, bool))[0].item() is False


def test_long_sums_keep_their_digits() -> None:
    x = np.full(1 << 20, 0.1, np.float32)
    assert o.ReduceSum((0,)).evaluate(x)[0] == np.float32(np.float32(0.1) * 2.0**20)
    h = np.ones(4096, np.float16)
    assert o.ReduceSum((0,)).evaluate(h)[0] == 4096


@pytest.mark.parametrize(("op", "function"), [(o.ArgMax, torch.argmax), (o.ArgMin, torch.argmin)])
def test_positions(op: type[Any], function: Callable[..., torch.Tensor]) -> None:
    x = array(np.random.default_rng(2), DType.F32, (5, 6))
    agree(op(1), [x], function(tensor(x), 1))
    agree(op(0), [x], function(tensor(x), 0))


def test_the_first_of_ties_wins_and_nan_over_all() -> None:
    nan = math.nan
    x = np.array([[1, 3, 3, 0], [nan, 9, nan, 1], [2, nan, math.inf, nan]], np.float32)
    assert o.ArgMax(1).evaluate(x)[0].tolist() == [1, 0, 1]
    assert o.ArgMin(1).evaluate(x)[0].tolist() == [3, 0, 1]


def test_refusals() -> None:
    x = TensorType(DType.F32, (Dim.symbol("N"), 0))
    cases: list[tuple[Op, TensorType, str]] = [
        (o.ReduceSum((2,)), x, "E0211"),
        (o.ReduceSum((1, 1)), x, "E0211"),
        (o.ReduceSum((0,)), x.with_dtype(DType.BOOL), "E0206"),
        (o.ReduceAny((0,)), x, "E0206"),
        (o.ArgMax(1), x, "E0207"),
        (o.ArgMax(3), x, "E0211"),
        (o.ArgMin(0), x.with_dtype(DType.BOOL), "E0206"),
    ]
    for op, type, code in cases:
        with pytest.raises(OpError) as caught:
            op.infer(type)
        assert caught.value.code == code
