"""Dimensions: integers, or canonical integer polynomials over named dims such as `N` and `T`.

A `Dim` is never constant: arithmetic that cancels every name returns an `int`, so
`DimLike = int | Dim` is the type of a dimension everywhere and equal dims compare equal. Floor
division that does not come out even is an atom of its own (`(H + 1) // 2`), itself in a normal
form; the remainder is written with it (`a - a // b * b`). A named dim is at least 1 unless its
`Bounds` say otherwise. Nothing here knows tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Bounds:
    """Inclusive bounds of a named dim; `high=None` means unbounded above."""

    low: int = 1
    high: int | None = None


@dataclass(frozen=True)
class Symbol:
    """A named dim."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Quotient:
    """`numerator // denominator` where the division is not exact; canonical by construction."""

    numerator: Dim
    denominator: DimLike

    def __str__(self) -> str:
        num, den = (str(d) for d in (self.numerator, self.denominator))
        return " // ".join(t if t.isidentifier() or t.isdigit() else f"({t})" for t in (num, den))


Atom = Symbol | Quotient
Monomial = tuple[tuple[Atom, int], ...]  # atoms with positive powers, sorted by text
Interval = tuple[float, float]


@dataclass(frozen=True)
class Dim:
    """A non-constant integer polynomial: a sorted sum of (monomial, coefficient) terms."""

    terms: tuple[tuple[Monomial, int], ...]

    @staticmethod
    def symbol(name: str) -> Dim:
        """The dim called `name`."""
        return Dim(((((Symbol(name), 1),), 1),))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The named dims in it, sorted."""
        found: set[str] = set()
        for mono, _ in self.terms:
            for atom, _ in mono:
                if isinstance(atom, Symbol):
                    found.add(atom.name)
                else:
                    found.update(names_of(atom.numerator), names_of(atom.denominator))
        return tuple(sorted(found))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    def __add__(self, other: DimLike) -> DimLike:
        return _sum(self, other)

    __radd__ = __add__

    def __neg__(self) -> DimLike:
        return self * -1

    def __sub__(self, other: DimLike) -> DimLike:
        return self + other * -1

    def __rsub__(self, other: DimLike) -> DimLike:
        return self * -1 + other

    def __mul__(self, other: DimLike) -> DimLike:
        return _product(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: DimLike) -> DimLike:
        return floordiv(self, other)

    def __rfloordiv__(self, other: DimLike) -> DimLike:
        return floordiv(other, self)

    def __mod__(self, other: DimLike) -> DimLike:
        return self - floordiv(self, other) * other

    def __rmod__(self, other: DimLike) -> DimLike:
        return other - floordiv(other, self) * self

    def __str__(self) -> str:
        parts: list[str] = []
        for mono, coef in self.terms:
            factors = [
                f"({a})"
                if isinstance(a, Quotient)
                and (len(mono) > 1 or coef != 1 or p > 1 or len(self.terms) > 1)
                else str(a)
                for a, p in mono
                for _ in range(p)
            ]
            if abs(coef) != 1 or not factors:
                factors.insert(0, str(abs(coef)))
            parts.append(("- " if coef < 0 else "+ ") + "*".join(factors))
        text = " ".join(parts)
        return text[2:] if text.startswith("+ ") else "-" + text[2:]

    def __repr__(self) -> str:
        return f"Dim({self})"

    def fold(
        self,
        symbol: Callable[[str], T],
        constant: Callable[[int], T],
        add: Callable[[T, T], T],
        multiply: Callable[[T, T], T],
        floor_divide: Callable[[T, T], T],
    ) -> T:
        """Rebuilds the polynomial in another arithmetic (Python ints, C text, TIR expressions)."""

        def of(dim: DimLike) -> T:
            return (
                constant(dim)
                if isinstance(dim, int)
                else dim.fold(symbol, constant, add, multiply, floor_divide)
            )

        total: T | None = None
        for mono, coef in self.terms:
            factors = [
                symbol(a.name)
                if isinstance(a, Symbol)
                else floor_divide(of(a.numerator), of(a.denominator))
                for a, p in mono
                for _ in range(p)
            ]
            if coef != 1 or not factors:
                factors.append(constant(coef))
            product = factors[0]
            for factor in factors[1:]:
                product = multiply(product, factor)
            total = product if total is None else add(total, product)
        assert total is not None
        return total


DimLike = int | Dim
Shape = tuple[DimLike, ...]


def _key(mono: Monomial) -> tuple[int, str]:
    """Higher degrees first, then by text; the constant term comes last."""
    return (-sum(p for _, p in mono), "*".join(f"{a}^{p}" for a, p in mono))


def _terms(dim: DimLike) -> tuple[tuple[Monomial, int], ...]:
    return dim.terms if isinstance(dim, Dim) else (((), dim),)


def _times(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for atom, p in b:
        powers[atom] = powers.get(atom, 0) + p
    return tuple(sorted(powers.items(), key=lambda item: str(item[0])))


def _collect(terms: Iterable[tuple[Monomial, int]]) -> DimLike:
    total: dict[Monomial, int] = {}
    for mono, coef in terms:
        total[mono] = total.get(mono, 0) + coef
    kept = {m: c for m, c in total.items() if c}
    if not kept:
        return 0
    if kept.keys() == {()}:
        return kept[()]
    return Dim(tuple(sorted(kept.items(), key=lambda item: _key(item[0]))))


# Code generation asks for the same few sums and products thousands of times.
@lru_cache(maxsize=1 << 15)
def _sum(a: Dim, b: DimLike) -> DimLike:
    return _collect([*a.terms, *_terms(b)])


@lru_cache(maxsize=1 << 15)
def _product(a: Dim, b: DimLike) -> DimLike:
    return _collect((_times(m1, m2), c1 * c2) for m1, c1 in a.terms for m2, c2 in _terms(b))


def names_of(dim: DimLike) -> tuple[str, ...]:
    """The named dims in a dimension; none for an integer."""
    return dim.names if isinstance(dim, Dim) else ()


@lru_cache(maxsize=1 << 15)
def floordiv(a: DimLike, b: DimLike) -> DimLike:
    """`a // b` in normal form: even parts leave the quotient, common factors cancel.

    Raises ZeroDivisionError for a constant zero divisor.
    """
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if isinstance(b, int):
        if b == 0:
            raise ZeroDivisionError("dimension divided by zero")
        if b < 0:
            return floordiv(a * -1, -b)
        whole: DimLike = 0
        rest: DimLike = 0
        for mono, coef in _terms(a):
            q, r = divmod(coef, b)
            whole, rest = whole + q * _mono(mono), rest + r * _mono(mono)
        if isinstance(rest, int):
            return whole + rest // b
        g = math.gcd(b, *(c for m, c in rest.terms if m))
        if g > 1:
            rest = _collect((m, c // g) for m, c in rest.terms)
            return whole + floordiv(rest, b // g)
        nested = _nested(_dim(rest))
        if nested is not None:
            inner, k = nested
            return whole + floordiv(inner.numerator + inner.denominator * k, inner.denominator * b)
        return whole + _mono(((Quotient(_dim(rest), b), 1),))
    exact = _exact(a, b)
    if exact is not None:
        return exact
    if isinstance(a, int):
        a_dim: DimLike = a
        return _mono(((Quotient(_constant(a_dim), b), 1),)) if a else 0
    return _mono(((Quotient(a, b), 1),))


def _nested(value: Dim) -> tuple[Quotient, int] | None:
    """`value` as one quotient plus a constant: `(a // b + k) // c` is `(a + b * k) // (b * c)`."""
    first, *others = value.terms
    if first[1] == 1 and len(first[0]) == 1 and (not others or others[0][0] == ()):
        atom, power = first[0][0]
        if isinstance(atom, Quotient) and power == 1:
            return atom, others[0][1] if others else 0
    return None


def _constant(value: DimLike) -> Dim:
    """An integer as a one-term Dim: only ever a quotient's numerator (`128 // T`)."""
    return value if isinstance(value, Dim) else Dim((((), value),))


