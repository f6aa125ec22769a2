"""Ops without operands: where values come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, Shape, names_of
from graphc.ir.dtype import DType
from graphc.ir.literal import Literal
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read
from graphc.ir.types import TensorType
from graphc.ops.errors import check_axis, show


class Source(Op):
    """Base of ops without operands."""

    pattern: ClassVar[Pattern] = Pattern.SOURCE
    arity: ClassVar[int | None] = 0
    family: ClassVar[str] = "source"


def _checked(op: str, dtype: DType, shape: Shape) -> TensorType:
    if any(isinstance(d, int) and d < 0 for d in shape):
        raise OpError(f"{op}: shape {show(shape)} has a negative dimension", code="E0207")
    return TensorType(dtype, shape)


@dataclass(frozen=True)
class Input(Source):
    """An argument of the model (or of a body graph), called `label`.

    With `state` it is a variable that the caller keeps from call to call: its next value is the graph's output of the
    same name, which a module writes over it (see `Graph.state`).
    """

    name: ClassVar[str] = "input"
    label: str
    dtype: DType
    shape: Shape
    state: bool = False

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The declared type. Raises OpError E0207 for a negative dimension."""
        return (_checked(self.name, self.dtype, self.shape),)


@dataclass(frozen=True)
class Parameter(Source):
    """A weight, called by its path (`layer1.0.conv1.weight`).

    `init` is the initialiser as text, such as `kaiming_uniform(a=2.236)`: what the value is before any training.
    """

    name: ClassVar[str] = "parameter"
    path: str
    dtype: DType
    shape: Shape
    init: str

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The declared type. Raises OpError E0207 for a named or negative dimension."""
        for d in self.shape:
            if names_of(d):
                raise OpError(
                    f"parameter {self.path} has shape {show(self.shape)}, which depends on {d}",
                    code="E0207",
                    help="a weight's shape is fixed when the model is built",
                )
        return (_checked(self.name, self.dtype, self.shape),)


@dataclass(frozen=True)
class Constant(Source):
    """An array known while compiling."""

    name: ClassVar[str] = "constant"
    literal: Literal

    @staticmethod
    def of(array: Array) -> Constant:
        """The constant with an array's elements. Raises KeyError for a dtype graphs cannot hold."""
        return Constant(Literal.of(array))

    @property
    def array(self) -> Array:
        """The elements, read-only."""
        return self.literal.array

    @property
    def splat(self) -> float | int | bool | None:
        """The value when all elements are the same one, else None."""
        if not self.literal.is_splat:
            return None
        value: float | int | bool = self.array.reshape(-1)[0].item()
        return value

    @property
    def replicated(self) -> bool:
        """When all elements are one value."""
        return self.splat is not None

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The literal's type."""
        return (TensorType(self.literal.dtype, self.literal.shape),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The elements, read-only."""
        return (self.array,)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The value of a splat. Raises TypeError for other constants, which live in memory."""
        if self.splat is None:
            raise TypeError(f"a constant of shape {show(self.literal.shape)} is read from memory")
        return e.constant(self.splat, self.literal.dtype)


@dataclass(frozen=True)
class Iota(Source):
    """0, 1, 2, ... along one axis, the same along the others."""

    name: ClassVar[str] = "iota"
    dtype: DType
    shape: Shape
    axis: int

    @property
    def replicated(self) -> bool:
        """Always: an index is its own value."""
        return True

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The declared type. Raises OpError E0206 for bool, E0207 or E0211 for bad attributes."""
        if self.dtype is DType.BOOL:
            raise OpError(f"iota has no meaning for {self.dtype}", code="E0206")
        check_axis(self.name, self.axis, len(self.shape), self.shape)
        return (_checked(self.name, self.dtype, self.shape),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The counting array."""
        shape = tuple(int(d) for d in self.shape if isinstance(d, int))
        steps = [1] * len(shape)
        steps[self.axis] = shape[self.axis]
        row = np.arange(shape[self.axis]).astype(self.dtype.numpy).reshape(steps)
        return (np.broadcast_to(row, shape).copy(),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The index along the axis."""
        return e.cast(index[self.axis], self.dtype)


@dataclass(frozen=True)
class DimValue(Source):
    """A dimension as a scalar tensor: the divisor of a mean over a named dim."""

    name: ClassVar[str] = "dim_value"
    dtype: DType
    dim: DimLike

    @property
    def replicated(self) -> bool:
        """Always."""
        return True

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """A scalar. Raises OpError E0206 for bool."""
        if self.dtype is DType.BOOL:
            raise OpError(f"dim_value has no meaning for {self.dtype}", code="E0206")
        return (TensorType(self.dtype, ()),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """The dimension, converted to the element type."""
        return (np.asarray(self.dim).astype(self.dtype.numpy),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """The dimension, converted to the element type."""
        return e.cast(e.dim(self.dim), self.dtype)
