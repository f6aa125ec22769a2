"""The emitter that writes code: ops' `compute` as TIR expressions, scalar or vector.

A vector runs along one loop of the nest: inside `vector(lanes)` an index that contains the lane's
symbol yields `lanes` elements at once, and everything that does not depend on it stays scalar and
is computed once. Memory along the lane is read as one vector where it is contiguous, as one scalar
where it stays put, and element by element otherwise.

Longer than most: lanes, index expressions, memory and branches share the state of one emitter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.ir.dim import Dim, DimLike, names_of, substitute
from graphc.ir.dim import Symbol as DimSymbol
from graphc.ir.dtype import DType
from graphc.ir.graph import Node, Value
from graphc.ir.op import Expr
from graphc.ir.types import TensorType
from graphc.lowering.cpu import arithmetic
from graphc.lowering.cpu.arithmetic import named
from graphc.lowering.cpu.bfloat import narrowed, rounded, widened
from graphc.lowering.cpu.cell import Cell, Kept
from graphc.lowering.cpu.emit import (
    View,
    cast,
    const,
    dtype_of,
    i64,
    lanes_of,
    select,
    splat,
    stored,
    when,
)
from graphc.lowering.cpu.features import CpuTarget
from graphc.lowering.cpu.generic.accumulate import Accumulation, halves
from graphc.lowering.cpu.generic.random import random_bits
from graphc.lowering.cpu.io import KernelIO
from graphc.lowering.generic.index import Condition, Space, Test, flatten, linear, settle
from graphc.lowering.generic.inline import Index, SymbolicEmitter, is_index
from graphc.lowering.generic.trace import Reduction


class TirEmitter(SymbolicEmitter):
    """Writes into the kernel frame that is open.

    Attributes:
        lanes: elements that an expression along the vector loop has; 1 outside of `vector`.
        env: symbol -> TIR expression; the lane's symbol is a ramp.
        kept: values that passes over a row leave in memory for one another.
        alone: whether a reduction may open a parallel loop, there being none around it.
    """

    def __init__(
        self,
        space: Space,
        io: KernelIO,
        target: CpuTarget,
        *,
        reductions: Mapping[tuple[int, int], Reduction] | None = None,
        fault_ids: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(space)
        self.io, self.target = io, target
        self.env: dict[str, Expr] = dict(io.dims)
        self.lanes = 1
        self.kept: dict[Value, Kept] = {}
        self.alone = False
        self._reduction_traces = dict(reductions or {})
        self._fault_ids = dict(fault_ids or {})
        self._lane: str | None = None
        self._picked: Expr | None = None  # the lane that is computed alone

    # Loops and lanes

    def bound(self, expression: Expr | int, low: DimLike, high: DimLike) -> DimLike:
        """An index expression for a TIR one that lies between two bounds."""
        if isinstance(expression, int):
            return expression
        symbol = self.space.symbol(low, high)
        self.env[symbol.names[0]] = expression
        return symbol

    @contextmanager
    def serial(self, extent: DimLike) -> Iterator[DimLike]:
        """A loop; its body is a scope. One step is no loop."""
        from tvm.script.ir_builder import tirx as t

        if extent == 1:
            with self.scope():
                yield 0
            return
        with t.serial(i64(0), self.expr(extent)) as variable, self.scope():
            yield self.bound(variable, 0, extent - 1)

    @contextmanager
    def vector(self, lanes: int) -> Iterator[DimLike]:
        """A stretch of `lanes` elements computed at once; yields the index of an element in it."""
        from tvm.script.ir_builder import tirx as t

        if lanes == 1:
            with self.scope():
                yield 0
            return
        if self.lanes != 1:
            raise ValueError("vectors do not nest")
        lane = self.space.symbol(0, lanes - 1)
        (self._lane,) = lane.names
        self.lanes = lanes
        self.env[self._lane] = t.ramp(i64(0), i64(1), lanes)
        try:
            with self.scope():
                yield lane
        finally:
            self.lanes, self._lane = 1, None

    def sweep(
        self,
        start: DimLike,
        extent: DimLike,
        widths: Sequence[int],
        body: Callable[[DimLike, int], None],
    ) -> None:
        """Covers `extent` elements from `start` on by vectors: `body(index, lanes)` emits one."""
        for first, width in self.stretches(start, extent, widths):
            with self.vector(width) as lane:
                body(first + lane, width)

    def stretches(
        self, start: DimLike, extent: DimLike, widths: Sequence[int]
    ) -> Iterator[tuple[DimLike, int]]:
        """Cuts a loop into stretches of known width: yields each one's first index, inside its loop.

        `widths` fall; as many of each as fit are taken in turn, and the last one must divide what
        the others leave. Nothing beyond the extent is touched.
        """
        done: DimLike = 0
        for width in widths:
            count = (extent - done) // width
            if count == 0:
                continue
            with self.serial(count) as i, self._within(extent - done - i * width - width):
                yield start + done + i * width, width
            done = done + count * width

    @contextmanager
    def _within(self, room: DimLike) -> Iterator[None]:
        """Notes that what is computed inside leaves `room` elements, at least none."""
        if isinstance(room, int):
            yield
            return
        with self.space.assuming(Condition((Test("ge", room),))):
            yield

    @contextmanager
    def _each_lane(self) -> Iterator[Expr]:
        """A loop over the lanes, inside which everything is scalar."""
        from tvm.script.ir_builder import tirx as t

        assert self._lane is not None
        lanes, ramp = self.lanes, self.env[self._lane]
        with t.serial(i64(0), i64(lanes)) as k, self.scope():
            self.lanes, self.env[self._lane], self._picked = 1, k, k
            try:
                yield k
            finally:
                self.lanes, self.env[self._lane], self._picked = lanes, ramp, None

    @property
    def lane_name(self) -> str | None:
        """The symbol of the element of the current vector; None outside of `vector`."""
        return self._lane

    @property
    def lane(self) -> DimLike:
        """The element of the current vector, as an index; 0 outside of `vector`."""
        return 0 if self._lane is None else Dim.symbol(self._lane)

    def _usable(self, result: Expr) -> bool:
        if self._picked is None or isinstance(result, (bool, int, Dim, Condition)):
            return True
        return lanes_of(result) == 1

    def _scalar(self, value: Expr) -> Expr:
        """A vector's element in the lane that is computed alone."""
        if self._picked is None or lanes_of(value) == 1:
            return value
        cell = Cell(lanes_of(value), dtype_of(value))
        cell.set(value)
        return named(cell.get_lane(self._picked))

    # Index expressions

    def varies(self, value: DimLike) -> bool:
        """Whether an index expression differs from lane to lane."""
        return any(lanes_of(self._symbol(name)) > 1 for name in names_of(value))

    def _symbol(self, name: str) -> Expr:
        return self._scalar(self.env[name])

    def expr(self, value: DimLike) -> Expr:
        """An index expression as int64 TIR: a vector where it varies."""
        if isinstance(value, int):
            return i64(value)
        if self._lane is not None and self.lanes > 1:
            value = settle(value, self._lane, self.lanes)
            if isinstance(value, int):
                return i64(value)
        total: Expr = None
        for mono, coefficient in value.terms:
            term: Expr = None
            for atom, power in mono:
                factor = (
                    self._symbol(atom.name)
                    if isinstance(atom, DimSymbol)
                    else self._quotient(atom.numerator, atom.denominator)
                )
                for _ in range(power):
                    term = factor if term is None else term * factor
            if term is None:
                term = i64(coefficient)
            elif coefficient != 1:
                term = term * i64(coefficient)
            total = term if total is None else total + term
        return total

    def _quotient(self, a: DimLike, b: DimLike) -> Expr:
        from tvm.script.ir_builder import tirx as t

        numerator, denominator = arithmetic.same_lanes(self.expr(a), self.expr(b))
        if self.space.proves(a):
            return t.truncdiv(numerator, denominator)
        # b > 0: towards minus infinity is one below where something is cut off below zero.
        numerator, denominator = named(numerator), named(denominator)
        quotient = named(t.truncdiv(numerator, denominator))
        one = const(1, "int64", lanes_of(quotient))
        return named(select(quotient * denominator > numerator, quotient - one, quotient))

    def condition(self, condition: Expr) -> Expr:
        """A condition as a TIR boolean: a vector where it varies."""
        import tvm.tirx as tx

        if isinstance(condition, bool):
            return const(condition, "bool")
        if not isinstance(condition, Condition):
            return self._scalar(condition)
        result: Expr = None
        for test in condition.tests:
            value = self.expr(test.value)
            zero = const(0, "int64", lanes_of(value))
            holds = {"ge": value >= zero, "eq": tx.EQ(value, zero), "ne": tx.NE(value, zero)}
            one = holds[test.relation]
            result = one if result is None else tx.And(*arithmetic.same_lanes(result, one))
        return result

    # Memory

    def load(self, slot: int, type: TensorType, index: Index) -> Expr:
        """Operand `slot` at `index`: vector load, scalar load or gather, by its stride along the lane."""
        return self.wrap(self.read(self.io.operands[slot], flatten(index, type.shape)))

    def read(self, view: View, position: DimLike) -> Expr:
        """The element (or elements) of a dense buffer at a position."""
        value = view.buffer[self._address(view, position)]
        if view.dtype == "bool":
            value = arithmetic.nonzero(value)
        elif view.dtype == "bfloat16":
            value = widened(value)
        return named(value)

    def write(self, view: View, position: DimLike, value: Expr) -> None:
        """Stores all lanes of a value from a position on, along the lane's stride."""
        from tvm.script.ir_builder import tirx as t

        address = self._address(view, position)
        value = splat(self.lift(value), lanes_of(address))
        if view.dtype == "bool":
            value = cast(value, "uint8")
        elif view.dtype == "bfloat16":
            value = narrowed(value)
        t.buffer_store(view.buffer, value, [address])

    def _address(self, view: View, position: DimLike) -> Expr:
        from tvm.script.ir_builder import tirx as t

        offset = i64(view.offset)
        if self._lane is None or self.lanes == 1:
            return self.expr(position) + offset
        position = settle(position, self._lane, self.lanes)
        parts = linear(position, self._lane)
        if parts is not None and not self.varies(parts[0]) and not self.varies(parts[1]):
            rest, stride = parts
            if stride == 0:
                return self.expr(rest) + offset
            return t.ramp(self.expr(rest) + offset, self.expr(stride), self.lanes)
        return self.expr(position) + offset

    # The Emitter protocol's other half

    def settled(self, node: Node, value: Value, index: Index, result: Expr) -> Expr:
        """Names the result, and keeps or takes it where a pass over a row stores it for the next."""
        if isinstance(result, (bool, int, Dim, Condition)):
            return result
        result = named(result)
        kept = self.kept.get(value)
        if kept is not None and not kept.complete:
            self.write(kept.view, flatten(index, node.types[value.result].shape), result)
            kept.started = True
        return result

    def recall(self, key: Any) -> Expr | None:
        """Also what an earlier pass over the row has stored."""
        found = super().recall(key)
        if found is None and self.kept and isinstance(key[0], Value):
            kept = self.kept.get(key[0])
            if kept is not None and kept.complete:
                found = self.read(kept.view, flatten(key[1], kept.shape))
                self.remember(key, found)
        return found

    def wrap(self, value: Expr, low: DimLike | None = None, high: DimLike | None = None) -> Expr:
        """A symbol for an int64 expression.

        By way of memory: names of integers TVM would substitute into one another, limit into limit, without end.
        """
        if isinstance(value, (bool, int, Dim, Condition)) or dtype_of(value) != "int64":
            return value
        symbol = self.space.symbol(low, high)
        self.env[symbol.names[0]] = stored(value)
        return symbol

    def lift(self, value: Expr) -> Expr:
        """Polynomials and conditions as expressions; a single lane where one is computed alone."""
        if is_index(value):
            return self.expr(value)
        if isinstance(value, (bool, Condition)):
            return self.condition(value)
        return self._scalar(value)

    def _constant(self, value: float | int, dtype: DType) -> Expr:
        return const(dtype.numpy.type(value).item(), arithmetic.tir_name(dtype))

    def _cast(self, value: Expr, dtype: DType) -> Expr:
        if dtype is DType.BF16:
            return rounded(arithmetic.convert(value, DType.F32), self.target)
        return arithmetic.convert(value, dtype)

    def _unary(self, name: str, value: Expr) -> Expr:
        return arithmetic.unary(name, value)

    def _binary(self, name: str, a: Expr, b: Expr) -> Expr:
        return arithmetic.binary(name, a, b)

    def _compare(self, name: str, a: Expr, b: Expr) -> Expr:
        return arithmetic.compare(name, a, b)

    def _select(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        return arithmetic.choose(condition, a, b)

    def _branch(self, condition: Expr, a: Callable[[], Expr], otherwise: Expr) -> Expr:
        """A real branch; lane by lane where the condition differs and does not hold for all lanes."""
        from tvm.script.ir_builder import tirx as t

        other = self.lift(otherwise)
        result = Cell(self.lanes, dtype_of(other))
        result.set(other)
        test = named(self.condition(condition))
        if lanes_of(test) == 1:
            with when(test):
                self._taken(condition, a, result)
            return named(result.get())
        every = named(self._for_all(test))
        with t.If(every):
            with t.Then():
                self._taken(condition, a, result)
            with t.Else(), self._each_lane() as k, when(self.condition(condition)):
                result.set_lane(k, self._assumed(condition, a))
        return named(result.get())

    def _taken(self, condition: Expr, a: Callable[[], Expr], result: Cell) -> None:
        with self.scope():
            result.set(self._assumed(condition, a))

    def _assumed(self, condition: Expr, a: Callable[[], Expr]) -> Expr:
        if isinstance(condition, Condition):
            with self.space.assuming(condition):
                return self.lift(a())
        return self.lift(a())

    def _for_all(self, test: Expr) -> Expr:
        """Whether a boolean vector holds in every lane."""
        ones = arithmetic.as_int(test)
        while lanes_of(ones) > 1:
            low, high = halves(ones)
            ones = low & high
        return arithmetic.nonzero(ones)

    def _check(self, value: DimLike, limit: DimLike) -> DimLike:
        """Records a fault for an index out of range, and clamps it.

        What the trace of the body could prove needs no check, however loops were merged since.
        """
        if self._nodes[-1][0].id not in self._fault_ids:
            return value
        position = named(self.expr(value))
        lanes = lanes_of(position)
        last = splat(self.expr(limit - 1), lanes)
        zero = const(0, "int64", lanes)
        outside = arithmetic.binary("or", position < zero, position > last)
        if lanes == 1:
            self._fault(outside, value, limit)
        else:
            any_outside = arithmetic.unary("not", self._for_all(arithmetic.unary("not", outside)))
            with when(any_outside), self._each_lane():
                at = self.expr(value)
                wrong = arithmetic.binary("or", at < i64(0), at > self.expr(limit - 1))
                self._fault(wrong, value, limit)
        low = named(select(position > last, last, position))
        clamped = self.wrap(select(low < zero, zero, low), 0, limit - 1)
        assert isinstance(clamped, Dim)
        return clamped

    def _fault(self, wrong: Expr, value: DimLike, limit: DimLike) -> None:
        """Stores id + 1, value, position and limit in the fault slot unless it is taken."""
        import tvm.tirx as tx

        slot = self.io.fault
        if slot is None:
            raise ValueError("the body checks an index, but the kernel has no fault slot")
        node, index = self._nodes[-1]
        id = self._fault_ids[node.id]
        with when(wrong), when(tx.EQ(slot.load((0,)), i64(0))):
            position = flatten(index, node.types[0].shape)
            if (
                self._lane is not None and self.lanes > 1
            ):  # one index for all of a vector: its first element
                position = substitute(position, {self._lane: 0})
            for word, content in enumerate((value, position, limit), 1):
                stored = self.expr(content)
                assert lanes_of(stored) == 1, "the fault record has room for one position"
                slot.store(stored, (word,))
            slot.store(i64(self.io.fault_base) + i64(id + 1), (0,))

    def _random_bits(self, key: Sequence[Expr], stream: DimLike, position: DimLike) -> Expr:
        return random_bits(self, key, stream, position)

    def reduce(
        self,
        kind: str,
        extents: Sequence[DimLike],
        body: Callable[[Sequence[Expr]], Expr],
        dtype: DType,
    ) -> Expr:
        """Loops over the box, vectorised along its last extent where that runs along memory."""
        seen = self._reduction_traces.get(self._reduction_key())
        return self.wrap(named(Accumulation(self, kind, dtype, seen).run(extents, body)))
