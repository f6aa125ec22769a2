"""What is known about calls with certain input shapes: C structs whose data pointers alone change from call to call,
and who makes the arrays that results are written to.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.artifact import capi
from graphc.artifact.arrays import Array

_SMALL, _AT_ONCE = 512, 32  # bytes of an output that is made together with that many others
_LARGE = 1 << 20  # bytes from which on an output's memory is used again


class Maker:
    """Makes the arrays of one output.

    Large ones take the memory of the call before as soon as nobody refers to it: fresh pages cost more than the
    kernels that write them.

    Attributes:
        name, shape, dtype, bytes: of the output.
        used: by the outputs' names, the memory of the latest large ones.
    """

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], used: dict[str, Array]
    ) -> None:
        self.name, self.shape, self.dtype, self.used = name, shape, dtype, used
        self.bytes = dtype.itemsize * int(np.prod(shape, dtype=np.int64))

    def make(self) -> Array:
        """A new array."""
        if self.bytes < _LARGE:
            return np.empty(self.shape, self.dtype)
        owner = self.used.pop(self.name, None)
        # Every view of an array refers to the array that owns the memory: without one, it is this name and the
        # argument that count.
        if owner is None or owner.shape != self.shape or sys.getrefcount(owner) > 2:
            owner = np.empty(self.shape, self.dtype)
        self.used[self.name] = owner
        return owner[...]

    def several(self) -> list[Array]:
        """New arrays for this call and those after it. Small ones are cut from one block: making an array costs as much
        as a part of a small model.
        """
        if 0 < self.bytes <= _SMALL and self.shape:
            return list(np.empty((_AT_ONCE, *self.shape), self.dtype))
        return [self.make()]


class Frame:
    """The C structs of one call."""

    def __init__(self, handle: capi.Handle, plan: Plan) -> None:
        self.inputs = (capi.Tensor * len(plan.inputs))(*plan.inputs)
        self.outputs = (capi.Tensor * len(plan.makers))()
        for struct, maker in zip(self.outputs, plan.makers, strict=True):
            struct.bytes = maker.bytes
        self.ins, self.outs = list(self.inputs), list(self.outputs)
        self.arguments = (
            ctypes.c_void_p(handle.pointer),
            ctypes.c_void_p(ctypes.addressof(self.inputs)),
            ctypes.c_size_t(len(self.ins)),
            ctypes.c_void_p(ctypes.addressof(self.outputs)),
            ctypes.c_size_t(len(self.outs)),
        )


@dataclass(eq=False)
class Plan:
    """Inputs without data, makers of the outputs, and spare frames."""

    inputs: list[capi.Tensor]
    makers: list[Maker]
    free: list[Frame] = field(default_factory=list)
