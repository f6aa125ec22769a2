"""Index arithmetic of generated loops, as polynomials.

A loop variable, a vector lane and an index read from memory are symbols of a `Dim`, next to the
named dims. The canonical form does what a loop nest needs: row-major positions of split and merged
dimensions cancel to plain strides, strides are read off as coefficients, and bounds are proved by
going to the end of a loop that makes an expression smallest. Nothing here knows TVM.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from graphc.ir.dim import (
    Atom,
    Bounds,
    Dim,
    DimLike,
    Monomial,
    Quotient,
    Symbol,
    floordiv,
    interval,
    names_of,
    product,
    substitute,
)

_FAR = 1 << 62  # stands for "unbounded" where an integer is needed


@dataclass(frozen=True)
class Test:
    """A comparison of index expressions: `value` is at least 0 (`ge`), is 0 (`eq`), is not 0 (`ne`)."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    relation: str
    value: Dim

    def negated(self) -> Test:
        """The test that holds exactly where this one does not."""
        if self.relation == "ge":
            below = -1 - self.value
            assert isinstance(below, Dim)
            return Test("ge", below)
        return Test("ne" if self.relation == "eq" else "eq", self.value)


@dataclass(frozen=True)
class Condition:
    """Tests that must all hold."""

    tests: tuple[Test, ...]

    @property
    def names(self) -> frozenset[str]:
        """All symbols in it."""
        return frozenset(n for t in self.tests for n in t.value.names)


def compare(name: str, a: DimLike, b: DimLike) -> bool | Condition:
    """`a name b` (eq ne lt le gt ge) as a condition, or its truth where no symbol is left."""
    if name in ("lt", "le"):
        return compare("gt" if name == "lt" else "ge", b, a)
    value = a - b - 1 if name == "gt" else a - b
    relation = "ge" if name in ("gt", "ge") else name
    if isinstance(value, int):
        return {"ge": value >= 0, "eq": value == 0, "ne": value != 0}[relation]
    return Condition((Test(relation, value),))


def both(a: bool | Condition, b: bool | Condition) -> bool | Condition:
    """The conjunction of two conditions."""
    if isinstance(a, bool):
        return b if a else False
    if isinstance(b, bool):
        return a if b else False
    return Condition(tuple(dict.fromkeys((*a.tests, *b.tests))))


def _mentions(atom: Atom, name: str) -> bool:
    if isinstance(atom, Symbol):
        return atom.name == name
    return name in names_of(atom.numerator) or name in names_of(atom.denominator)


def _term(mono: Monomial, coefficient: int) -> DimLike:
    return Dim(((mono, coefficient),)) if mono else coefficient


@lru_cache(maxsize=1 << 14)
def linear(value: DimLike, name: str) -> tuple[DimLike, DimLike] | None:
    """`(rest, stride)` with `value == rest + stride * name` and no `name` in either, or None."""
    if isinstance(value, int):
        return value, 0
    rest: DimLike = 0
    stride: DimLike = 0
    for mono, coefficient in value.terms:
        hits = [(atom, power) for atom, power in mono if _mentions(atom, name)]
        if not hits:
            rest = rest + _term(mono, coefficient)
        elif hits == [(Symbol(name), 1)]:
            others = tuple(pair for pair in mono if pair not in hits)
            stride = stride + _term(others, coefficient)
        else:
            return None
    return rest, stride


