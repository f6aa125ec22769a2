"""Tensors behind pointers, and the registers of a tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from graphc.lowering.cpu.emit.builder import Expr, Extent, builder, load, local, store
from graphc.lowering.cpu.emit.values import (
    cast,
    consecutive,
    const,
    i64,
    lanes_of,
    splat,
    static,
    stored,
)

Finish = Callable[[Sequence[Extent], Expr, int], None]
"""``finish(index, value, lanes)`` receives a root's result for ``lanes`` consecutive elements along
the last index (``index`` is the first one's position in the root's logical output) and emits the
epilogue and the stores. A generator calls it exactly once for every element of its output."""


class Operand(Protocol):
    """Anything that can be read at an index: a :class:`View`, or a fused producer."""

    def load(self, index: Sequence[Extent], lanes: int = 1) -> Expr:
        """``lanes`` consecutive elements along the last index, starting at ``index``."""
        ...


@dataclass(frozen=True)
class View:
    """A strided tensor in memory behind one raw pointer.

    Attributes:
        buffer: the flat TVM buffer of the pointer.
        dtype: element type as the graph sees it; ``bool`` occupies a byte, and values of
            ``bfloat16`` and ``float16`` are float32 expressions; bfloat16 is rounded before it is stored.
        strides: distance in elements between neighbours along each dimension; 0 repeats.
        offset: elements from the pointer to index (0, ..., 0).
    """

    buffer: Any
    dtype: str
    strides: tuple[Extent, ...]
    offset: Extent = 0

    def position(self, index: Sequence[Extent]) -> Extent:
        """Elements from the pointer to ``index``."""
        if len(index) != len(self.strides):
            raise ValueError(f"index of rank {len(index)} into a view of rank {len(self.strides)}")
        known, position = 0, self.offset
        for i, stride in zip(index, self.strides, strict=True):
            if isinstance(i, int) and isinstance(stride, int):
                known += i * stride
            else:
                position = position + i * stride
        return position + known if known else position

    def _index(self, index: Sequence[Extent], lanes: int) -> Expr:
        base = self.position(index)
        if lanes == 1 or static(self.strides[-1]) == 1:
            return consecutive(base, lanes)
        return builder().ramp(i64(base), i64(self.strides[-1]), lanes)

    def load(self, index: Sequence[Extent], lanes: int = 1) -> Expr:
        """``lanes`` elements along the last dimension, gathered where its stride is not 1."""
        if lanes > 1 and static(self.strides[-1]) == 0:
            return splat(self.load(index), lanes)
        value = load(self.buffer, self._index(index, lanes))
        if self.dtype == "bfloat16":
            from graphc.lowering.cpu.bfloat import widened

            return widened(value)
        if self.dtype == "float16":
            return cast(value, "float32")
        return value != const(0, "uint8", lanes) if self.dtype == "bool" else value

    def store(self, value: Expr, index: Sequence[Extent]) -> None:
        """Stores all lanes of ``value`` along the last dimension from ``index`` on."""
        if self.dtype == "bool":
            value = cast(value, "uint8")
        elif self.dtype == "float16":
            value = cast(value, "float16")
        elif self.dtype == "bfloat16":
            from graphc.lowering.cpu.bfloat import narrowed

            value = narrowed(value)
        store(self.buffer, value, self._index(index, lanes_of(value)))

    def address(self, index: Sequence[Extent]) -> Expr:
        """The raw pointer to the element at ``index``."""
        return builder().address_of(self.buffer[i64(self.position(index))])

    def shifted(self, by: Sequence[Extent]) -> View:
        """The view whose index (0, ..., 0) is this one's index ``by``."""
        return replace(self, offset=self.position(by))

    def near(self, by: Sequence[Extent]) -> View:
        """As :meth:`shifted`, with the position computed here, once: what is read close to it is a constant away."""
        position = self.position(by)
        return replace(self, offset=position if static(position) is not None else stored(position))


@dataclass(frozen=True)
class Shifted:
    """An operand as it looks from index ``by``."""

    source: Operand
    by: tuple[Extent, ...]

    def load(self, index: Sequence[Extent], lanes: int = 1) -> Expr:
        """``lanes`` consecutive elements along the last index, starting ``index`` from there."""
        return self.source.load([b + i for b, i in zip(self.by, index, strict=True)], lanes)


def near(source: Operand, by: Sequence[Extent]) -> Operand:
    """An operand as it looks from index ``by``; where it is memory, the position is computed here, once."""
    return source.near(by) if isinstance(source, View) else Shifted(source, tuple(by))


class Registers:
    """Accumulators of a tile: ``rows`` buffers of ``width`` elements that LLVM keeps in registers.

    One small stack array per row: LLVM promotes only arrays whose every access has a constant
    position, so loops over rows and columns must be unrolled by the generator.
    """

    def __init__(self, rows: int, width: int, dtype: str) -> None:
        if width * np.dtype(dtype).itemsize >= 1024:
            raise ValueError(f"a row of {width} {dtype} is too large for registers")
        self.rows, self.width, self.dtype = rows, width, dtype
        self._rows = [local(width, dtype) for _ in range(rows)]

    def get(self, row: int, column: Extent = 0, lanes: int = 1) -> Expr:
        """``lanes`` elements of ``row`` from ``column`` on; a symbolic column keeps the row in memory."""
        return load(self._rows[row], consecutive(column, lanes))

    def set(self, value: Expr, row: int, column: Extent = 0) -> None:
        """Replaces the elements of ``row`` from ``column`` on by the lanes of ``value``."""
        store(self._rows[row], value, consecutive(column, lanes_of(value)))


def clear(flat: View, start: Extent, length: Extent) -> None:
    """Sets ``length`` elements of a flat view to zero by ``memset``, which LLVM neither unrolls nor has to find."""
    t = builder()
    size = i64(length * (2 if flat.dtype == "bfloat16" else np.dtype(flat.dtype).itemsize))
    t.evaluate(t.call_extern("handle", "memset", flat.address((start,)), t.int32(0), size))


def prefetch(address: Expr, near: int = 3) -> None:
    """Asks for the cache line at ``address`` to be brought close, for reading: 3 closest, 2 second-level cache."""
    t = builder()
    read, data = t.int32(0), t.int32(1)
    t.evaluate(t.call_llvm_intrin("void", "llvm.prefetch.p0", address, read, t.int32(near), data))
