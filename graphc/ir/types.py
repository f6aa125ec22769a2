"""The type of a value: element type and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.ir.dim import DimLike, Shape, evaluate, product, substitute
from graphc.ir.dtype import DType


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a tensor; every dimension is an int or a `Dim`."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> DimLike:
        """Number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> DimLike:
        """Bytes of the dense tensor."""
        return self.size * self.dtype.bytes

    @property
    def is_static(self) -> bool:
        """True when no dimension is named."""
        return all(isinstance(d, int) for d in self.shape)

    def with_shape(self, shape: Shape) -> TensorType:
        """The same element type with another shape."""
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape with another element type."""
        return TensorType(dtype, self.shape)

    def substitute(self, env: Mapping[str, DimLike]) -> TensorType:
        """Named dims replaced."""
        return TensorType(self.dtype, tuple(substitute(d, env) for d in self.shape))

    def concrete(self, env: Mapping[str, int]) -> tuple[int, ...]:
        """The shape as integers for given named dims. Raises KeyError for a missing name."""
        return tuple(evaluate(d, env) for d in self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"
