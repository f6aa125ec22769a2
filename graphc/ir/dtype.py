"""Element types: the ten dtypes a `.nn` file can name, with their NumPy counterparts."""

from __future__ import annotations

from enum import Enum
from functools import cached_property

import ml_dtypes
import numpy as np
import numpy.typing as npt


class DType(Enum):
    """An element type. The value is its spelling in `.nn` files and in printed graphs."""

    F64 = "f64"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    U8 = "u8"
    BOOL = "bool"

    @cached_property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy dtype (bf16 comes from ml_dtypes)."""
        return np.dtype(_NUMPY[self.value])

    @property
    def bytes(self) -> int:
        """Bytes of one element."""
        return self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        """True for f64, f32, f16 and bf16."""
        return self in (DType.F64, DType.F32, DType.F16, DType.BF16)

    @property
    def is_int(self) -> bool:
        """True for the signed and unsigned integers; bool is not an integer."""
        return not self.is_float and self is not DType.BOOL

    def __str__(self) -> str:
        return self.value

    @classmethod
    def from_numpy(cls, dtype: npt.DTypeLike) -> DType:
        """The DType of a NumPy dtype. Raises KeyError for one that graphs cannot hold."""
        return _FROM_NUMPY[np.dtype(dtype)]


_NUMPY: dict[str, npt.DTypeLike] = {
    "f64": np.float64,
    "f32": np.float32,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "i64": np.int64,
    "i32": np.int32,
    "i16": np.int16,
    "i8": np.int8,
    "u8": np.uint8,
    "bool": np.bool_,
}
_FROM_NUMPY = {d.numpy: d for d in DType}
