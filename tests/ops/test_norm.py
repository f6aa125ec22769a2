"""Softmax, normalisations and attention against PyTorch."""

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
from graphc.ir.graph import GraphBuilder
from graphc.ir.op import Array, Op, OpError
from graphc.ir.types import TensorType
from graphc.reference import interpret
from tests.ops.torch_oracle import agree, quick, tensor

F = torch.nn.functional
N, T = Dim.symbol("N"), Dim.symbol("T")
sizes = st.integers(1, 5)
seeds = st.integers(0, 2**32 - 1)


def decomposed(op: Op, *arrays: Array) -> Array:
    """The op's decomposition, interpreted."""
    b = GraphBuilder("g")
    types = [TensorType(DType.from_numpy(x.dtype), x.shape) for x in arrays]
    inputs = [b(o.Input(str(i), t.dtype, t.shape)) for i, t in enumerate(types)]
    parts = op.decompose(b, *inputs)
    assert parts
    graph = b.build([("y", parts[0])])
    return interpret(graph, {str(i): x for i, x in enumerate(arrays)}, {})["y"]


def normal(seed: int, *shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=s).astype(np.float32) for s in shapes]


@given(seeds, st.lists(sizes, min_size=1, max_size=4), st.data())
@quick
def test_softmax(seed: int, shape: list[int], data: st.DataObject) -> None:
    (x,) = normal(seed, tuple(shape))
    axis = data.draw(st.integers(0, len(shape) - 1))
    agree(o.Softmax(axis), [x * 30], F.softmax(tensor(x * 30), axis))
    agree(o.LogSoftmax(axis), [x * 30], F.log_softmax(tensor(x * 30), axis))


@pytest.mark.parametrize("op", [o.Softmax(1), o.LogSoftmax(1)])
def test_softmax_of_odd_rows(op: Op) -> None:
    rows = [[np.inf, 1], [-np.inf, 0], [-np.inf, -np.inf], [np.nan, 1], [3e38, -3e38]]
    x = np.array(rows, np.float32)
    function = F.softmax if isinstance(op, o.Softmax) else F.log_softmax
    agree(op, [x], function(tensor(x), 1))
    np.testing.assert_allclose(decomposed(op, x), op.evaluate(x)[0])


@given(seeds, st.lists(sizes, min_size=1, max_size=4), st.data())
@quick
def test_layer_norm_and_rms_norm(seed: int, shape: list[int], data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, len(shape)))
    inner = tuple(shape[len(shape) - dims :])
    x, w, bias = normal(seed, tuple(shape), inner, inner)
    tx, tw, tb = map(tensor, (x, w, bias))
    agree(o.LayerNorm(dims, 1e-2), [x, w, bias], F.layer_norm(tx, inner, tw, tb, 1e-2), scale=3)
    agree(o.LayerNorm(dims, 1e-2), [x], F.layer_norm(tx, inner, eps=1e-2), scale=3)
    agree(o.RmsNorm(dims, 1e-2), [x, w], F.rms_norm(tx, inner, tw, 1e-2), scale=3)
    agree(o.RmsNorm(dims, 1e-2), [x], F.rms_norm(tx, inner, eps=1e-2), scale=3)


@given(seeds, sizes, st.integers(1, 3), st.lists(sizes, max_size=2), st.integers(1, 3))
@quick
def test_batch_and_group_norm(
    seed: int, n: int, groups: int, spatial: list[int], per_group: int
) -> None:
    c = groups * per_group
    x, mean, var, w, bias = normal(seed, (n, c, *spatial), *[(c,)] * 4)
    var = np.abs(var) + np.float32(0.1)
    tx, tm, tv, tw, tb = map(tensor, (x, mean, var, w, bias))
    op = o.BatchNorm(1, 1e-3)
    agree(op, [x, mean, var, w, bias], F.batch_norm(tx, tm, tv, tw, tb, eps=1e-3), scale=3)
    agree(op, [x, mean, var], F.batch_norm(tx, tm, tv, eps=1e-3), scale=3)
    expected = torch.group_norm(tx, groups, tw, tb, 1e-2)
    agree(o.GroupNorm(groups, 1e-2), [x, w, bias], expected, scale=3)
    (y,) = o.GroupNorm(groups, 1e-2, True).evaluate(np.moveaxis(x, 1, -1), w, bias)
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), expected.numpy(), rtol=3e-5, atol=3e-5)


