"""Ops that move elements: meaning against NumPy and PyTorch, shape rules, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphc import ops as o
from graphc.ir.dim import Dim
from graphc.ir.dtype import DType
from graphc.ir.op import Op, OpError
from graphc.ir.types import TensorType
from graphc.ops.reshape import segments
from graphc.ops.shape import permute_broadcast
from tests.ops.samples import SAMPLES
from tests.ops.torch_oracle import agree, quick, tensor

N, T, H = (Dim.symbol(n) for n in "NTH")


def t(*shape: Any, dtype: DType = DType.F32) -> TensorType:
    return TensorType(dtype, shape)


def test_shaping_against_pytorch() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    agree(o.Reshape((4, 6)), [x], tensor(x).reshape(4, 6))
    agree(o.Transpose((2, 0, 1)), [x], tensor(x).permute(2, 0, 1).contiguous())
    agree(o.Reverse((0, 2)), [x], tensor(x).flip(0, 2))
    agree(o.Slice((0, 1, 0), (2, 3, 4), (1, 2, 3)), [x], tensor(x)[:, 1:3:2, ::3].contiguous())
    agree(o.Concatenate(1), [x, x], torch.cat([tensor(x)] * 2, 1))
    agree(o.BroadcastInDim((5, 2, 3, 4), (1, 2, 3)), [x], tensor(x).expand(5, 2, 3, 4).contiguous())


@given(st.integers(0, 2**32 - 1))
@quick
def test_pad_against_pytorch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(3, 6, 2))
    x = rng.normal(size=shape).astype(np.float32)
    (top, bottom, left, right) = (int(n) for n in rng.integers(-1, 3, 4))
    expected = torch.nn.functional.pad(tensor(x), (left, right, top, bottom), value=2.5)
    agree(o.Pad((top, left), (bottom, right), (0, 0), 2.5), [x], expected)


def test_interior_padding_and_cropping() -> None:
    x = np.array([1, 2, 3])
    assert o.Pad((1,), (-1,), (2,), 9).evaluate(x)[0].tolist() == [9, 1, 9, 9, 2, 9, 9]
    assert o.Pad((-2,), (0,), (0,), 9).evaluate(x)[0].tolist() == [3]
    assert o.Pad((2,), (0,), (3,), 9).evaluate(x[:0])[0].tolist() == [9, 9]


def test_reshape_of_named_dims_compares_polynomials() -> None:
    (y,) = o.Reshape((N * T, 12, 64)).infer(t(N, T, 768))
    assert str(y) == "f32[N*T, 12, 64]"
    with pytest.raises(OpError, match=r"\[N, T, 768\].*\[N, 768\]") as caught:
        o.Reshape((N, 768)).infer(t(N, T, 768))
    assert caught.value.code == "E0210"
    assert caught.value.help == "[N, 768*T] has as many elements as [N, T, 768]"
    with pytest.raises(OpError) as caught:
        o.Reshape((N, 400)).infer(t(N, 16, 4, 4))
    assert caught.value.help == "[N, 256] has as many elements as [N, 16, 4, 4]"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((N, 16, 5, 5), (N, 400), [((0, 1), (0, 1)), ((1, 4), (1, 2))]),
        ((N, T, 768), (N, T, 12, 64), [((0, 1), (0, 1)), ((1, 2), (1, 2)), ((2, 3), (2, 4))]),
        ((N * T, 3), (N, T, 3), [((0, 1), (0, 2)), ((1, 2), (2, 3))]),
        ((6,), (2, 3), [((0, 1), (0, 2))]),
        ((N,), (N, 1), [((0, 1), (0, 1)), ((1, 1), (1, 2))]),
    ],
)
def test_reshape_indices_stay_in_the_shortest_runs(old: Any, new: Any, expected: Any) -> None:
    found = [((a.start, a.stop), (b.start, b.stop)) for a, b in segments(old, new)]
    assert found == expected


def test_slices_of_named_dims() -> None:
    (y,) = o.Slice((0, 1), (N, T), (1, 2)).infer(t(N, T))
    assert str(y) == "f32[N, T // 2]"
    with pytest.raises(IndexError, match="leaves a dimension of 2"):
        o.Slice((0,), (3,), (1,)).evaluate(np.zeros(2))


def test_concatenation_adds_named_dims() -> None:
    (y,) = o.Concatenate(1).infer(t(N, T), t(N, 3), t(N, T))
    assert str(y) == "f32[N, 2*T + 3]"


def test_a_transpose_of_a_broadcast_is_one_broadcast() -> None:
    rng = np.random.default_rng(0)
    merged = 0
    for seed in range(60):
        op, (x,) = SAMPLES["broadcast_in_dim"](np.random.default_rng(seed))
        assert isinstance(op, o.BroadcastInDim)
        p = tuple(int(i) for i in rng.permutation(len(op.shape)))
        one = permute_broadcast(op, p)
        if one is not None:
            merged += 1
            np.testing.assert_array_equal(
                one.evaluate(x)[0].astype(float), op.evaluate(x)[0].transpose(p).astype(float)
            )
    assert merged > 20
    assert permute_broadcast(o.BroadcastInDim((2, 3), (0, 1)), (1, 0)) is None


@pytest.mark.parametrize(
    ("op", "types", "code", "words"),
    [
        (o.BroadcastInDim((2, 3), (1,)), [t(4)], "E0202", "[4] does not broadcast to [2, 3]"),
        (o.BroadcastInDim((2, 3), (1, 0)), [t(3, 2)], "E0211", "must increase"),
        (o.BroadcastInDim((2, 3), (2,)), [t(3)], "E0211", "axis 2 is out of range"),
        (o.BroadcastInDim((2, 3), (0, 1)), [t(3)], "E0207", "2 entries"),
        (o.Reshape((-1, 2)), [t(-2)], "E0207", "negative"),
        (o.Transpose((0, 0)), [t(2, 3)], "E0211", "[0, 0] is no permutation"),
        (o.Reverse((1,)), [t(3)], "E0211", "axis 1"),
        (o.Reverse((0, 0)), [t(3)], "E0211", "repeat"),
        (o.Slice((1,), (4,), (1,)), [t(3)], "E0213", "slice 1:4 of axis 0 leaves [3]"),
        (o.Slice((2,), (1,), (1,)), [t(3)], "E0213", "slice 2:1"),
        (o.Slice((0,), (3,), (0,)), [t(3)], "E0207", "strides"),
        (o.Slice((0,), (3,), (1, 1)), [t(3)], "E0207", "strides"),
        (o.Pad((-2,), (-2,), (0,)), [t(3)], "E0213", "crop more"),
        (o.Pad((0,), (0,), (-1,)), [t(3)], "E0207", "interior"),
        (o.Concatenate(0), [], "E0201", "at least one"),
        (o.Concatenate(0), [t(2, 3), t(2, 4)], "E0212", "f32[2, 3] and f32[2, 4]"),
        (o.Concatenate(0), [t(2, 3), t(2)], "E0205", "numbers of dimensions"),
        (o.Concatenate(0), [t(2), t(2, dtype=DType.F16)], "E0206", "element types"),
        (o.Concatenate(2), [t(2, 3)], "E0211", "axis 2"),
    ],
)
def test_operands_that_do_not_fit(op: Op, types: list[TensorType], code: str, words: str) -> None:
    with pytest.raises(OpError) as caught:
        op.infer(*types)
    assert caught.value.code == code
    assert words in caught.value.message
