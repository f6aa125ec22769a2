"""Reductions: one thread going over a box, or a team of threads sharing it out.

A float sum of n terms in one accumulator is off by up to n roundings. A thread therefore adds up blocks of terms first,
and the blocks' sums then (Higham, Accuracy and Stability of Numerical Algorithms, 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphc.ir.dim import Dim, DimLike, product
from graphc.ir.dtype import DType
from graphc.lowering.cuda import arithmetic
from graphc.lowering.cuda.emit import (
    Expr,
    Variable,
    cast,
    computed,
    const,
    dtype_of,
    named,
    pure,
    select,
    when,
)
from graphc.lowering.generic.index import unflatten
from graphc.ops.reduce import highest, lowest

if TYPE_CHECKING:
    from graphc.lowering.cuda.emitter import CudaEmitter, Run

_BLOCK = 256  # terms of a block
LONG = 1024  # terms from which on blocks pay
SHORT = 32
"""Terms of reductions that may be written out one by one."""

_UNROLLED = 32  # elements of a row that a thread keeps in registers
_COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "all": "min", "any": "max"}
OPERATION = {
    "add": "graphc_add",
    "mul": "graphc_mul",
    "max": "graphc_maximum",
    "min": "graphc_minimum",
}

Body = Callable[[Sequence[Expr]], Expr]
Elements = Callable[[Sequence[DimLike], "Expr | None"], None]


def identity(kind: str, dtype: DType) -> float | int:
    """What a reduction over nothing gives; 0 and 1 stand for false and true."""
    if kind in ("sum", "any"):
        return 0
    if kind in ("prod", "all"):
        return 1
    return lowest(dtype) if kind == "max" else highest(dtype)


@dataclass
class Team:
    """Neighbouring threads that go over the elements of a row together.

    Every thread takes runs of `run(total)` neighbours, as many apart as there are threads. Where that is few elements,
    they are named one by one, so that what one pass over the row has loaded or computed the next finds in registers.

    Attributes:
        e: the emitter of the kernel.
        threads: a power of two.
        lane: the thread's number in the team.
        widest: elements of a run at most.
    """

    e: CudaEmitter
    threads: int
    lane: Dim
    widest: int
    _ends: dict[tuple[int, int], tuple[Dim, Expr]] = field(default_factory=dict)

    def run(self, total: DimLike) -> int:
        """Elements of a run in a row of `total`: a power of two that divides it."""
        from graphc.lowering.cuda.emitter import divides

        count = self.widest
        short = isinstance(total, int)
        while count > 1 and (
            not divides(count, total) or (short and total < count * self.threads)  # type: ignore[operator]
        ):
            count //= 2
        return count

    def each(self, total: DimLike, body: Elements) -> None:
        """Emits `body(positions, valid)` for every run of the thread.

        Where `valid` is not None and false, the positions are those of other elements, which are not the thread's.
        """
        from graphc.lowering.cuda.emitter import Run

        run = self.run(total)
        stride = self.threads * run
        group: DimLike
        if isinstance(total, int) and -(-total // stride) * run <= _UNROLLED:
            for i in range(-(-total // stride)):
                group = self.lane + i * self.threads
                symbol, valid = self.lane.names[0], None
                if (i + 1) * stride > total:
                    end, valid = self._end(total, run, i)
                    group, (symbol,) = end, end.names
                self._neighbours(Run(symbol, run), group, valid, body)
            return
        groups: DimLike = total if run == 1 else total // run
        with self.e.serial((groups + (self.threads - 1)) // self.threads) as step:
            group = self.e.bound(self.e.expr(step * self.threads + self.lane), 0, groups - 1)
            with ExitStack() as stack:
                if not self._fills(groups):
                    stack.enter_context(when(self.e.expr(group) < self.e.expr(groups)))
                    stack.enter_context(self.e.scope())
                symbol = group.names[0] if isinstance(group, Dim) else ""
                self._neighbours(Run(symbol, run), group, None, body)

    def _fills(self, groups: DimLike) -> bool:
        return isinstance(groups, int) and groups % self.threads == 0

    def _end(self, total: int, run: int, i: int) -> tuple[Dim, Expr]:
        """The last run of a thread, which may be beyond the end of the row; the same in every pass."""
        if (total, i) not in self._ends:
            e = self.e
            place = named(e.expr(self.lane + i * self.threads))
            last = const(total // run - 1, dtype_of(place))
            valid = named(place <= last)
            group = e.bound(select(valid, place, last), 0, total // run - 1)
            assert isinstance(group, Dim)
            self._ends[total, i] = group, valid
        return self._ends[total, i]

    def _neighbours(
        self,
        run: Run,
        group: DimLike,
        valid: Expr | None,
        body: Elements,
    ) -> None:
        with self.e.neighbours(run):
            body([group * run.count + j for j in range(run.count)], valid)

    def combined(self, operation: str, value: Expr) -> Expr:
        """What all threads' values come to."""
        dtype = dtype_of(value)
        name = f"graphc_team<{self.threads}, {OPERATION[operation]}>"
        return named(pure(name, dtype, value))


