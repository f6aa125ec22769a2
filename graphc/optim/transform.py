"""What happens to gradients before an update and to weights after it: clipping, accumulation, averaging.

Functions on a builder and values. All but the norm is elementwise, so that it becomes part of the update's kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import Abs, arith
from graphc.ops.numerics import working
from graphc.optim.base import check_range
from graphc.optim.formula import Term


def grad_norm(b: GraphBuilder, grads: Sequence[Value], norm_type: float = 2.0) -> Value:
    """The norm of all gradients as one vector, an f64 scalar; `norm_type` may be `inf`.

    As `torch.nn.utils.get_total_norm`. Raises ArgumentError for a norm that is none.
    """
    check_range("norm_type", norm_type, 0.0, open_low=True)
    total = Term(b, arith.constant(b, 0.0, DType.F64))
    for grad in grads:
        x = Term(b, arith.convert(b, grad, working(b.type_of(grad).dtype)))
        if norm_type == 2.0:
            total = total + (x * x).sum().astype(DType.F64)
            continue
        size = Term(b, b(Abs(), x.value))
        if math.isinf(norm_type):
            total = total.maximum(size.max().astype(DType.F64))
        else:
            total = total + (size**norm_type).sum().astype(DType.F64)
    if norm_type == 2.0:
        return total.sqrt().value
    return total.value if math.isinf(norm_type) else (total ** (1.0 / norm_type)).value


def clip_grad_norm(
    b: GraphBuilder, grads: Sequence[Value], max_norm: float, norm_type: float = 2.0
) -> tuple[list[Value], Value]:
    """Gradients scaled by `min(max_norm / (norm + 1e-6), 1)`, and the norm before that (Pascanu et al. 2013).

    As `torch.nn.utils.clip_grad_norm_`. Raises ArgumentError for arguments out of range.
    """
    check_range("max_norm", max_norm, 0.0)
    norm = grad_norm(b, grads, norm_type)
    scale = (max_norm / (Term(b, norm) + 1e-6)).minimum(1.0)
    return [_scaled(b, grad, scale) for grad in grads], norm


def _scaled(b: GraphBuilder, grad: Value, scale: Term) -> Value:
    dtype = b.type_of(grad).dtype
    wide = Term(b, arith.convert(b, grad, working(dtype)))
    return (wide * scale).astype(dtype).value


def clip_grad_value(b: GraphBuilder, grads: Sequence[Value], clip_value: float) -> list[Value]:
    """Gradients limited to `[-clip_value, clip_value]`. As `torch.nn.utils.clip_grad_value_`."""
    check_range("clip_value", clip_value, 0.0)
    return [
        Term(b, grad).maximum(-float(clip_value)).minimum(float(clip_value)).value for grad in grads
    ]


def accumulated(b: GraphBuilder, total: Value, grad: Value, every: int) -> Value:
    """What a sum of gradients over `every` micro-batches becomes with one more: `total + grad / every`.

    After `every` of them it is the gradient of the mean loss over all.
    """
    return (Term(b, total) + Term(b, grad) * (1.0 / every)).value


def chosen(b: GraphBuilder, condition: Value, new: Value, old: Value) -> Value:
    """`new` where a bool scalar holds, else `old`: holds state back until an update is due."""
    return arith.select(b, condition, new, old)


def averaged(b: GraphBuilder, average: Value, param: Value, step: Value, decay: float) -> Value:
    """The exponential moving average of weights: `decay * average + (1 - decay) * param`, after update `step`.

    `step` is an i64 scalar, 1 for the first update, whose average is the parameter itself. As
    `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn(decay)`.
    """
    first = Term(b, step) <= 1
    weight = first.where(Term(b, arith.constant(b, 1.0, DType.F64)), 1.0 - decay)
    old = Term(b, average)
    return (old + weight * (Term(b, param) - old)).value
