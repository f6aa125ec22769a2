"""A scan as launches: the kernels of its body, with addresses that move from step to step.

The body is planned like a graph of its own: intermediates of a step have offsets in an arena that all steps share.
Slices of sequences and of stacked results are addresses that depend on the step. A carry that is also emitted lives in
the stack: each step reads it where the step before has stored it. Any other carry alternates between two buffers. The
first step, which reads the initial carries elsewhere, stands before the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from graphc.artifact.device import Address, Loop, Step
from graphc.ir.dim import Dim, DimLike
from graphc.ir.graph import GraphBuilder, Value
from graphc.lowering.aliasing import origin
from graphc.lowering.cuda.emit import VECTOR_BYTES
from graphc.lowering.cuda.generic.nest import nest
from graphc.lowering.cuda.io import Kernel, Setting
from graphc.lowering.cuda.program import Function, Guards, launches
from graphc.lowering.cuda.regions.body import Body, Select, moved, plan_body
from graphc.lowering.plan import Call, Place
from graphc.ops import Fusion, Input, Scan

_ALIGN = 64
_MOST = 1 << 40  # steps that no loop has


def select_scan(op: Scan, static: frozenset[int], setting: Setting, select: Select) -> Kernel:
    """The kernel of a loop.

    `static` are the operands known when the module is built; `select` finds the body's kernels.
    """
    inputs = {n.values[0]: i for i, n in enumerate(op.body.inputs)}
    first = op.sequences + op.carries
    captures = {v: i for v, i in inputs.items() if i >= first and op.body.type_of(v).is_static}
    alignment = math.gcd(setting.alignment, _alignment(op))
    body = plan_body(op.body, captures, static, replace(setting, alignment=alignment), select)
    places = _places(op)
    copies = tuple(_copy(op, v, i, alignment) for i, v in enumerate(op.carried))
    offsets, total = _buffers(op, places, body.plan.arena.size)
    loop = ScanLoop(op, body, copies, tuple(places), tuple(offsets))
    return Kernel("scan", (), total, body.packing, inside=loop)


def _alignment(op: Scan) -> int:
    """What every step's slices lie on: the address of a step is a multiple of a slice's bytes."""
    alignment = VECTOR_BYTES
    for value in (*op.steps, *op.emitted):
        size = op.body.type_of(value).nbytes
        each = size if isinstance(size, int) else math.gcd(*(c for _, c in size.terms))
        alignment = math.gcd(alignment, each)
    return alignment


def _places(op: Scan) -> list[int | None]:
    """For each carry the stacked result that holds it, or None."""
    last = {origin(op.body, v): i for i, v in enumerate(op.emitted)}
    return [last.get(origin(op.body, v)) for v in op.next]


def _buffers(
    op: Scan, places: Sequence[int | None], arena: DimLike
) -> tuple[list[DimLike], DimLike]:
    """Where in the scratch memory the two buffers of each carry begin, behind the body's arena, and the end."""
    offsets: list[DimLike] = []
    end = _rounded(arena)
    for value, place in zip(op.carried, places, strict=True):
        offsets.append(end)
        if place is None:
            end = end + 2 * _rounded(op.body.type_of(value).nbytes)
    return offsets, end


def _rounded(size: DimLike) -> DimLike:
    return (size + (_ALIGN - 1)) // _ALIGN * _ALIGN


def _copy(op: Scan, value: Value, number: int, alignment: int) -> Function:
    """A function that moves a carry."""
    t = op.body.type_of(value)
    b = GraphBuilder("copy", op.body.dims)
    body = b.build([("out0", b(Input("arg0", t.dtype, t.shape)))])
    kernel = replace(nest(body), alignment=alignment)
    return Function(f"copy{number}", Fusion("copy", body), kernel, (None,))