@lru_cache(maxsize=1 << 14)
def settle(value: DimLike, lane: str, lanes: int) -> DimLike:
    """`value` with the lane taken out of quotients that it cannot change.

    With `16 * i + lane`, `lane < 16`, divided by 768 every lane has the same quotient.
    """
    if lane not in names_of(value):
        return value

    def divide(a: DimLike, b: DimLike) -> DimLike:
        parts = linear(a, lane)
        stride = parts[1] if parts is not None else None
        if not isinstance(b, int) or parts is None or not isinstance(stride, int):
            return floordiv(a, b)
        rest = parts[0]
        terms = rest.terms if isinstance(rest, Dim) else (((), rest),)
        constant = sum(c for mono, c in terms if not mono)
        unit = math.gcd(b, *(c for mono, c in terms if mono))
        ends = (constant % unit, constant % unit + stride * (lanes - 1))
        if stride and min(ends) >= 0 and max(ends) < unit:
            return floordiv(rest, b)
        return floordiv(a, b)

    assert isinstance(value, Dim)
    result: DimLike = value.fold(
        Dim.symbol, lambda c: c, lambda a, b: a + b, lambda a, b: a * b, divide
    )
    return result


def replaced(condition: Condition, env: Mapping[str, DimLike]) -> bool | Condition:
    """A condition with symbols replaced."""
    result: bool | Condition = True
    for test in condition.tests:
        value = substitute(test.value, env)
        result = both(result, compare(test.relation, value, 0))
    return result


def quotients(value: DimLike) -> list[Quotient]:
    """The quotients in a value, not those inside of quotients."""
    if not isinstance(value, Dim):
        return []
    return [atom for mono, _ in value.terms for atom, _ in mono if isinstance(atom, Quotient)]


def flatten(index: Sequence[DimLike], shape: Sequence[DimLike]) -> DimLike:
    """The row-major position of `index` in a dense tensor of `shape`."""
    position: DimLike = 0
    for i, size in zip(index, shape, strict=True):
        position = position * size + i
    return position


def unflatten(position: DimLike, shape: Sequence[DimLike]) -> list[DimLike]:
    """The index in `shape` of a row-major position."""
    index: list[DimLike] = []
    rest = position
    for i in range(len(shape)):
        inner = product(shape[i + 1 :])
        quotient = rest if inner == 1 else floordiv(rest, inner)
        index.append(quotient)
        rest = rest - quotient * inner
    return index


