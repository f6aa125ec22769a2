"""PyTorch's autograd as the independent truth for the gradients of one op."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from graphc.autodiff import gradients
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder
from graphc.ir.op import Array, Op
from graphc.ops import Constant, Input, arith
from graphc.reference import interpret

Function = Callable[..., torch.Tensor]


def ours(op: Op, arrays: Sequence[Array], weight: Array) -> list[Array]:
    """Gradients of `sum(op(arrays) * weight)` by the float operands."""
    b = GraphBuilder("one")
    values = [b(Input(f"a{i}", DType.from_numpy(x.dtype), x.shape)) for i, x in enumerate(arrays)]
    xs = [v for v in values if b.type_of(v).dtype.is_float]
    y = arith.sum(b, arith.multiply(b, b(op, *values), b(Constant.of(weight))))
    found = gradients(b, y, xs)
    graph = b.build([(str(i), g) for i, g in enumerate(found)])
    return list(interpret(graph, {f"a{i}": x for i, x in enumerate(arrays)}, {}).values())


def theirs(function: Function, arrays: Sequence[Array], weight: Array) -> list[Array]:
    """The same by PyTorch; zeros for what it does not use."""
    tensors = [torch.from_numpy(np.array(x)) for x in arrays]
    xs = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    y = (function(*tensors) * torch.from_numpy(weight)).sum()
    found = torch.autograd.grad(y, xs, allow_unused=True)
    return [
        np.zeros(tuple(x.shape)) if g is None else g.numpy() for x, g in zip(xs, found, strict=True)
    ]


def agree(op: Op, function: Function, arrays: Sequence[Array], seed: int = 0) -> None:
    """Both give the same gradients, within 1e-9 of the largest element; arrays are f64."""
    (y,) = op.evaluate(*arrays)
    weight = np.asarray(np.random.default_rng(seed).normal(size=y.shape))
    for mine, want in zip(ours(op, arrays, weight), theirs(function, arrays, weight), strict=True):
        assert mine.shape == want.shape
        np.testing.assert_allclose(
            mine, want, rtol=1e-9, atol=1e-9 * (1 + np.abs(want).max(initial=0))
        )
