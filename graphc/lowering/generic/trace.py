"""Watching a body being evaluated: which memory it reads how, which conditions it asks, what it reduces.

A trace runs every op's `compute` on symbolic indices without writing code. Loop nests are chosen by
what it finds: strides of every read along every loop, conditions to split loops at, values that do
not change in an inner loop. No op is known by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from graphc.ir.dim import Dim, DimLike, names_of
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Expr
from graphc.ir.types import TensorType
from graphc.lowering.generic.index import Condition, Space, flatten, linear
from graphc.lowering.generic.inline import Index, Inliner, SymbolicEmitter, is_index
from graphc.ops import ArgSort
from graphc.passes.decompose import decompose

_NO_SLOT = -1  # a stream of random numbers, read like an operand that is in no memory


@dataclass(frozen=True)
class Token:
    """Stands for an expression: its element type and the symbols it depends on."""

    dtype: DType
    depends: frozenset[str]


@dataclass(frozen=True)
class Read:
    """One read of an operand, or of a stream of random numbers, inside the loops of the reductions named by `loops`."""

    slot: int
    position: DimLike
    loops: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """One element of one value was computed, inside `loops`, and if `guarded` in some branch only."""

    node: Node
    value: Value
    index: Index
    depends: frozenset[str]
    loops: tuple[str, ...]
    guarded: bool


@dataclass(frozen=True)
class Reduction:
    """How a reduction reads: what may be merged, and whether its last extent runs along memory.

    Attributes:
        extents: the loops, without those of one step.
        merges: for every extent but the first, whether it and the one before are one loop.
        along: reads in the last extent that are contiguous, or the same for all of it, count as
            good; this is true when the good outnumber the bad.
        strided: reads that are neither, in the last extent.
        heavy: an `expensive` op is computed inside.
        tested: a condition depends on the last extent.
    """

    extents: tuple[DimLike, ...]
    merges: tuple[bool, ...]
    along: bool
    strided: int
    heavy: bool
    tested: bool


@dataclass
class Trace:
    """What was seen.

    `dims` are the named dims, on which nothing depends in the sense meant here; `opaque` gives the
    dependencies of symbols made for values that are no polynomials.
    """

    dims: frozenset[str]
    reads: list[Read] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    reductions: dict[tuple[int, int], Reduction] = field(default_factory=dict)
    opaque: dict[str, frozenset[str]] = field(default_factory=dict)
    as_values: set[str] = field(default_factory=set)
    checked: dict[int, frozenset[str]] = field(default_factory=dict)

    def depends(self, names: Iterable[str]) -> frozenset[str]:
        """The symbols behind names: opaque ones are followed to what they depend on."""
        found: set[str] = set()
        for name in names:
            found |= self.opaque.get(name, {name})
        return frozenset(found - self.dims)

    def stride(self, position: DimLike, name: str) -> DimLike | None:
        """Elements between neighbours along loop `name`; None where there is no fixed distance."""
        for other in names_of(position):
            if name in self.opaque.get(other, ()):
                return None
        parts = linear(position, name)
        return None if parts is None else parts[1]


class TraceEmitter(SymbolicEmitter):
    """Watches; see `Trace`."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.trace = Trace(space.dims)
        self._loops: list[str] = []
        self._guards = 0

    def _token(self, dtype: DType, *sources: Expr) -> Token:
        depends: set[str] = set()
        for source in sources:
            depends |= self.depends(source)
        return Token(dtype, frozenset(depends))

    def depends(self, value: Expr) -> frozenset[str]:
        """The symbols that an expression depends on."""
        if isinstance(value, Token):
            return value.depends
        if isinstance(value, Condition):
            return self.trace.depends(value.names)
        return self.trace.depends(names_of(value)) if isinstance(value, Dim) else frozenset()

    def load(self, slot: int, type: TensorType, index: Index) -> Expr:
        """Notes the read."""
        position = flatten(index, type.shape)
        self.trace.reads.append(Read(slot, position, tuple(self._loops)))
        return self.wrap(Token(type.dtype, self.depends(position)))

    def settled(self, node: Node, value: Value, index: Index, result: Expr) -> Expr:
        """Notes the element."""
        depends = self.depends(result).union(*(self.depends(i) for i in index), frozenset())
        self.trace.events.append(
            Event(node, value, index, depends, tuple(self._loops), self._guards > 0)
        )
        return result

    def wrap(self, value: Expr, low: DimLike | None = None, high: DimLike | None = None) -> Expr:
        """A fresh symbol for an i64 token."""
        if not isinstance(value, Token) or value.dtype is not DType.I64:
            return value
        symbol = self.space.symbol(low, high)
        self.trace.opaque[symbol.names[0]] = value.depends
        return symbol

    def lift(self, value: Expr) -> Expr:
        """An index or condition that is used as a value."""
        if isinstance(value, (bool, Condition)):
            return Token(DType.BOOL, self.depends(value))
        if is_index(value):
            if isinstance(value, Dim):
                self.trace.as_values.update(value.names)
            return Token(DType.I64, self.depends(value))
        return value

    def _constant(self, value: float | int, dtype: DType) -> Expr:
        return Token(dtype, frozenset())

    def _cast(self, value: Expr, dtype: DType) -> Expr:
        return self._token(dtype, value)

    def _unary(self, name: str, value: Expr) -> Expr:
        return self._token(DType.BOOL if name == "isnan" else value.dtype, value)

    def _binary(self, name: str, a: Expr, b: Expr) -> Expr:
        return self._token(a.dtype, a, b)

    def _compare(self, name: str, a: Expr, b: Expr) -> Expr:
        return self._token(DType.BOOL, a, b)

    def _select(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        return self._token(a.dtype, condition, a, b)

    def _branch(self, condition: Expr, a: Callable[[], Expr], otherwise: Expr) -> Expr:
        self._guards += 1
        with self.scope():
            if isinstance(condition, Condition):
                self.trace.conditions.append(condition)
                with self.space.assuming(condition):
                    value = a()
            else:
                value = a()
        self._guards -= 1
        other = self.lift(otherwise)
        return self._token(other.dtype, condition, self.lift(value), other)

    def _check(self, value: DimLike, limit: DimLike) -> DimLike:
        depends = self.depends(value)
        node, op = self._nodes[-1][0].id, self._nodes[-1][0].op
        assert op.checked, f"{op.name} checks an index and does not say so"
        self.trace.checked[node] = self.trace.checked.get(node, depends) | depends
        symbol = self.space.symbol(0, limit - 1)
        self.trace.opaque[symbol.names[0]] = depends
        return symbol

    def _random_bits(self, key: Sequence[Expr], stream: DimLike, position: DimLike) -> Expr:
        """Like a read of a dense operand: the best loops are the same."""
        self.trace.reads.append(Read(_NO_SLOT, position, tuple(self._loops)))
        return self._token(DType.I32, position, *key)

    def reduce(
        self,
        kind: str,
        extents: Sequence[DimLike],
        body: Callable[[Sequence[Expr]], Expr],
        dtype: DType,
    ) -> Expr:
        """Goes through the body once, at symbolic positions."""
        key = self._reduction_key()
        trace = self.trace
        before = len(trace.reads), len(trace.events), len(trace.conditions)
        k = [0 if e == 1 else self.space.symbol(0, e - 1) for e in extents]
        symbols = tuple(s.names[0] for s in k if isinstance(s, Dim))
        sizes = [e for e in extents if e != 1]
        self._loops += symbols
        with self.scope():
            value = self.lift(body(k))
        del self._loops[len(self._loops) - len(symbols) :]
        if key not in trace.reductions:
            trace.reductions[key] = _reduction(trace, symbols, sizes, *before)
        return self.wrap(Token(dtype, value.depends - set(symbols)))


def _reduction(
    trace: Trace,
    symbols: tuple[str, ...],
    sizes: Sequence[DimLike],
    reads: int,
    events: int,
    conditions: int,
) -> Reduction:
    """Sums up what was seen in a reduction, from these positions of the trace on."""
    tested = {n for c in trace.conditions[conditions:] for n in trace.depends(c.names)}
    inside = trace.reads[reads:]
    good = bad = 0
    for read in inside:
        stride = trace.stride(read.position, symbols[-1]) if symbols else 0
        if stride == 1:
            good += 1
        elif stride != 0:
            bad += 1
    merges = tuple(
        mergeable(trace, inside, a, b, size) and not {a, b} & tested
        for a, b, size in zip(symbols, symbols[1:], sizes[1:], strict=False)
    )
    heavy = any(e.node.op.expensive for e in trace.events[events:])
    last = symbols[-1] if symbols else ""
    return Reduction(tuple(sizes), merges, good >= bad, bad, heavy, last in tested)


def mergeable(trace: Trace, reads: Iterable[Read], a: str, b: str, size: DimLike) -> bool:
    """True when loops `a` and `b` (of `size` steps) can be one: every read sees a dense pair."""
    if {a, b} & trace.as_values:
        return False
    for read in reads:
        outer, inner = trace.stride(read.position, a), trace.stride(read.position, b)
        if outer is None or inner is None or outer != inner * size:
            return False
    return True


def watch(
    body: Graph, space: Space, outputs: Sequence[Value], index: Sequence[DimLike]
) -> tuple[Trace, TraceEmitter]:
    """Traces the evaluation of `outputs`, all of one shape, at `index`."""
    emitter = TraceEmitter(space)
    inliner = Inliner(body, emitter)
    for value in outputs:
        emitter.lift(inliner.at(value, index))
    return emitter.trace, emitter


def expanded(body: Graph) -> Graph:
    """The body in primitives and elementwise ops: what can be computed element by element."""
    return decompose(body, lambda op, types: False)


def checked_nodes(body: Graph) -> tuple[Node, ...]:
    """The nodes (in primitives) whose kernels check an index, in order: their fault ids count up."""
    body = expanded(body)
    if not any(node.op.checked for node in body.nodes):
        return ()
    found: set[int] = set()
    for _, value in body.outputs:
        shape = body.type_of(value).shape
        if isinstance(body.node(value.node).op, ArgSort):  # its kernel checks nothing
            continue
        if 0 not in shape:
            space = Space(body.dims)
            index = [space.symbol(0, d - 1) if d != 1 else 0 for d in shape]
            found |= watch(body, space, [value], index)[0].checked.keys()
    return tuple(body.node(i) for i in sorted(found))