class Space:
    """The symbols of a kernel: named dims, loop variables with their ranges, and what is known of them."""

    def __init__(self, dims: Mapping[str, Bounds]) -> None:
        self.dims = frozenset(dims)
        self._bounds: dict[str, Bounds] = dict(dims)
        self._ranges: dict[str, tuple[DimLike, DimLike]] = {}
        self._facts: list[DimLike] = []
        self._refuted: list[Condition] = []
        self._simplified: dict[tuple[object, ...], DimLike] = {}
        self._bounded: dict[tuple[object, ...], dict[DimLike, float]] = {}
        self._moved()

    def _moved(self) -> None:
        """Turns to the lower bounds that are known for the symbols there are now: most are asked for many times."""
        state = (*self._bounds.items(), *self._ranges.items())
        self._lower = self._bounded.setdefault(state, {})

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Symbols made inside are forgotten at its end, and their names given again.

        What is emitted a thousand times with other loop variables then computes with equal
        polynomials, whose arithmetic is remembered.
        """
        bounds, ranges = len(self._bounds), len(self._ranges)
        try:
            yield
        finally:
            for name in list(self._bounds)[bounds:]:
                del self._bounds[name]
            for name in list(self._ranges)[ranges:]:
                del self._ranges[name]
            self._moved()

    def symbol(self, low: DimLike | None = None, high: DimLike | None = None) -> Dim:
        """A new symbol with `low <= symbol <= high`; None leaves an end open."""
        name = f"%{len(self._bounds)}"
        bottom = -math.inf if low is None else interval(low, self._bounds)[0]
        top = math.inf if high is None else interval(high, self._bounds)[1]
        self._bounds[name] = Bounds(
            -_FAR if math.isinf(bottom) else int(bottom), None if math.isinf(top) else int(top)
        )
        if low is not None and high is not None:
            self._ranges[name] = (low, high)
        self._moved()
        return Dim.symbol(name)

    def extent(self, name: str) -> DimLike:
        """The number of steps of a loop variable that starts at 0. Raises KeyError for other symbols."""
        return self._ranges[name][1] + 1

    def span(self, value: DimLike) -> tuple[DimLike | None, DimLike | None]:
        """Integer bounds of a value; None where there is none."""
        low, high = interval(value, self._bounds)
        return None if math.isinf(low) else int(low), None if math.isinf(high) else int(high)

    def simplified(self, value: DimLike) -> DimLike:
        """`value` without quotients that are certainly 0: what is left of a split loop divided again."""
        if not isinstance(value, Dim) or not quotients(value):
            return value
        if self._facts:
            return self._without_zeros(value)
        key = (value, *(self._ranges.get(name) for name in value.names))
        if key not in self._simplified:
            self._simplified[key] = self._without_zeros(value)
        return self._simplified[key]

    def _without_zeros(self, value: Dim) -> DimLike:
        def divide(a: DimLike, b: DimLike) -> DimLike:
            result = floordiv(a, b)
            if not isinstance(result, Dim):
                return result
            total: DimLike = 0
            for mono, coefficient in result.terms:
                if len(mono) == 1 and isinstance(mono[0][0], Quotient) and mono[0][1] == 1:
                    inner = mono[0][0]
                    if self.proves(inner.numerator) and self.proves(
                        inner.denominator - 1 - inner.numerator
                    ):
                        continue
                total = total + _term(mono, coefficient)
            return total

        result: DimLike = value.fold(
            Dim.symbol, lambda c: c, lambda a, b: a + b, lambda a, b: a * b, divide
        )
        return result

    @contextmanager
    def assuming(self, condition: Condition, truth: bool = True) -> Iterator[None]:
        """Within, `condition` is known to hold, or not to hold."""
        facts, refuted = len(self._facts), len(self._refuted)
        if truth:
            self._learn(condition.tests)
        elif len(condition.tests) == 1:
            self._learn((condition.tests[0].negated(),))
        else:
            self._refuted.append(condition)
        try:
            yield
        finally:
            del self._facts[facts:]
            del self._refuted[refuted:]

    def _learn(self, tests: Sequence[Test]) -> None:
        for test in tests:
            if test.relation in ("ge", "eq"):
                self._facts.append(test.value)
            if test.relation == "eq":
                self._facts.append(-test.value)

    def proves(self, value: DimLike) -> bool:
        """True when `value >= 0` is certain (sound, not complete)."""
        if isinstance(value, int):
            return value >= 0
        if self._least(value) >= 0:
            return True
        return any(
            set(names_of(fact)) & set(value.names) and self._least(value - fact) >= 0
            for fact in self._facts
        )

    def _least(self, value: DimLike) -> float:
        """A lower bound: every loop variable at the end of its range that makes the value smallest."""
        known = self._lower.get(value)
        if known is None:
            known = self._lower[value] = self._bound(value)
        return known

    def _bound(self, value: DimLike) -> float:
        for name in reversed(self._ranges):
            if name in names_of(value):
                parts = linear(value, name)
                if parts is None:
                    continue
                low, high = interval(parts[1], self._bounds)
                if low >= 0 or high <= 0:
                    value = substitute(value, {name: self._ranges[name][0 if low >= 0 else 1]})
        return interval(value, self._bounds)[0]

    def decide(self, condition: bool | Condition) -> bool | None:
        """The truth of a condition where it is certain, else None."""
        if isinstance(condition, bool):
            return condition
        if any(set(known.tests) <= set(condition.tests) for known in self._refuted):
            return False
        verdicts = [self._decide(t) for t in condition.tests]
        if any(v is False for v in verdicts):
            return False
        return True if all(verdicts) else None

    def _decide(self, test: Test) -> bool | None:
        value = test.value
        if test.relation == "ge":
            if self.proves(value):
                return True
            return False if self.proves(-1 - value) else None
        apart = self.proves(value - 1) or self.proves(-1 - value)
        same = not apart and self.proves(value) and self.proves(-value)
        if not apart and not same:
            return None
        return apart if test.relation == "ne" else same