def _dim(value: DimLike) -> Dim:
    assert isinstance(value, Dim)
    return value


def _mono(mono: Monomial) -> DimLike:
    return Dim(((mono, 1),)) if mono else 1


def _exact(a: DimLike, b: Dim) -> DimLike | None:
    """a / b when b is one term that divides every term of a, or a is an integer multiple of b."""
    if a == b:
        return 1
    if len(b.terms) == 1:
        (divisor, scale), out = b.terms[0], []
        for mono, coef in _terms(a):
            powers = dict(mono)
            if coef % scale or any(powers.get(atom, 0) < p for atom, p in divisor):
                return None
            for atom, p in divisor:
                powers[atom] -= p
            kept = [(atom, p) for atom, p in powers.items() if p]
            out.append((tuple(sorted(kept, key=lambda item: str(item[0]))), coef // scale))
        return _collect(out)
    if isinstance(a, Dim) and len(a.terms) == len(b.terms):
        (m1, c1), (m2, c2) = a.terms[0], b.terms[0]
        if m1 == m2 and c1 % c2 == 0 and b * (c1 // c2) == a:
            return c1 // c2
    return None


def evaluate(dim: DimLike, env: Mapping[str, int]) -> int:
    """The value of a dimension for given named dims. Raises KeyError for a name without a value."""
    if isinstance(dim, int):
        return dim
    value: int = dim.fold(
        lambda n: env[n], lambda c: c, lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a // b
    )
    return value


def substitute(dim: DimLike, env: Mapping[str, DimLike]) -> DimLike:
    """Replaces named dims by dimensions; names without an entry stay."""
    if isinstance(dim, int):
        return dim
    replaced: DimLike = dim.fold(
        lambda n: env.get(n, Dim.symbol(n)),
        lambda c: c,
        lambda a, b: a + b,
        lambda a, b: a * b,
        floordiv,
    )
    return replaced


def interval(dim: DimLike, bounds: Mapping[str, Bounds]) -> Interval:
    """An interval that holds every value of the dimension, with infinities where unbounded."""
    if isinstance(dim, int):
        return (dim, dim)

    def symbol(name: str) -> Interval:
        b = bounds.get(name, Bounds())
        return (b.low, math.inf if b.high is None else b.high)

    def multiply(a: Interval, b: Interval) -> Interval:
        ends = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
        return (min(ends), max(ends))

    def divide(a: Interval, b: Interval) -> Interval:
        if b[0] <= 0:
            return (-math.inf, math.inf)
        ends = [_floor(x, y) for x in a for y in b]
        return (min(ends), max(ends))

    return dim.fold(
        symbol, lambda c: (c, c), lambda a, b: (a[0] + b[0], a[1] + b[1]), multiply, divide
    )


def _floor(x: float, y: float) -> float:
    if math.isinf(x):
        return x if not math.isinf(y) else math.copysign(math.inf, x)
    return (0.0 if x >= 0 else -1.0) if math.isinf(y) else x // y


def proves_ge(a: DimLike, b: DimLike, bounds: Mapping[str, Bounds]) -> bool:
    """True when `a >= b` for every allowed value of the named dims (sound, not complete)."""
    return interval(a - b, bounds)[0] >= 0


def proves_ne(a: DimLike, b: DimLike, bounds: Mapping[str, Bounds]) -> bool:
    """True when `a != b` for every allowed value of the named dims (sound, not complete)."""
    low, high = interval(a - b, bounds)
    return low > 0 or high < 0


def product(dims: Iterable[DimLike]) -> DimLike:
    """The product of dimensions; 1 for none."""
    total: DimLike = 1
    for dim in dims:
        total = total * dim
    return total


def upper(a: DimLike, b: DimLike) -> DimLike:
    """The larger of two numbers; of sums over named dims each term the larger, which is at least both."""
    terms, others = dict(_terms(a)), dict(_terms(b))
    names = dict.fromkeys((*terms, *others))
    return _collect((m, max(terms.get(m, 0), others.get(m, 0))) for m in names)
