"""Ops whose positions are data: against PyTorch, and what is out of range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from graphc import ops as o
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.op import Op, OpError
from graphc.ir.types import TensorType
from tests.ops.samples import array
from tests.ops.scalar_emitter import computed
from tests.ops.torch_oracle import agree, tensor

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_against_pytorch() -> None:
    at = np.array([[2, 0], [1, 1], [0, 2]])
    agree(o.Take(1), [X, at[:, 0]], tensor(X).index_select(1, tensor(at[:, 0])))
    table = X.reshape(6, 4)
    embedded = torch.nn.functional.embedding(tensor(at), tensor(table))
    agree(o.Take(0), [table, at], embedded)
    along = np.array([[[1, 3, 0]] * 3] * 2)
    agree(o.TakeAlongAxis(2), [X, along], tensor(X).gather(2, tensor(along)))
    updates = np.ones((2, 4, 4), np.float32)
    rows = np.array([1, 1, 0, 1], np.int32)
    agree(o.IndexAdd(1), [X, rows, updates], tensor(X).index_add(1, tensor(rows), tensor(updates)))


@pytest.mark.parametrize("descending", [False, True])
def test_sorting_is_stable_and_nan_counts_as_the_largest(descending: bool) -> None:
    x = array(np.random.default_rng(6), DType.F32, (4, 30), special=True)
    expected = torch.argsort(tensor(x), dim=1, descending=descending, stable=True)
    agree(o.ArgSort(1, descending), [x], expected)


def test_dynamic_slices() -> None:
    starts = [np.asarray(v) for v in (1, 0, 2)]
    agree(o.DynamicSlice((1, 2, 2)), [X, *starts], X[1:2, 0:2, 2:4])
    update = np.full((1, 2, 2), -1, np.float32)
    expected = X.copy()
    expected[1:2, 0:2, 2:4] = -1
    agree(o.DynamicUpdateSlice(), [X, update, *starts], expected)


@pytest.mark.parametrize("bad", [-1, 3])
def test_an_index_out_of_range_is_a_fault(bad: int) -> None:
    one = np.array([0, bad])
    along = np.full((2, 1, 4), bad)
    start = [np.asarray(v) for v in (0, bad, 0)]
    box, ones = np.zeros((1, 1, 1), np.float32), np.ones((2, 2, 4), np.float32)
    cases: list[tuple[Op, list[Any]]] = [
        (o.Take(1), [X, one]),
        (o.TakeAlongAxis(1), [X, along]),
        (o.DynamicSlice((1, 1, 1)), [X, *start]),
        (o.DynamicUpdateSlice(), [X, box, *start]),
        (o.IndexAdd(1), [X, one, ones]),
    ]
    for op, operands in cases:
        with pytest.raises(IndexError, match=rf"{op.name}.* {bad} is not in 0\.\.2"):
            op.evaluate(*operands)
        with pytest.raises(IndexError):
            computed(op, operands)


def test_shapes_of_named_dims() -> None:
    n, t, v = (Dim.symbol(s) for s in "NTV")
    (y,) = o.Take(0).infer(TensorType(DType.F32, (v, 64)), TensorType(DType.I64, (n, t)))
    assert str(y) == "f32[N, T, 64]"


I64 = TensorType(DType.I64, (2,))
F32 = TensorType(DType.F32, (2, 3))


@pytest.mark.parametrize(
    ("op", "types", "code", "slot"),
    [
        (o.Take(2), [F32, I64], "E0211", 0),
        (o.Take(0), [F32, F32], "E0206", 1),
        (o.TakeAlongAxis(0), [F32, I64], "E0205", 1),
        (o.TakeAlongAxis(0), [F32, I64.with_shape((2, 4))], "E0202", 1),
        (o.DynamicSlice((1, 1)), [F32, I64.with_shape(())], "E0207", None),
        (o.DynamicSlice((1, 1)), [F32, I64, I64], "E0205", 1),
        (o.DynamicSlice((3, 1)), [F32, *[I64.with_shape(())] * 2], "E0213", 0),
        (o.DynamicSlice((1,)), [F32, *[I64.with_shape(())] * 2], "E0207", None),
        (o.DynamicSlice(()), [], "E0201", None),
        (o.DynamicUpdateSlice(), [F32], "E0201", None),
        (o.DynamicUpdateSlice(), [F32, F32.with_dtype(DType.F16)], "E0206", 1),
        (o.DynamicUpdateSlice(), [F32, I64.with_dtype(DType.F32)], "E0205", 1),
        (o.IndexAdd(0), [F32, I64, F32.with_shape((2, 4))], "E0202", 2),
        (o.IndexAdd(0), [F32, I64, F32.with_dtype(DType.F64)], "E0206", 2),
        (o.IndexAdd(0), [F32, F32, F32], "E0206", 1),
        (o.IndexAdd(0), [F32, I64.with_shape(()), F32], "E0205", 1),
        (o.ArgSort(2), [F32], "E0211", 0),
        (o.ArgSort(0), [F32.with_dtype(DType.BOOL)], "E0206", 0),
    ],
)
def test_operands_that_do_not_fit(
    op: Op, types: list[TensorType], code: str, slot: int | None
) -> None:
    with pytest.raises(OpError) as caught:
        op.infer(*types)
    assert (caught.value.code, caught.value.operand) == (code, slot)
