"""The gradient of max pooling against PyTorch and its own decomposition: ties, infinities, NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphc import ops as o
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ir.op import Array, OpError
from graphc.ir.types import TensorType
from graphc.reference import interpret
from tests.ops.torch_oracle import agree, quick

F = torch.nn.functional
N, H = Dim.symbol("N"), Dim.symbol("H")


def decomposed(op: o.MaxPoolGradient, *arrays: Array) -> Array:
    """The op's decomposition, interpreted."""
    b = GraphBuilder("g")
    inputs = [b(o.Input(str(i), DType.from_numpy(x.dtype), x.shape)) for i, x in enumerate(arrays)]
    graph = b.build([("y", op.decompose(b, *inputs)[0])])
    return interpret(graph, {str(i): x for i, x in enumerate(arrays)}, {})["y"]


@given(st.integers(0, 2**32 - 1))
@quick
def test_the_first_maximum_gets_the_cotangent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank, last, dtype = int(rng.integers(1, 4)), bool(seed % 2), rng.choice(["f4", "f8"])
    window, strides, dilation = (tuple(int(n) for n in rng.integers(1, 4, rank)) for _ in range(3))
    pads = tuple(int(rng.integers(0, k // 2 + 1)) for k in window)
    spatial = [
        (k - 1) * d + 1 + int(rng.integers(0, 4)) for k, d in zip(window, dilation, strict=True)
    ]
    x = rng.integers(0, 3, (2, 3, *spatial)).astype(dtype)
    x[rng.random(x.shape) < 0.3] = -np.inf
    x[rng.random(x.shape) < 0.05] = np.inf
    source = torch.tensor(x, requires_grad=True)
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1]
    y = pool(source, window, strides, pads, dilation)
    cotangent = rng.integers(-9, 9, y.shape).astype(dtype)
    y.backward(torch.tensor(cotangent))
    arrays = [np.ascontiguousarray(np.moveaxis(a, 1, -1)) if last else a for a in (x, cotangent)]
    padding = tuple((p, p) for p in pads)
    op = o.MaxPoolGradient(window, strides, padding, dilation, last)
    expected = source.grad.numpy()
    expected = np.moveaxis(expected, 1, -1) if last else expected
    agree(op, arrays, expected)
    np.testing.assert_array_equal(decomposed(op, *arrays), expected)


def test_a_window_with_nan_gives_nothing() -> None:
    x = np.array([[[1, 2, np.nan, 3, 1, 5]]], np.float32)
    given = np.array([[[1, 2, 4, 8, 16]]], np.float32)
    op = o.MaxPoolGradient((2,), (1,), ((0, 0),), (1,))
    expected = [[[0, 1, 0, 8, 0, 16]]]
    assert op.evaluate(x, given)[0].tolist() == expected
    assert decomposed(op, x, given).tolist() == expected


def test_cropping_and_a_window_of_padding_only() -> None:
    x = np.array([[[9, 1, 2, 7]]], np.float32)
    cropped = o.MaxPoolGradient((1,), (1,), ((-1, -1),), (1,))
    padded = o.MaxPoolGradient((1,), (1,), ((1, 1),), (1,))
    around = np.arange(1, 7, dtype=np.float32).reshape(1, 1, 6)
    for op, cotangent, expected in (
        (cropped, around[..., :2], [[[0, 1, 2, 0]]]),
        (padded, around, [[[2, 3, 4, 5]]]),
    ):
        assert op.evaluate(x, cotangent)[0].tolist() == expected
        assert decomposed(op, x, cotangent).tolist() == expected


def t(*shape: object, dtype: DType = DType.F32) -> TensorType:
    return TensorType(dtype, shape)  # type: ignore[arg-type]


def test_named_dims_and_cost() -> None:
    op = o.MaxPoolGradient((2, 2), (2, 2), ((0, 0),) * 2, (1, 1), True)
    x, given = t(N, 2 * H, 8, 3), t(N, H, 4, 3)
    assert op.infer(x, given) == (x,)
    assert op.flops([x, given], [x]) == N * H * 4 * 3 * 4 * 2
    b = GraphBuilder("g")
    values = [b(o.Input(name, v.dtype, v.shape)) for name, v in (("x", x), ("dy", given))]
    assert b.type_of(op.decompose(b, *values)[0]) == x


POOL = o.MaxPoolGradient((3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1))


@pytest.mark.parametrize(
    ("types", "code", "slot", "words"),
    [
        ([t(1, 3, 8, 8), t(1, 3, 8, 8)], "E0203", 1, "gives f32[1, 3, 6, 6]"),
        ([t(3, 8), t(3, 6)], "E0205", 0, "f32[3, 8]"),
        ([t(1, 3, 8, 8), t(1, 3, 6, 6, dtype=DType.F64)], "E0206", 1, "f64[1, 3, 6, 6]"),
        ([t(1, 3, 8, 8, dtype=DType.I32)] * 2, "E0206", 0, "i32[1, 3, 8, 8]"),
        ([t(1, 3, 8), t(1, 3, 6)], "E0207", None, "window"),
        ([t(1, 3, 2, 8), t(1, 3, 1, 6)], "E0208", 0, "f32[1, 3, 2, 8]"),
    ],
)
def test_operands_that_do_not_fit(
    types: list[TensorType], code: str, slot: int | None, words: str
) -> None:
    with pytest.raises(OpError) as caught:
        POOL.infer(*types)
    assert (caught.value.code, caught.value.operand) == (code, slot)
    assert words in caught.value.message