@dataclass(frozen=True, eq=False)
class ScanLoop:
    """What a loop launches.

    Attributes:
        op, body: the loop, and its planned body.
        copies: for each carry the function that moves it.
        places: for each carry the stacked result that holds it, or None.
        offsets: where in the scratch memory the buffers of each carry begin.
    """

    op: Scan
    body: Body
    copies: tuple[Function, ...]
    places: tuple[int | None, ...]
    offsets: tuple[DimLike, ...]
    guards: int = 0

    @property
    def parts(self) -> tuple[Function, ...]:
        """The functions it launches."""
        return (*self.body.functions, *self.copies)

    def steps(
        self,
        call: Call,
        function: Function,
        address: Callable[[Place], Address],
        fault_id: int,
        guards: Guards,
    ) -> Iterator[Step]:
        """The launches of the whole loop; see `program.launches`."""
        run = _Run(self, call, function, address, fault_id, guards)
        length = self.op.length
        some = (length + (_MOST - 1)) // _MOST  # 0 for no step at all, else 1
        variable = f"{function.symbol}_step"
        yield from _times(variable, some, run.step(0, None))
        if length != 1:
            following = Dim.symbol(variable) + 1
            yield from _times(variable, length - 1, run.step(following, following))
        yield from _times(variable, some, run.finish(length - 1))
        yield from _times(variable, 1 - some, run.finish(None))


def _times(variable: str, count: DimLike, steps: Sequence[Step]) -> Iterator[Step]:
    """Steps so many times."""
    if count == 1:
        yield from steps
    elif steps and not (isinstance(count, int) and count <= 0):
        yield Loop(variable, count, tuple(steps))


@dataclass(frozen=True, eq=False)
class _Run:
    """One call of a loop."""

    loop: ScanLoop
    call: Call
    function: Function
    address: Callable[[Place], Address]
    fault_id: int
    guards: Guards

    def step(self, t: DimLike, before: DimLike | None) -> list[Step]:
        """The launches of step `t`; None for `before` where the carries are the initial ones."""

        def address(place: Place) -> Address:
            if place.space == "arena":
                return self._scratch(place.offset)
            if place.space == "input":
                return self._input(place.index, t, before)
            return self._output(place.index, t)

        body = self.loop.body
        return list(body.launches(self.function, address, self.fault_id, self.guards))

    def finish(self, last: DimLike | None) -> list[Step]:
        """The carries after step `last`, or the initial ones if there is none, to their results."""
        op, found = self.loop.op, list[Step]()
        for carry, copy in enumerate(self.loop.copies):
            if last is None:
                source = self.address(self.call.operands[op.sequences + carry])
            else:
                source = self._carry(carry, last)
            target = self.address(self.call.results[carry])
            places = {Place("input"): source, Place("output"): target}
            call = replace(
                self.call,
                operands=(Place("input"),),
                results=(Place("output"),),
                scratch=None,
                in_place=(None,),
            )
            found += launches(call, self.function.part(copy), places.__getitem__, 0, self.guards)
        return found

    # ---- Addresses at a step

    def _at(self, t: DimLike) -> DimLike:
        """The element of sequences that step `t` reads and writes."""
        return self.loop.op.length - 1 - t if self.loop.op.reverse else t

    def _scratch(self, offset: DimLike) -> Address:
        assert self.call.scratch is not None
        return moved(self.address(self.call.scratch), offset)

    def _input(self, index: int, t: DimLike, before: DimLike | None) -> Address:
        op = self.loop.op
        operand = self.address(self.call.operands[index])
        if index < op.sequences:
            return moved(operand, self._at(t) * op.body.type_of(op.steps[index]).nbytes)
        if index < op.sequences + op.carries and before is not None:
            return self._carry(index - op.sequences, before - 1)
        return operand

    def _output(self, index: int, t: DimLike) -> Address:
        op = self.loop.op
        if index >= op.carries:
            return self._slice(index - op.carries, t)
        return self._buffer(index, t)

    def _carry(self, carry: int, t: DimLike) -> Address:
        """Where a carry is after step `t`."""
        place = self.loop.places[carry]
        return self._buffer(carry, t) if place is None else self._slice(place, t)

    def _slice(self, emitted: int, t: DimLike) -> Address:
        op = self.loop.op
        result = self.address(self.call.results[op.carries + emitted])
        return moved(result, self._at(t) * op.body.type_of(op.emitted[emitted]).nbytes)

    def _buffer(self, carry: int, t: DimLike) -> Address:
        size = _rounded(self.loop.op.body.type_of(self.loop.op.carried[carry]).nbytes)
        return self._scratch(self.loop.offsets[carry] + t % 2 * size)
