"""Gradients against PyTorch's autograd: kinks, ties, windows, attention, lookups."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from graphc import ops
from graphc.ir.op import Array, Op
from tests.autodiff.torch_gradients import agree
from tests.ops.torch_oracle import quick

SEEDS = st.integers(0, 2**32 - 1)
KINKS = np.array(
    [-6.0, -3.0, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 30.0, -90.0, 90.0]
)


@pytest.mark.parametrize(
    ("op", "function"),
    [
        (ops.Relu(), functional.relu),
        (ops.LeakyRelu(0.2), lambda x: functional.leaky_relu(x, 0.2)),
        (ops.Elu(1.5), lambda x: functional.elu(x, 1.5)),
        (ops.Selu(), functional.selu),
        (ops.Gelu(), functional.gelu),
        (ops.Gelu("tanh"), lambda x: functional.gelu(x, approximate="tanh")),
        (ops.Silu(), functional.silu),
        (ops.Softplus(2.0, 5.0), lambda x: functional.softplus(x, 2.0, 5.0)),
        (ops.Hardswish(), functional.hardswish),
        (ops.Hardsigmoid(), lambda x: functional.relu6(x + 3) / 6),  # theirs divides in f32
        (ops.Hardtanh(-1.0, 2.0), lambda x: functional.hardtanh(x, -1.0, 2.0)),
        (ops.Hardtanh(0.0, 6.0), functional.relu6),
        (ops.Mish(), functional.mish),
        (ops.Abs(), torch.abs),
        (ops.Sign(), torch.sign),
        (ops.Logistic(), torch.sigmoid),
        (ops.Tanh(), torch.tanh),
        (ops.Erf(), torch.erf),
    ],
    ids=lambda v: v.name if isinstance(v, Op) else "",
)
def test_kinks_and_tails(op: Op, function: Callable[..., Any]) -> None:
    agree(op, function, [KINKS])


@pytest.mark.parametrize(
    ("op", "function"),
    [
        (ops.Maximum(), torch.maximum),
        (ops.Minimum(), torch.minimum),
        (ops.Remainder(), torch.remainder),
        (ops.Prelu(), lambda x, s: torch.where(x > 0, x, x * s)),
    ],
    ids=lambda v: v.name if isinstance(v, Op) else "",
)
def test_pairs_with_ties(op: Op, function: Callable[..., Any]) -> None:
    values = [-2.0, -0.5, 0.5, 1.0, 2.0]
    pairs = np.array(list(itertools.product(values, values)))
    agree(op, function, [pairs[:, 0].copy(), pairs[:, 1].copy()])


def test_powers_at_the_origin() -> None:
    bases = np.array([0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 0.5])
    exponents = np.array([0.0, 1.0, 2.0, 3.0, 0.0, 3.0, -1.5])
    agree(ops.Power(), torch.pow, [bases, exponents])


@given(SEEDS)
@quick
def test_reductions_with_ties_and_zeros(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, (3, 4, 2)).astype(np.float64)
    dims = [(0,), (1,), (2,), (0, 2), (0, 1, 2)][rng.integers(5)]
    agree(ops.ReduceMax(dims), lambda t: torch.amax(t, dims), [x])
    agree(ops.ReduceMin(dims), lambda t: torch.amin(t, dims), [x])

    def product(t: torch.Tensor) -> torch.Tensor:
        for d in sorted(dims, reverse=True):
            t = torch.prod(t, d)
        return t

    agree(ops.ReduceProd(dims), product, [x])


def _each(rng: np.random.Generator, low: int, high: int, rank: int) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(low, high + 1, rank))


def _torch_pad(x: torch.Tensor, padding: Sequence[tuple[int, int]], value: float) -> torch.Tensor:
    flat = [p for pair in reversed(padding) for p in pair]
    return functional.pad(x, flat, value=value)


def _last(x: Array, last: bool) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x


def _in_layout(function: Callable[..., torch.Tensor], last: bool) -> Callable[..., torch.Tensor]:
    """A channels-first function on tensors of the layout."""
    if not last:
        return function
    return lambda x, *rest: function(x.movedim(-1, 1), *rest).movedim(1, -1)


@given(SEEDS)
@quick
def test_convolution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank, groups = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    strides, dilation, kernel = (_each(rng, 1, 3, rank) for _ in range(3))
    pads = tuple((int(a), int(b)) for a, b in rng.integers(-1, 3, (rank, 2)))
    spatial = tuple(
        (k - 1) * d + 1 + max(0, -lo) + max(0, -hi) + int(rng.integers(0, 4))
        for k, d, (lo, hi) in zip(kernel, dilation, pads, strict=True)
    )
    inner, outer, last = int(rng.integers(1, 3)), int(rng.integers(1, 3)), bool(seed % 2)
    x = rng.normal(size=(2, groups * inner, *spatial))
    weight = rng.normal(size=(groups * outer, inner, *kernel))
    op = ops.ConvGeneral(strides, pads, (1,) * rank, dilation, groups, last)
    conv = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]

    def function(t: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return conv(_torch_pad(t, pads, 0.0), w, None, strides, 0, dilation, groups)

    agree(op, _in_layout(function, last), [_last(x, last), weight])


@given(SEEDS)
@quick
def test_transposed_convolution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    strides, dilation, kernel = (_each(rng, 1, 3, 2) for _ in range(3))
    extra = tuple(int(rng.integers(0, s)) for s in strides)
    x, weight = rng.normal(size=(2, 3, 4, 3)), rng.normal(size=(3, 2, *kernel))
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    pads = tuple((r, r + e) for r, e in zip(reach, extra, strict=True))
    op = ops.ConvGeneral((1, 1), pads, strides, dilation, 1, False)

    def function(t: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        turned = w.flip(2, 3).transpose(0, 1)
        whole = functional.conv_transpose2d(t, turned, None, strides, 0, 0, 1, dilation)
        return functional.pad(whole, (0, extra[1], 0, extra[0]))

    agree(op, function, [x, np.ascontiguousarray(weight.transpose(1, 0, 2, 3))])


@given(SEEDS)
@quick
def test_pooling_with_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rank, last = int(rng.integers(1, 4)), bool(seed % 2)
    window, strides, dilation = (_each(rng, 1, 3, rank) for _ in range(3))
    pads = tuple(int(rng.integers(0, k // 2 + 1)) for k in window)
    spatial = tuple(
        (k - 1) * d + 1 + int(rng.integers(0, 4)) for k, d in zip(window, dilation, strict=True)
    )
    x = rng.integers(0, 3, (2, 2, *spatial)).astype(np.float64)
    both = tuple((p, p) for p in pads)
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
    agree(
        ops.MaxPool(window, strides, both, dilation, last),
        _in_layout(lambda t: pool(t, window, strides, pads, dilation), last),
        [_last(x, last)],
    )
    mean = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
    counted = bool(rng.integers(2))
    agree(
        ops.AvgPool(window, strides, both, (1,) * rank, last, counted),
        _in_layout(lambda t: mean(t, window, strides, pads, False, counted), last),
        [_last(x, last)],
    )


@given(SEEDS)
@quick
def test_attention(seed: int) -> None:
    rng = np.random.default_rng(seed)
    t, s, d, e = _each(rng, 1, 4, 4)
    q, k, v = (rng.normal(size=(2, 2, *rest)) for rest in ((t, d), (s, d), (s, e)))
    arrays: list[Array] = [q, k, v]
    kind = int(rng.integers(4))
    if kind == 1:
        arrays.append(rng.normal(size=(2, 1, t, s)))
    elif kind == 2:
        arrays.append(rng.random((1, 2, t, s)) < 0.5)  # some queries see nothing
    causal = kind == 3

    def function(*xs: torch.Tensor) -> torch.Tensor:
        q, k, v, *mask = xs
        scores = q @ k.transpose(-1, -2) * 0.5
        if mask and mask[0].dtype == torch.bool:
            scores = scores.masked_fill(~mask[0], -1e30)
            return (scores.softmax(-1) * mask[0].any(-1, True)) @ v
        if causal:
            scores = scores.masked_fill(~torch.ones(t, s).tril().bool(), -1e30)
        return (scores + (mask[0] if mask else 0.0)).softmax(-1) @ v

    agree(ops.Attention(0.5, causal), function, arrays)


@given(SEEDS)
@quick
def test_normalisation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 6, 3, 2))
    w, bias = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    agree(
        ops.LayerNorm(2, 0.01),
        lambda t, w, b: functional.layer_norm(t, (3, 2), w, b, 0.01),
        [x, w, bias],
    )
    agree(ops.RmsNorm(2, 0.01), lambda t, w: functional.rms_norm(t, (3, 2), w, 0.01), [x, w])
    w, bias, mean, var = (rng.normal(size=6) for _ in range(4))
    agree(
        ops.GroupNorm(3, 0.01),
        lambda t, w, b: functional.group_norm(t, 3, w, b, 0.01),
        [x, w, bias],
    )

    def batch_norm(t: torch.Tensor, *vectors: torch.Tensor) -> torch.Tensor:
        mean, var, w, b = (v.view(1, 6, 1, 1) for v in vectors)
        return (t - mean) / (var + 0.01).sqrt() * w + b

    agree(ops.BatchNorm(1, 0.01), batch_norm, [x, mean, np.abs(var), w, bias])


@given(SEEDS)
@quick
def test_gather_and_scatter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, axis = rng.normal(size=(3, 4, 2)), int(rng.integers(3))
    shape = list(x.shape)
    shape[axis] = int(rng.integers(1, 5))
    at = rng.integers(0, x.shape[axis], shape)
    agree(ops.TakeAlongAxis(axis), lambda t, i: torch.gather(t, axis, i), [x, at])
    rows = rng.integers(0, x.shape[axis], shape[axis])
    updates = rng.normal(size=shape)
    agree(ops.IndexAdd(axis), lambda t, i, u: torch.index_add(t, axis, i, u), [x, rows, updates])
    picked = rng.integers(0, 3, (2, 2))
    agree(ops.Take(0), lambda t, i: t[i], [x, picked])


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(6, 4), (3, 7), (1, 2), (5, 9)])
def test_resize(align: bool, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 4))
    agree(
        ops.Resize(size, "bilinear", align),
        lambda t: functional.interpolate(t, size, mode="bilinear", align_corners=align),
        [x],
    )
    if not align:
        agree(ops.Resize(size), lambda t: functional.interpolate(t, size), [x])
