"""The emitter that writes one thread's code: ops' `compute` as scalar TIR expressions.

Index expressions are polynomials (`lowering/generic`) until they are written, in int32 where no term can leave it, else
in int64. Two things make it fast. Neighbours: inside `neighbours` an element that starts a run of neighbours in memory
brings the whole run along with one load, and the elements that follow find it. A team: inside `together` a reduction is
shared out among the threads of a team, all of which get the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.ir.dim import Dim, DimLike
from graphc.ir.dim import Symbol as DimSymbol
from graphc.ir.dtype import DType
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType
from graphc.lowering.cuda import arithmetic
from graphc.lowering.cuda.accumulate import Team, accumulate
from graphc.lowering.cuda.emit import (
    Expr,
    Memory,
    Variable,
    call,
    cast,
    computed,
    const,
    dtype_of,
    i64,
    loop,
    named,
    pure,
    select,
    when,
)
from graphc.lowering.cuda.io import KernelIO
from graphc.lowering.generic.index import Condition, Space, Test, flatten, linear
from graphc.lowering.generic.inline import Index, SymbolicEmitter, is_index

_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Run:
    """Elements computed one after another by a thread: `count` of them from `symbol * count` on."""

    symbol: str
    count: int


@dataclass(frozen=True)
class _Where:
    """What must hold for loads to read anything, and the scope in which what they read is known."""

    tests: tuple[Test, ...]
    holds: Expr
    level: int


class CudaEmitter(SymbolicEmitter):
    """Writes into the kernel that is open.

    Attributes:
        env: symbol -> TIR expression.
        team: threads that share a reduction now; None where each is on its own.
        unrolled: whether short reductions are written out, and branches in them done without.
    """

    def __init__(
        self, space: Space, io: KernelIO, *, fault_ids: Mapping[int, int] | None = None
    ) -> None:
        super().__init__(space)
        self.io = io
        self.env: dict[str, Expr] = dict(io.dims)
        self.team: Team | None = None
        self.unrolled = False
        self._run: Run | None = None
        self._where: _Where | None = None
        self._fault_ids = dict(fault_ids or {})
        self._sizes: dict[DimLike, float] = {}

    # Loops

    def bound(self, expression: Expr | int, low: DimLike, high: DimLike) -> DimLike:
        """An index expression for a TIR one that lies between two bounds."""
        if isinstance(expression, int):
            return expression
        symbol = self.space.symbol(low, high)
        self.env[symbol.names[0]] = named(expression)
        return symbol

    @contextmanager
    def serial(self, extent: DimLike, *, unroll: bool = False) -> Iterator[DimLike]:
        """A loop; its body is a scope. One step is no loop."""
        if extent == 1:
            with self.scope():
                yield 0
            return
        with loop(self.expr(extent), unroll=unroll) as variable, self.scope():
            yield self.bound(variable, 0, extent - 1)

    @contextmanager
    def neighbours(self, run: Run | None) -> Iterator[None]:
        """Inside, elements of a run are asked for one after another, in one scope."""
        before, self._run = self._run, run if run is not None and run.count > 1 else None
        try:
            yield
        finally:
            self._run = before

    @contextmanager
    def together(self, team: Team | None) -> Iterator[None]:
        """Inside, which all threads of the team reach, they share reductions."""
        before, self.team = self.team, team
        try:
            yield
        finally:
            self.team = before

    # Index expressions

    def expr(self, value: DimLike) -> Expr:
        """An index expression as TIR: int32 where that is certain to hold every term, else int64."""
        dtype = "int32" if self._size(value) <= _INT32 else "int64"
        return self._typed(value, dtype)

    def wide(self, value: DimLike) -> Expr:
        """The same as int64."""
        return cast(self.expr(value), "int64")

    def _size(self, value: DimLike) -> float:
        """A bound on the absolute value of everything that computing `value` comes by."""
        if isinstance(value, int):
            return abs(value)
        if value not in self._sizes:
            total = 0.0
            for mono, coefficient in value.terms:
                term = float(abs(coefficient))
                for atom, power in mono:
                    if isinstance(atom, DimSymbol):
                        low, high = self.space.span(Dim.symbol(atom.name))
                        ends = [abs(e) if isinstance(e, int) else math.inf for e in (low, high)]
                        size = max(*ends, 1)
                    else:
                        size = max(self._size(atom.numerator), self._size(atom.denominator), 1)
                    term *= float(size) ** power
                total += term
            self._sizes[value] = total
        return self._sizes[value]

    def _typed(self, value: DimLike, dtype: str) -> Expr:
        if isinstance(value, int):
            return const(value, dtype)
        total: Expr = None
        for mono, coefficient in value.terms:
            term: Expr = None
            for atom, power in mono:
                factor = (
                    cast(self.env[atom.name], dtype)
                    if isinstance(atom, DimSymbol)
                    else self._quotient(atom.numerator, atom.denominator, dtype)
                )
                for _ in range(power):
                    term = factor if term is None else term * factor
            if term is None:
                term = const(coefficient, dtype)
            elif coefficient != 1:
                term = term * const(coefficient, dtype)
            total = term if total is None else total + term
        return total

    def _quotient(self, a: DimLike, b: DimLike, dtype: str) -> Expr:
        from tvm.script.ir_builder import tirx as t

        numerator, denominator = self._typed(a, dtype), self._typed(b, dtype)
        if self.space.proves(a):
            return t.truncdiv(numerator, denominator)
        return arithmetic.binary("floordiv", named(numerator), named(denominator))

    def condition(self, condition: Expr) -> Expr:
        """A condition as a TIR boolean."""
        import tvm.tirx as tx

        if isinstance(condition, bool):
            return const(condition, "bool")
        if not isinstance(condition, Condition):
            return condition
        result: Expr = None
        for test in condition.tests:
            value = self.expr(test.value)
            zero = const(0, dtype_of(value))
            holds = {"ge": value >= zero, "eq": tx.EQ(value, zero), "ne": tx.NE(value, zero)}
            one = holds[test.relation]
            result = one if result is None else tx.And(result, one)
        return result

    # Memory

    def load(self, slot: int, type: TensorType, index: Index) -> Expr:
        """Operand `slot` at `index`, with its neighbours where they are on."""
        position = flatten(index, type.shape)
        memory = self.io.operands[slot]
        run, where = self._run, self._where
        if run is not None:
            tests = None if where is None else where.tests
            known = self.recall(("loaded", slot, position, tests))
            if known is not None:
                return known
            starts = self._starts_run(position, type, run)
            if starts or where is not None:
                count = run.count if starts else 1
                holds = None if where is None else where.holds
                array = memory.fetch(self.expr(position), count, self.io.alignment, holds)
                memo = self._memo[-1 if where is None else where.level]
                for i in range(count):
                    value = self.wrap(named(array.load(const(i, "int32"))))
                    memo["loaded", slot, position + i, tests] = value
                return memo["loaded", slot, position, tests]
        return self.wrap(named(memory.load(self.expr(position))))

    def _starts_run(self, position: DimLike, type: TensorType, run: Run) -> bool:
        """Whether the elements from here on are neighbours that lie on one boundary."""
        if not divides(run.count, type.size) or not divides(run.count, position):
            return False
        parts = linear(position, run.symbol)
        return parts is not None and parts[1] == run.count

    def write(self, memory: Memory, position: DimLike, value: Expr) -> None:
        """Stores an element."""
        memory.store(self.expr(position), self.lift(value))

    # The Emitter protocol's other half

    def settled(self, node: Node, value: Value, index: Index, result: Expr) -> Expr:
        """Names the result."""
        if isinstance(result, (bool, int, Dim, Condition)):
            return result
        return named(result)

    def wrap(self, value: Expr, low: DimLike | None = None, high: DimLike | None = None) -> Expr:
        """A symbol for an int64 expression."""
        if isinstance(value, (bool, int, Dim, Condition)) or dtype_of(value) != "int64":
            return value
        symbol = self.space.symbol(low, high)
        self.env[symbol.names[0]] = named(value)
        return symbol

    def lift(self, value: Expr) -> Expr:
        """Polynomials and conditions as expressions."""
        if is_index(value):
            return self.wide(value)
        if isinstance(value, (bool, Condition)):
            return self.condition(value)
        return value

    def _constant(self, value: float | int, dtype: DType) -> Expr:
        return const(dtype.numpy.type(value).item(), computed(dtype))

    def _cast(self, value: Expr, dtype: DType) -> Expr:
        return arithmetic.convert(value, dtype)

    def _unary(self, name: str, value: Expr) -> Expr:
        return arithmetic.unary(name, value)

    def _binary(self, name: str, a: Expr, b: Expr) -> Expr:
        return arithmetic.binary(name, a, b)

    def _compare(self, name: str, a: Expr, b: Expr) -> Expr:
        return arithmetic.compare(name, a, b)

    def _select(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        return select(condition, a, b)

    def _branch(self, condition: Expr, a: Callable[[], Expr], otherwise: Expr) -> Expr:
        if self.unrolled and self._run is not None and isinstance(condition, Condition):
            return self._straight(condition, a, otherwise)
        result = Variable(self.lift(otherwise))
        with when(self.condition(condition)), self.scope(), self.together(None):
            if isinstance(condition, Condition):
                with self.space.assuming(condition):
                    result.set(self.lift(a()))
            else:
                result.set(self.lift(a()))
        return named(result.get())

    def _straight(self, condition: Condition, a: Callable[[], Expr], otherwise: Expr) -> Expr:
        """A branch without a jump, so that neighbours share its loads, which read nothing where it is not taken."""
        import tvm.tirx as tx

        # In memory: TVM looks into what names are bound to, and stumbles over casts of large positions.
        before, holds = self._where, Variable(self.condition(condition)).get()
        tests = condition.tests
        if before is None:
            self._where = _Where(tests, holds, len(self._memo) - 1)
        else:
            both = named(tx.And(before.holds, holds))
            self._where = _Where((*before.tests, *tests), both, before.level)
        try:
            with self.scope(), self.space.assuming(condition):
                value = self.lift(a())
        finally:
            self._where = before
        return named(select(holds, value, self.lift(otherwise)))

    def _check(self, value: DimLike, limit: DimLike) -> DimLike:
        """Records a fault for an index out of range, and clamps it.

        What the trace of the body could prove needs no check, however loops were merged since.
        """
        import tvm.tirx as tx

        node, index = self._nodes[-1]
        if node.id not in self._fault_ids:
            return value
        if self.io.fault is None:
            raise ValueError("the body checks an index, but the kernel has no fault record")
        position, last = named(self.wide(value)), named(self.wide(limit - 1))
        zero = i64(0)
        with when(tx.Or(position < zero, position > last)):
            id = self.io.fault_base + i64(self._fault_ids[node.id])
            at = self.wide(flatten(index, node.types[0].shape))
            call("graphc_fault", self.io.fault, id, position, at, self.wide(limit))
        low = select(position < zero, zero, position)
        clamped = self.wrap(select(position > last, last, low), 0, limit - 1)
        assert isinstance(clamped, Dim)
        return clamped

    def _random_bits(self, key: Sequence[Expr], stream: DimLike, position: DimLike) -> Expr:
        return pure("graphc_random_bits", "int32", *key, self.wide(stream), self.wide(position))

    def reduce(
        self,
        kind: str,
        extents: Sequence[DimLike],
        body: Callable[[Sequence[Expr]], Expr],
        dtype: DType,
    ) -> Expr:
        """Loops over the box, one thread or a team."""
        return self.wrap(named(accumulate(self, kind, extents, body, dtype)))


def divides(count: int, value: DimLike) -> bool:
    """Whether every term of an index expression is a multiple of `count`."""
    if isinstance(value, int):
        return value % count == 0
    return all(coefficient % count == 0 for _, coefficient in value.terms)