class Accumulator:
    """A value that takes terms; `long` sums of floats by way of blocks."""

    def __init__(self, kind: str, dtype: DType, long: bool) -> None:
        name = computed(dtype)
        self.kind, self.operation = kind, _COMBINE[kind]
        self.dtype = (
            "int32" if kind in ("all", "any") or name in ("int8", "int16", "uint8") else name
        )
        self.start = const(identity(kind, dtype), self.dtype)
        self.value = Variable(self.start)
        self.block = long and kind == "sum" and self.dtype == "float32"
        if self.block:
            self.partial, self.count = Variable(self.start), Variable(const(0, "int32"))

    def add(self, term: Expr) -> None:
        """Takes one term."""
        into = self.partial if self.block else self.value
        into.set(arithmetic.binary(self.operation, into.get(), cast(term, self.dtype)))
        if self.block:
            import tvm.tirx as tx

            self.count.set(self.count.get() + const(1, "int32"))
            with when(tx.EQ(self.count.get(), const(_BLOCK, "int32"))):
                self._flush()

    def _flush(self) -> None:
        self.value.set(self.value.get() + self.partial.get())
        self.partial.set(self.start)
        self.count.set(const(0, "int32"))

    def result(self) -> Expr:
        """All terms so far."""
        if self.block:
            return named(self.value.get() + self.partial.get())
        return named(self.value.get())


def accumulate(
    e: CudaEmitter, kind: str, extents: Sequence[DimLike], body: Body, dtype: DType
) -> Expr:
    """The reduction of `body(k)` over the box of `extents`; see `Emitter.reduce`."""
    total = product(extents)
    team = e.team
    each = total if team is None or not isinstance(total, int) else -(-total // team.threads)
    into = Accumulator(kind, dtype, not isinstance(each, int) or each > LONG)
    if total == 0:
        return finished(kind, into.start, dtype)
    if team is None:
        if e.unrolled and isinstance(total, int) and total <= SHORT:
            for k in range(total):
                into.add(e.lift(body(unflatten(k, extents))))
        else:
            _serial(e, extents, body, into)
        return finished(kind, into.result(), dtype)

    def terms(positions: Sequence[DimLike], valid: Expr | None) -> None:
        for position in positions:
            k = unflatten(position, extents)
            with e.together(None):
                term = e.lift(body(k))
            if valid is not None:
                term = select(valid, cast(term, into.dtype), into.start)
            into.add(term)

    team.each(total, terms)
    return finished(kind, team.combined(into.operation, into.result()), dtype)


def _serial(e: CudaEmitter, extents: Sequence[DimLike], body: Body, into: Accumulator) -> None:
    with ExitStack() as stack:
        stack.enter_context(e.neighbours(None))
        k = [stack.enter_context(e.serial(extent)) for extent in extents]
        into.add(e.lift(body(k)))


def finished(kind: str, value: Expr, dtype: DType) -> Expr:
    """What an accumulator came to, in the type of results."""
    if kind in ("all", "any"):
        import tvm.tirx as tx

        return tx.NE(value, const(0, "int32"))
    return cast(value, computed(dtype))
