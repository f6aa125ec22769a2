"""Evaluating a fusion's body at an index.

`Inliner.at(value, index)` pulls an element (or a vector of them) of any value of a body out of the
operands' memory, through the ops' own `compute`. The index is a polynomial (see `index.py`); what an
expression is, the emitter decides: `trace.TraceEmitter` only watches, `expr.TirEmitter` writes code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.ir.dim import Dim, DimLike, floordiv
from graphc.ir.dtype import DType
from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import Expr
from graphc.ir.types import TensorType
from graphc.lowering.generic import index as ix
from graphc.lowering.generic.index import Condition, Space

_MAX_TERMS = 16  # an index polynomial larger than this is computed once and named

Index = tuple[DimLike, ...]
Span = tuple["DimLike | None", "DimLike | None"]


def is_index(value: Expr) -> bool:
    """True for a polynomial or an integer: what every i64 expression of an emitter is."""
    return isinstance(value, (int, Dim)) and not isinstance(value, bool)


class SymbolicEmitter(ABC):
    """The half of an emitter that is the same for watching and for writing code: index arithmetic.

    Every i64 expression is an index expression: a polynomial, with a fresh symbol for what is not
    one (read from memory, computed by a function). Comparisons of index expressions are
    `Condition`s, which `guarded` and `select` decide where they can. All else goes to the methods
    with an underscore.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._memo: list[dict[Hashable, Expr]] = [{}]
        self._nodes: list[tuple[Node, Index]] = []
        self._reductions: list[int] = []

    # What has been computed

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Values computed inside are forgotten at its end: their code sits in a loop or a branch."""
        self._memo.append({})
        try:
            yield
        finally:
            self._memo.pop()

    def recall(self, key: Hashable) -> Expr | None:
        """What was computed under this key in this scope or around it."""
        for memo in reversed(self._memo):
            found = memo.get(key)
            if found is not None and self._usable(found):
                return found
        return None

    def remember(self, key: Hashable, result: Expr) -> None:
        """Notes a result for `recall`."""
        self._memo[-1][key] = result

    @contextmanager
    def evaluating(self, node: Node, index: Index) -> Iterator[None]:
        """Around the `compute` of a node."""
        self._nodes.append((node, index))
        self._reductions.append(0)
        try:
            yield
        finally:
            self._nodes.pop()
            self._reductions.pop()

    def _reduction_key(self) -> tuple[int, int]:
        """Names the reduction that is asked for now: the node, and which of its reductions."""
        self._reductions[-1] += 1
        return self._nodes[-1][0].id, self._reductions[-1] - 1

    def _usable(self, result: Expr) -> bool:
        return True

    # The Emitter protocol

    def constant(self, value: float | int | bool, dtype: DType) -> Expr:
        """A literal."""
        if dtype is DType.I64:
            return int(value)
        return bool(value) if dtype is DType.BOOL else self._constant(value, dtype)

    def dim(self, dim: DimLike) -> Expr:
        """A dimension is an index expression as it stands."""
        return dim

    def cast(self, value: Expr, dtype: DType) -> Expr:
        """See `Emitter.cast`."""
        if dtype is DType.I64 and is_index(value):
            return value
        if dtype is DType.BOOL and isinstance(value, (bool, Condition)):
            return value
        return self.wrap(self._cast(self.lift(value), dtype))

    def unary(self, name: str, value: Expr) -> Expr:
        """See `Emitter.unary`."""
        if name == "neg" and is_index(value):
            return value * -1
        if name == "not" and isinstance(value, bool):
            return not value
        if name == "not" and isinstance(value, Condition) and len(value.tests) == 1:
            return Condition((value.tests[0].negated(),))
        return self.wrap(self._unary(name, self.lift(value)))

    def binary(self, name: str, a: Expr, b: Expr) -> Expr:
        """See `Emitter.binary`."""
        if is_index(a) and is_index(b):
            exact = self._exact(name, a, b)
            if exact is not None:
                return exact
        if isinstance(a, (bool, Condition)) and isinstance(b, (bool, Condition)) and name == "and":
            return ix.both(a, b)
        result = self._binary(name, self.lift(a), self.lift(b))
        if name in ("max", "min") and is_index(a) and is_index(b):
            return self.wrap(result, *self._extreme_span(name, a, b))
        return self.wrap(result)

    def _extreme_span(self, name: str, a: DimLike, b: DimLike) -> Span:
        """Bounds of the larger or smaller of two index expressions."""
        one, two = self.space.span(a), self.space.span(b)
        known = [[x for x in ends if isinstance(x, int)] for ends in zip(one, two, strict=True)]
        better, worse = (0, 1) if name == "max" else (1, 0)
        pick = max if name == "max" else min
        ends: list[DimLike | None] = [None, None]
        ends[better] = pick(known[better]) if known[better] else None
        ends[worse] = pick(known[worse]) if len(known[worse]) == 2 else None
        return ends[0], ends[1]

    def _exact(self, name: str, a: DimLike, b: DimLike) -> DimLike | None:
        """The result as a polynomial, where it is a small one."""
        result: DimLike
        if name in ("max", "min"):
            for x, y in ((a, b), (b, a)):
                if self.space.proves(x - y):
                    return x if name == "max" else y
            return None
        if name in ("floordiv", "mod"):
            if not self.space.proves(b - 1):
                return None
            quotient = floordiv(a, b)
            result = quotient if name == "floordiv" else a - quotient * b
        elif name in ("add", "sub", "mul"):
            result = a + b if name == "add" else a - b if name == "sub" else a * b
        else:
            return None
        return None if isinstance(result, Dim) and len(result.terms) > _MAX_TERMS else result

    def compare(self, name: str, a: Expr, b: Expr) -> Expr:
        """See `Emitter.compare`."""
        if is_index(a) and is_index(b):
            return ix.compare(name, a, b)
        return self._compare(name, self.lift(a), self.lift(b))

    def select(self, condition: Expr, a: Expr, b: Expr) -> Expr:
        """See `Emitter.select`."""
        if isinstance(condition, (bool, Condition)):
            truth = self.space.decide(condition)
            if truth is not None:
                return a if truth else b
        return self.wrap(self._select(self.lift(condition), self.lift(a), self.lift(b)))

    def guarded(self, condition: Expr, a: Callable[[], Expr], otherwise: Expr) -> Expr:
        """See `Emitter.guarded`."""
        if isinstance(condition, (bool, Condition)):
            truth = self.space.decide(condition)
            if truth is not None:
                return a() if truth else otherwise
        return self.wrap(self._branch(condition, a, otherwise))

    def checked_index(self, value: Expr, limit: DimLike) -> Expr:
        """See `Emitter.checked_index`."""
        position = value if is_index(value) else self.cast(value, DType.I64)
        if self.space.proves(position) and self.space.proves(limit - 1 - position):
            return position
        key = ("checked", position, limit)
        known = self.recall(key)
        if known is None:
            known = self._check(position, limit)
            self.remember(key, known)
        return known

    def random_bits(self, key: tuple[Expr, Expr], stream: DimLike, position: Expr) -> Expr:
        """See `Emitter.random_bits`."""
        return self._random_bits([self.lift(half) for half in key], stream, position)

    @abstractmethod
    def reduce(
        self,
        kind: str,
        extents: Sequence[DimLike],
        body: Callable[[Sequence[Expr]], Expr],
        dtype: DType,
    ) -> Expr:
        """See `Emitter.reduce`."""

    # For the emitter at work

    @abstractmethod
    def load(self, slot: int, type: TensorType, index: Index) -> Expr:
        """Operand `slot` of the kernel at `index`."""

    @abstractmethod
    def settled(self, node: Node, value: Value, index: Index, result: Expr) -> Expr:
        """Called with every element computed; returns it in a form that is cheap to use twice."""

    @abstractmethod
    def wrap(self, value: Expr, low: DimLike | None = None, high: DimLike | None = None) -> Expr:
        """An i64 result, between bounds that are known, as a polynomial; others as they are."""

    @abstractmethod
    def lift(self, value: Expr) -> Expr:
        """A polynomial, condition or Python bool as an expression; others as they are."""

    @abstractmethod
    def _constant(self, value: float | int, dtype: DType) -> Expr: ...

    @abstractmethod
    def _cast(self, value: Expr, dtype: DType) -> Expr: ...

    @abstractmethod
    def _unary(self, name: str, value: Expr) -> Expr: ...

    @abstractmethod
    def _binary(self, name: str, a: Expr, b: Expr) -> Expr: ...

    @abstractmethod
    def _compare(self, name: str, a: Expr, b: Expr) -> Expr: ...

    @abstractmethod
    def _select(self, condition: Expr, a: Expr, b: Expr) -> Expr: ...

    @abstractmethod
    def _branch(self, condition: Expr, a: Callable[[], Expr], otherwise: Expr) -> Expr: ...

    @abstractmethod
    def _check(self, value: DimLike, limit: DimLike) -> DimLike: ...

    @abstractmethod
    def _random_bits(self, key: Sequence[Expr], stream: DimLike, position: DimLike) -> Expr: ...


class Inliner:
    """Elements of the values of a body.

    Attributes:
        given: values that are not to be computed but are known at one index: a root's accumulator.
    """

    def __init__(self, body: Graph, emitter: SymbolicEmitter) -> None:
        self.body, self.emitter = body, emitter
        self.given: dict[Value, tuple[Index, Expr]] = {}
        self._slots = {node.id: slot for slot, node in enumerate(body.inputs)}

    def give(self, value: Value, index: Sequence[DimLike], result: Expr) -> None:
        """Notes that `value` is `result` at `index`: the only one it will be asked for at."""
        self.given[value] = tuple(self.emitter.space.simplified(i) for i in index), result

    def at(self, value: Value, index: Sequence[Any]) -> Expr:
        """The element of `value` at `index`; a vector where the index contains the emitter's lane.

        Raises ValueError for a given value at another index than the one it is known at.
        """
        e = self.emitter
        where: Index = tuple(e.space.simplified(i) for i in index)
        known = e.recall((value, where))
        if known is not None:
            return known
        if value in self.given:
            at, result = self.given[value]
            if at != where:
                raise ValueError(f"{value} is known at {at} only, and was asked for at {where}")
            return result
        node = self.body.node(value.node)
        with e.evaluating(node, where):
            if node.id in self._slots:
                result = e.load(self._slots[node.id], node.types[0], where)
            else:
                types = [self.body.type_of(v) for v in node.operands]
                result = node.op.compute(
                    e, types, where, lambda slot, i: self.at(node.operands[slot], i)
                )
        result = e.settled(node, value, where, result)
        e.remember((value, where), result)
        return result
