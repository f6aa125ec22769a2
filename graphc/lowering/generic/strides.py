"""Reading a `dot_general` as a batch of plain matrix products over strided memory.

Operands of a kernel are dense and row major, so every dimension has a stride; neighbouring dimensions that are also
neighbours in memory merge into one. What does not merge into the rows, columns or depth of a product becomes a batch
loop, in which the other operand stands still (stride 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.dim import DimLike, product
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.types import TensorType
from graphc.lowering.generic.index import unflatten
from graphc.ops import Convert, DotGeneral, Fusion


@dataclass(frozen=True)
class Axis:
    """One loop of a product: its extent, the elements each operand moves by, and the result dims it stands for."""

    extent: DimLike
    lhs: DimLike
    rhs: DimLike
    dims: tuple[int, ...] = ()


@dataclass(frozen=True)
class Product:
    """`result[batch..., m, n] = sum over k` of lhs times rhs."""

    batch: tuple[Axis, ...]
    m: Axis
    n: Axis
    k: Axis


def strides_of(shape: Sequence[DimLike]) -> tuple[DimLike, ...]:
    """Row-major strides in elements."""
    return tuple(product(shape[i + 1 :]) for i in range(len(shape)))


def read_depth(
    op: DotGeneral, lhs: TensorType, rhs: TensorType
) -> tuple[Axis, Axis, tuple[Axis, ...]] | None:
    """The rows, columns and depth of a single product over dense operands, or None where it is a batch of them.

    The depth is what is left of the contracted dims after merging, in the order in which the op names them.
    """
    left, right = strides_of(lhs.shape), strides_of(rhs.shape)
    if any(lhs.shape[i] != 1 for i in op.lhs_batch):
        return None
    rank, rows, columns = len(op.lhs_batch), op.lhs_free(lhs.rank), op.rhs_free(rhs.rank)
    m = merge([Axis(lhs.shape[i], left[i], 0, (rank + r,)) for r, i in enumerate(rows)])
    n = merge(
        [Axis(rhs.shape[j], 0, right[j], (rank + len(rows) + r,)) for r, j in enumerate(columns)]
    )
    pairs = zip(op.lhs_contract, op.rhs_contract, strict=True)
    k = merge([Axis(lhs.shape[i], left[i], right[j]) for i, j in pairs])
    return (m[0], n[0], tuple(k)) if len(m) == len(n) == 1 else None


def read_product(
    op: DotGeneral, lhs: TensorType, rhs: TensorType, *, packed_rhs: bool = False
) -> Product | None:
    """The product a `dot_general` is, or None when its contracted dims do not merge into one.

    With `packed_rhs` the rhs is laid out anew as [k, n] when the module is built, so that it has no strides to obey.
    """
    left, right = strides_of(lhs.shape), strides_of(rhs.shape)
    columns = op.rhs_free(rhs.rank)
    if packed_rhs:
        n_total = product(rhs.shape[j] for j in columns)
        right = _packed_strides(op, rhs, columns, n_total)
    rank = len(op.lhs_batch)
    batch = [
        Axis(lhs.shape[i], left[i], right[j], (r,))
        for r, (i, j) in enumerate(zip(op.lhs_batch, op.rhs_batch, strict=True))
    ]
    rows = op.lhs_free(lhs.rank)
    m_axes = [Axis(lhs.shape[i], left[i], 0, (rank + r,)) for r, i in enumerate(rows)]
    n_axes = [
        Axis(rhs.shape[j], 0, right[j], (rank + len(rows) + r,)) for r, j in enumerate(columns)
    ]
    k_axes = [
        Axis(lhs.shape[i], left[i], right[j])
        for i, j in zip(op.lhs_contract, op.rhs_contract, strict=True)
    ]
    k = merge(k_axes)
    if len(k) > 1:
        return None
    m, n = merge(m_axes), merge(n_axes)
    return Product((*batch, *m[:-1], *n[:-1]), m[-1], n[-1], k[-1])


def _packed_strides(
    op: DotGeneral, rhs: TensorType, columns: Sequence[int], n_total: DimLike
) -> tuple[DimLike, ...]:
    strides: list[DimLike] = [0] * rhs.rank
    step: DimLike = 1
    for j in reversed(columns):
        strides[j], step = step, step * rhs.shape[j]
    step = n_total
    for j in reversed(op.rhs_batch + op.rhs_contract):
        strides[j], step = step, step * rhs.shape[j]
    return tuple(strides)


def merge(axes: Sequence[Axis]) -> list[Axis]:
    """Axes with neighbours joined where both operands allow it; a unit axis stands for none."""
    merged: list[Axis] = []
    for axis in axes:
        last = merged[-1] if merged else None
        if last is not None and last.extent == 1:
            merged[-1] = Axis(axis.extent, axis.lhs, axis.rhs, last.dims + axis.dims)
        elif last is not None and axis.extent == 1:
            merged[-1] = Axis(last.extent, last.lhs, last.rhs, last.dims + axis.dims)
        elif (
            last is not None
            and last.lhs == axis.extent * axis.lhs
            and last.rhs == axis.extent * axis.rhs
        ):
            merged[-1] = Axis(last.extent * axis.extent, axis.lhs, axis.rhs, last.dims + axis.dims)
        else:
            merged.append(axis)
    return merged or [Axis(1, 0, 0)]


def spread(position: DimLike, axis: Axis, shape: Sequence[DimLike], at: list[DimLike]) -> None:
    """Writes a merged axis' position to the result dims it stands for."""
    for dim, index in zip(
        axis.dims, unflatten(position, [shape[d] for d in axis.dims]), strict=True
    ):
        at[dim] = index


def stored_slots(fusion: Fusion, root: Node) -> tuple[int, int] | None:
    """The kernel's operands that a product multiplies as they stand, or in half precision, which is widened."""
    lhs, rhs = (stored_slot(fusion.body, v) for v in root.operands)
    return None if lhs is None or rhs is None else (lhs, rhs)


def stored_slot(body: Graph, value: Value) -> int | None:
    """Which operand of the kernel a value is, as it stands or widened to f32."""
    slots = {node.values[0]: slot for slot, node in enumerate(body.inputs)}
    node = body.node(value.node)
    if isinstance(node.op, Convert) and node.op.dtype is DType.F32:
        source = body.type_of(node.operands[0]).dtype
        return slots.get(node.operands[0]) if source in (DType.BF16, DType.F16) else None
    return slots.get(value)
