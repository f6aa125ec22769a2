"""How operands of a family's root lie in memory: as strides, through transposes and conversions in front of it."""

from __future__ import annotations

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Value
from graphc.lowering.generic.strides import strides_of
from graphc.ops import Convert, Transpose

__all__ = ["Read", "in_memory", "strided"]

_HALF = (DType.BF16, DType.F16)

Read = tuple[int, tuple[DimLike, ...]]
"""An operand of the kernel, and the strides with which a value is read in it."""


def strided(body: Graph, value: Value) -> Read:
    """Which operand of the kernel a value is, and its strides, through transposes and conversions."""
    slots = {node.values[0]: slot for slot, node in enumerate(body.inputs)}
    if value in slots:
        return slots[value], strides_of(body.type_of(value).shape)
    node = body.node(value.node)
    slot, strides = strided(body, node.operands[0])
    if isinstance(node.op, Convert):  # from half precision, which is widened where it is read
        return slot, strides
    assert isinstance(node.op, Transpose)
    return slot, tuple(strides[p] for p in node.op.permutation)


def in_memory(body: Graph, value: Value) -> Read | None:
    """The same for a value that may be computed in the kernel: None where it is."""
    node = body.node(value.node)
    if node in body.inputs:
        return strided(body, value)
    widened = isinstance(node.op, Convert) and body.type_of(node.operands[0]).dtype in _HALF
    moved = isinstance(node.op, Transpose) or widened
    inside = moved and in_memory(body, node.operands[0])
    return strided(body, value) if inside else None
