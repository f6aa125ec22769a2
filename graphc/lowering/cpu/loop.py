"""A scan as one kernel: the time loop inside it, which calls the kernels of the body at each step.

The body is planned (`body.py`) so that intermediates of a step have offsets in an arena that all steps share.
Slices of sequences and of stacked results are addresses that move with the step. A carry that is also emitted lives in
the stack: each step reads it where the step before has stored it. Any other carry alternates between two buffers, one
of them the result's, so that the last step writes there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.ir.dim import DimLike
from graphc.lowering.aliasing import origin
from graphc.lowering.cpu.body import Body, Select, plan_body
from graphc.lowering.cpu.emit import Expr, Extent, View, along, i64, loop, product, remainder, when
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.cpu.kernel import Kernel, dim_expr
from graphc.lowering.plan import Place
from graphc.ops import Scan

_ALIGN = 64


def select_scan(op: Scan, static: frozenset[int], target: CpuTarget, select: Select) -> Kernel:
    """The kernel of a loop.

    `static` are the operands known when the module is built; `select` finds the body's kernels.
    """
    first = op.sequences + op.carries
    inputs = {n.values[0]: i for i, n in enumerate(op.body.inputs)}
    captures = {v: i for v, i in inputs.items() if i >= first and op.body.type_of(v).is_static}
    body = plan_body(op.body, captures, static, target, select)
    places = _carries(op)
    offsets, total = _buffers(op, places, body.plan.arena.size)

    def emit(io: KernelIO) -> None:
        _Loop(op, body, places, offsets, io).emit()

    return Kernel("scan", emit, total, "uint8", body.packing, body.parts)


def _carries(op: Scan) -> list[int | None]:
    """For each carry the stacked result that holds it, or None."""
    emitted = [origin(op.body, v) for v in op.emitted]
    last = {v: i for i, v in enumerate(emitted)}
    return [last.get(origin(op.body, v)) for v in op.next]


def _buffers(
    op: Scan, places: Sequence[int | None], arena: DimLike
) -> tuple[list[DimLike], DimLike]:
    """Where in the scratch memory the second buffer of each carry begins, behind the body's arena, and the end."""
    offsets: list[DimLike] = []
    end = arena if not isinstance(arena, int) else -(-arena // _ALIGN) * _ALIGN
    for value, place in zip(op.carried, places, strict=True):
        offsets.append(end)
        if place is None:
            size = op.body.type_of(value).nbytes
            end = end + (-(-size // _ALIGN) * _ALIGN if isinstance(size, int) else size + _ALIGN)
    return offsets, end


class _Loop:
    """Emits one loop."""

    def __init__(
        self,
        op: Scan,
        body: Body,
        places: Sequence[int | None],
        offsets: Sequence[DimLike],
        io: KernelIO,
    ) -> None:
        self.op, self.body, self.io = op, body, io
        self.places, self.offsets = places, offsets
        self.length = dim_expr(op.length, io.dims)

    def emit(self) -> None:
        with loop(self.length) as step:
            at = self.length - 1 - step if self.op.reverse else step
            addresses: dict[tuple[str, int], Any] = {}

            def address(place: Place) -> Any:
                if place.space == "arena":
                    return self._scratch(place.offset)
                key = (place.space, place.index)
                if key not in addresses:
                    find = self._input if place.space == "input" else self._output
                    addresses[key] = find(place.index, step, at)
                return addresses[key]

            self.body.emit(self.io, address)
        for carry, place in enumerate(self.places):
            self._finish(carry, place)

    # ---- Addresses at a step ----------------------------------------------------------------------

    def _scratch(self, offset: DimLike) -> Any:
        assert self.io.scratch is not None
        return self.io.scratch.address((dim_expr(offset, self.io.dims),))

    def _input(self, index: int, step: Extent, at: Extent) -> Any:
        operand = self.io.operands[index]
        if index < self.op.sequences:
            return _start(operand, at)
        carry = index - self.op.sequences
        if carry >= self.op.carries:
            return _start(operand)
        place = self.places[carry]
        if place is None:
            before = self._buffer(carry, step - 1)
        else:
            moved = at + 1 if self.op.reverse else at - 1
            before = _start(self.io.results[self.op.carries + place], moved)
        return _either(step == 0, _start(operand), before)

    def _output(self, index: int, step: Extent, at: Extent) -> Any:
        if index >= self.op.carries:
            return _start(self.io.results[index], at)
        return self._buffer(index, step)

    def _buffer(self, carry: int, step: Extent) -> Any:
        """Where a carry is after a step: in the result's memory after the last one."""
        own = remainder(self.length - 1 - step, 2) == 0
        return _either(own, _start(self.io.results[carry]), self._scratch(self.offsets[carry]))

    def _finish(self, carry: int, place: int | None) -> None:
        """The carry after the last step, or its initial value if there was none, to its result."""
        result = _flat(self.io.results[carry])
        type = self.op.body.type_of(self.op.carried[carry])
        size = product([dim_expr(d, self.io.dims) for d in type.shape])
        known = isinstance(self.length, int)

        def copy(source: View) -> None:
            def body(start: Extent, lanes: int) -> None:
                result.store(source.load((start,), lanes), (start,))

            along(size, 8, body)

        start = _flat(self.io.operands[self.op.sequences + carry])
        if known and self.length == 0:
            copy(start)
            return
        if not known:
            with when(self.length == 0):
                copy(start)
        if place is not None:
            stack = self.io.results[self.op.carries + place]
            last = 0 if self.op.reverse else self.length - 1
            source = _flat(stack, i64(last) * stack.strides[0])
            if known:
                copy(source)
            else:
                with when(self.length > 0):
                    copy(source)


def _flat(view: View, offset: Extent = 0) -> View:
    """The same dense memory as a vector."""
    return View(view.buffer, view.dtype, (1,), view.offset + offset)


def _start(view: View, at: Extent | None = None) -> Any:
    """The pointer to the first element, or to that of element `at` of the first dimension."""
    index: list[Extent] = [0] * len(view.strides)
    if at is not None:
        index[0] = at
    return view.address(index)


def _either(condition: Expr | bool, a: Any, b: Any) -> Any:
    """One of two pointers; TVM's `Select` takes numbers only."""
    import tvm.tirx as tx
    from tvm.script.ir_builder import tirx as t

    if isinstance(condition, bool):
        return a if condition else b
    numbers = [t.reinterpret("int64", pointer) for pointer in (a, b)]
    return t.reinterpret("handle", tx.Select(condition, *numbers))


__all__ = ["select_scan"]
