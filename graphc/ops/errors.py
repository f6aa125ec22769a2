"""What an op may complain about, with one diagnostic code per kind, and the checks that several ops share.

======  ==============================================================================
E0201   an op's type rule is broken in a way that has no code of its own
E0202   shapes differ where they must be equal, or do not broadcast
E0203   sizes that are contracted together differ (matmul, convolution, einsum)
E0204   (reserved for layers declared for another number of input features)
E0205   a tensor has the wrong number of dimensions
E0206   an element type the op does not take, or two that differ
E0207   an attribute has a value or a length that makes no sense
E0208   a window or kernel is larger than the padded input
E0209   channels do not divide into groups
E0210   reshape changes the number of elements
E0211   an axis is out of range, repeated, or a permutation is none
E0212   parts of a concatenation differ in another axis
E0213   a slice leaves the tensor
E0214   a per-channel or per-feature vector (weight, bias, statistics) has the wrong size
E0215   an einsum equation is malformed
======  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike, Shape
from graphc.ir.op import OpError
from graphc.ir.types import TensorType

KINDS = {
    "any": "any element type",
    "float": "a floating-point type",
    "number": "an integer or floating-point type",
    "int": "an integer type",
    "logical": "bool or an integer type",
    "bool": "bool",
}


def show(shape: Sequence[DimLike]) -> str:
    """A shape as users write it: `[N, 3, 224]`."""
    return f"[{', '.join(map(str, shape))}]"


def plural(count: int, noun: str) -> str:
    """`1 dimension`, `3 dimensions`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def check_kind(op: str, operand: TensorType, kind: str, slot: int | None) -> None:
    """Raises E0206 unless the element type is of a kind of `KINDS`."""
    d = operand.dtype
    fits = {
        "any": True,
        "float": d.is_float,
        "number": d.is_float or d.is_int,
        "int": d.is_int,
        "logical": not d.is_float,
        "bool": not d.is_float and not d.is_int,
    }[kind]
    if not fits:
        near = {"float": "f32", "number": "f32", "int": "i64", "logical": "bool", "bool": "bool"}
        raise OpError(
            f"{op} takes {KINDS[kind]} and got {operand}",
            operand=slot,
            code="E0206",
            help=f"convert it first, for example to {near[kind]}",
        )


def check_same_dtype(op: str, operands: Sequence[TensorType], first: int = 0) -> None:
    """Raises E0206 unless all operands from slot `first` on have one element type."""
    for slot, other in enumerate(operands[first + 1 :], first + 1):
        if other.dtype is not operands[first].dtype:
            raise OpError(
                f"{op} got {operands[first]} and {other}: element types differ",
                operand=slot,
                code="E0206",
                help=f"convert one of them, for example to {wider(operands[first], other).dtype}",
            )


def wider(a: TensorType, b: TensorType) -> TensorType:
    """The operand whose element type a conversion would usually aim for."""

    def rank(t: TensorType) -> tuple[bool, bool, int]:
        return (t.dtype.is_float, t.dtype.is_int, t.dtype.bytes)

    return a if rank(a) >= rank(b) else b


def check_rank(op: str, operand: TensorType, rank: int, slot: int | None, what: str = "") -> None:
    """Raises E0205 unless the operand has `rank` dimensions."""
    if operand.rank != rank:
        raise OpError(
            f"{op} takes {what + ' of ' if what else ''}{plural(rank, 'dimension')} and got "
            f"{operand} with {operand.rank}",
            operand=slot,
            code="E0205",
        )


def check_axis(op: str, axis: int, rank: int, shape: Shape, slot: int | None = None) -> None:
    """Raises E0211 unless `0 <= axis < rank`."""
    if not 0 <= axis < rank:
        raise OpError(
            f"{op}: axis {axis} is out of range for {show(shape)} with {plural(rank, 'dimension')}",
            operand=slot,
            code="E0211",
            help=f"axes go from 0 to {rank - 1}" if rank else "a scalar has no axes",
        )


def check_axes(op: str, axes: Sequence[int], rank: int, shape: Shape) -> None:
    """Raises E0211 unless the axes are in range and distinct."""
    for axis in axes:
        check_axis(op, axis, rank, shape)
    if len(set(axes)) != len(axes):
        raise OpError(f"{op}: axes {show(axes)} repeat for {show(shape)}", code="E0211")


def check_length(op: str, what: str, values: Sequence[object], expected: int, shape: Shape) -> None:
    """Raises E0207 unless an attribute has one entry per (spatial) dimension."""
    if len(values) != expected:
        raise OpError(
            f"{op}: {what} has {plural(len(values), 'entry').replace('entrys', 'entries')}, "
            f"but {show(shape)} needs {expected}",
            code="E0207",
        )


def check_positive(op: str, what: str, values: Sequence[int]) -> None:
    """Raises E0207 unless every value is at least 1."""
    if any(v < 1 for v in values):
        raise OpError(f"{op}: {what} must be at least 1 and is {show(values)}", code="E0207")


def check_vector(
    op: str, what: str, operand: TensorType, like: TensorType, shape: Shape, slot: int
) -> None:
    """Raises E0214 unless a parameter operand has the given shape and the element type of `like`."""
    if operand.shape != shape:
        raise OpError(
            f"{op}: {what} is {operand}, but input {like} needs {like.with_shape(shape)}",
            operand=slot,
            code="E0214",
        )
    if operand.dtype is not like.dtype:
        raise OpError(
            f"{op}: {what} is {operand} for input {like}: element types differ",
            operand=slot,
            code="E0206",
            help=f"convert it to {like.dtype}",
        )