def test_variance_takes_two_passes() -> None:
    x = np.array([[10000.0, 10001.0, 10002.0]], np.float32)
    expected = np.array([[-1.2247449, 0, 1.2247449]], np.float32)
    np.testing.assert_allclose(decomposed(o.LayerNorm(1, 0.0), x), expected, rtol=1e-6)


def test_half_precision_norms_are_computed_in_f32() -> None:
    x = np.array([[200.0, 300.0, 400.0]], np.float16)  # squares overflow f16
    for op in (o.LayerNorm(1, 1e-5), o.RmsNorm(1, 1e-5), o.Softmax(1)):
        y = decomposed(op, x)
        assert y.dtype == np.float16
        np.testing.assert_allclose(y, op.evaluate(x)[0], rtol=1e-3)


@given(seeds, st.lists(st.integers(1, 4), min_size=6, max_size=6), st.data())
@quick
def test_attention(seed: int, dims: list[int], data: st.DataObject) -> None:
    b, h, t, s, d, e = dims
    q, k, v, bias = normal(seed, (b, h, t, d), (b, h, s, d), (b, h, s, e), (b, h, t, s))
    tq, tk, tv = map(tensor, (q, k, v))
    mask = data.draw(st.sampled_from(["none", "causal", "bool", "float", "row"]))
    arrays, attributes = [q, k, v], {}
    if mask == "bool":
        arrays.append(bias > -1)
    elif mask == "float":
        arrays.append(bias)
    elif mask == "row":
        arrays.append(bias[:, :1, :1] > -1)
    if len(arrays) > 3:
        attributes["attn_mask"] = tensor(np.broadcast_to(arrays[3], bias.shape))
    expected = F.scaled_dot_product_attention(
        tq, tk, tv, is_causal=mask == "causal", scale=0.7, **attributes
    )
    op = o.Attention(0.7, mask == "causal")
    agree(op, arrays, expected)
    np.testing.assert_allclose(decomposed(op, *arrays), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_a_query_that_sees_nothing_gives_zeros() -> None:
    q, k, v = normal(1, (1, 1, 2, 3), (1, 1, 2, 3), (1, 1, 2, 3))
    mask = np.array([[[[False, False], [True, False]]]])
    (y,) = o.Attention(1.0).evaluate(q, k, v, mask)
    np.testing.assert_allclose(y[0, 0], [[0, 0, 0], v[0, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(decomposed(o.Attention(1.0), q, k, v, mask), y, rtol=1e-6)


def t(*shape: Any, dtype: DType = DType.F32) -> TensorType:
    return TensorType(dtype, shape)


def test_named_dims_decompose() -> None:
    """Every composite falls apart for named dims, also where a mean's divisor is one."""
    cases: list[tuple[Op, list[TensorType]]] = [
        (o.Softmax(1), [t(N, T)]),
        (o.LayerNorm(2, 1e-5), [t(N, T, 8), t(T, 8), t(T, 8)]),
        (o.GroupNorm(2, 1e-5), [t(N, 4, T, T), t(4), t(4)]),
        (o.GroupNorm(2, 1e-5, True), [t(N, T, T, 4)]),
        (o.BatchNorm(1, 1e-5), [t(N, 3, T), t(3), t(3)]),
        (o.Attention(1.0, True), [t(N, 2, T, 8)] * 3),
        (o.AttentionGradient(1.0, True), [t(N, 2, T, 8)] * 5),
    ]
    for op, types in cases:
        b = GraphBuilder("g")
        values = [b(o.Input(str(i), x.dtype, x.shape)) for i, x in enumerate(types)]
        found = op.decompose(b, *values) or ()
        assert tuple(map(b.type_of, found)) == op.infer(*types)
        assert not isinstance(op.flops(types, op.infer(*types)), int)


def test_a_mean_over_a_named_dim_is_right() -> None:
    b = GraphBuilder("g")
    x = b(o.Input("x", DType.F32, (N, T)))
    (y,) = o.LayerNorm(1, 1e-5).decompose(b, x)
    data = normal(2, (3, 7))[0]
    found = interpret(b.build([("y", y)]), {"x": data}, {})["y"]
    np.testing.assert_allclose(
        found, F.layer_norm(tensor(data), (7,)).numpy(), rtol=1e-5, atol=1e-6
    )


def test_flops_are_those_of_the_parts() -> None:
    # softmax: maximum, difference, exp, sum, quotient
    assert o.Softmax(1).flops([t(N, 10)], [t(N, 10)]) == 50 * N
    q = t(1, 2, 8, 4)
    products = 2 * (2 * 2 * 8 * 8 * 4)
    assert o.Attention(1.0).flops([q, q, q], [q]) == products + 2 * 8 * 8 * (5 + 1)


Q = t(N, 2, T, 8)


@pytest.mark.parametrize(
    ("op", "types", "code", "slot"),
    [
        (o.Softmax(2), [t(2, 3)], "E0211", None),
        (o.Softmax(0), [t(2, dtype=DType.I64)], "E0206", 0),
        (o.LayerNorm(1, 1e-5), [t(2, 3), t(2)], "E0214", 1),
        (o.LayerNorm(1, 1e-5), [t(2, 3), t(3), t(3, dtype=DType.F16)], "E0206", 2),
        (o.LayerNorm(3, 1e-5), [t(2, 3)], "E0207", 0),
        (o.RmsNorm(1, 1e-5), [t(2, 3), t(3), t(3)], "E0201", None),
        (o.BatchNorm(1, 1e-5), [t(2, 3), t(3)], "E0201", None),
        (o.BatchNorm(1, 1e-5), [t(2, 3), t(3), t(4)], "E0214", 2),
        (o.BatchNorm(2, 1e-5), [t(2, 3), t(3), t(3)], "E0211", 0),
        (o.GroupNorm(2, 1e-5), [t(2, 3, 4)], "E0209", 0),
        (o.GroupNorm(1, 1e-5), [t(2)], "E0205", 0),
        (o.GroupNorm(0, 1e-5), [t(2, 3)], "E0207", None),
        (o.Attention(1.0), [Q, Q], "E0201", None),
        (o.Attention(1.0), [Q, t(N, T, 8), Q], "E0205", 1),
        (o.Attention(1.0), [Q, t(N, 3, T, 8), Q], "E0202", 1),
        (o.Attention(1.0), [Q, t(N, 2, T, 9), Q], "E0203", 1),
        (o.Attention(1.0), [Q, Q, t(N, 2, 5, 8)], "E0203", 2),
        (o.Attention(1.0), [Q, Q, Q.with_dtype(DType.F16)], "E0206", 2),
        (o.Attention(1.0), [Q, Q, Q, t(N, 2, T, 5)], "E0202", 3),
        (o.Attention(1.0), [Q, Q, Q, t(N, 1, 1, T, dtype=DType.I64)], "E0206", 3),
        (o.Attention(1.0), [Q, Q, Q, t(T, T)], "E0205", 3),
        (o.AttentionGradient(1.0), [Q] * 4, "E0201", None),
        (o.AttentionGradient(1.0), [Q, Q, Q, Q, t(N, 2, T, 9)], "E0203", 4),
    ],
)
def test_operands_that_do_not_fit(
    op: Op, types: list[TensorType], code: str, slot: int | None
) -> None:
    with pytest.raises(OpError) as caught:
        op.infer(*types)
    assert (caught.value.code, caught.value.operand) == (code, slot)
