"""Variables of a kernel: registers that loops change, and memory that passes over a row share."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dim import DimLike
from graphc.ir.op import Expr
from graphc.lowering.cpu import arithmetic
from graphc.lowering.cpu.emit import View, cast, local, splat


class Cell:
    """One vector (or scalar) variable, kept in a register where it is accessed by constants only."""

    def __init__(self, lanes: int, dtype: str) -> None:

        self.lanes, self.dtype = lanes, dtype
        stored = "uint8" if dtype == "bool" else dtype
        self._buffer = local(lanes, stored)

    def get(self) -> Expr:
        """All lanes."""
        from tvm.script.ir_builder import tirx as t

        value = self._buffer[0 if self.lanes == 1 else t.ramp(0, 1, self.lanes)]
        return self._as_bool(value)

    def set(self, value: Expr) -> None:
        """Replaces all lanes; a scalar goes to each of them."""
        from tvm.script.ir_builder import tirx as t

        index = 0 if self.lanes == 1 else t.ramp(0, 1, self.lanes)
        t.buffer_store(self._buffer, self._stored(splat(value, self.lanes)), [index])

    def get_lane(self, lane: Expr) -> Expr:
        """One lane, by a run-time number."""
        return self._as_bool(self._buffer[lane])

    def set_lane(self, lane: Expr, value: Expr) -> None:
        """Replaces one lane."""
        from tvm.script.ir_builder import tirx as t

        t.buffer_store(self._buffer, self._stored(value), [lane])

    def _as_bool(self, value: Expr) -> Expr:
        return arithmetic.nonzero(value) if self.dtype == "bool" else value

    def _stored(self, value: Expr) -> Expr:
        return cast(value, "uint8") if self.dtype == "bool" else value


class Kept:
    """A value that one pass over a row stores into memory of the row, for the passes that follow."""

    def __init__(self, view: View, shape: Sequence[DimLike]) -> None:
        self.view, self.shape = view, tuple(shape)
        self.started = self.complete = False
