"""Literals: small arrays as attribute values: immutable, hashable, compared bit by bit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.dtype import DType

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Literal:
    """An array as its bytes: row major, little endian, so that equal literals are equal bits.

    Comparing bits keeps 0.0 and -0.0 apart and makes a NaN equal to itself.
    """

    dtype: DType
    shape: tuple[int, ...]
    data: bytes

    def __post_init__(self) -> None:
        expected = math.prod(self.shape) * self.dtype.bytes
        if min(self.shape, default=0) < 0 or len(self.data) != expected:
            raise ValueError(f"{self.dtype}{list(self.shape)} takes {expected} bytes of data")

    @staticmethod
    def of(array: Array) -> Literal:
        """The literal with an array's elements. Raises KeyError for a dtype graphs cannot hold."""
        array = np.asarray(array)
        dtype = DType.from_numpy(array.dtype.newbyteorder("="))
        little = array.astype(dtype.numpy.newbyteorder("<"), copy=False)
        return Literal(dtype, tuple(int(n) for n in array.shape), little.tobytes())

    @property
    def array(self) -> Array:
        """The elements as a read-only array."""
        little = np.frombuffer(self.data, self.dtype.numpy.newbyteorder("<"))
        native = little.astype(self.dtype.numpy, copy=False).reshape(self.shape)
        native.flags.writeable = False
        return native

    @property
    def is_splat(self) -> bool:
        """True when there are elements and all of them have the same bits."""
        size = self.dtype.bytes
        return bool(self.data) and self.data == self.data[:size] * (len(self.data) // size)
