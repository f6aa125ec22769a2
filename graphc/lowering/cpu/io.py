"""What a kernel family gets to work with: the buffers, named dims and fault slot of one kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from graphc.lowering.cpu.emit import Expr, View

FAULT_WORDS = 4
"""A fault record: id + 1 (0: no fault yet), the offending value, its position, the limit."""


@dataclass(frozen=True)
class KernelIO:
    """The surroundings of one kernel, valid inside its open frame.

    Attributes:
        operands: memory of the body's inputs, in order: dense, row major, aligned for one element.
        results: memory of the body's outputs, in order, likewise.
        dims: int64 expressions of the named dims.
        fault: an int64 view of `FAULT_WORDS` elements, or None when the body checks no index.
        fault_base: the fault id of the kernel's first checked node (see `trace.checked_nodes`); the
            others follow in node order.
        scratch: bytes of the arena that the family asked for (uint8), or None.
        in_place: for each result the operand slot whose memory it takes over, or None. The slot is
            read element by element only, at the very element that is written.
        symbol: what the kernel is called; its parts' symbols begin with it.
    """

    operands: tuple[View, ...]
    results: tuple[View, ...]
    dims: Mapping[str, Expr] = field(default_factory=dict)
    fault: View | None = None
    fault_base: Expr | int = 0
    scratch: View | None = None
    in_place: tuple[int | None, ...] = ()
    symbol: str = ""
