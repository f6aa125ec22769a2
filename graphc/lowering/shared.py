"""Offsets for buffers whose sizes are different polynomials of the named dims, as far as they can be compared.

With `N >= 1`, 100 bytes fit into `200 * N`: written in `N - 1`, no coefficient of `200 + 200 * (N - 1) - 100` is
negative. Polynomials are vectors of such coefficients here, and one is below another where no element is larger. The
arena ends at the largest coefficients of all ends, which is tight for the smallest dims and a bound for others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.ir.dim import Dim, DimLike, Monomial, Symbol, substitute

# Comparisons: a training step, which keeps nearly everything alive, is left to the classes.
_MANY = 50_000
_Vector = tuple[int, ...]


def share(
    sizes: Sequence[DimLike], spans: Sequence[tuple[int, int]], low: Mapping[str, int]
) -> list[tuple[list[DimLike], DimLike]]:
    """Some choices of offsets and the arena's size; none where sizes are no plain polynomials, or too many.

    Args:
        sizes: in bytes, as aligned as offsets are to be.
        spans: for each buffer the first and the last moment at which it is in use.
        low: the smallest value of each named dim, 0 if it is not there.
    """
    names = sorted({n for size in sizes if isinstance(size, Dim) for n in size.names})
    up = {n: Dim.symbol(n) + low.get(n, 0) for n in names}
    terms = [_terms(substitute(size, up)) for size in sizes]
    basis = sorted({m for t in terms for m in t}, key=str)
    plain = all(isinstance(atom, Symbol) for m in basis for atom, _ in m)
    if not plain or any(c < 0 for t in terms for c in t.values()):
        return []
    vectors = [tuple(t.get(m, 0) for m in basis) for t in terms]
    together = [
        [j for j, other in enumerate(spans) if other[0] <= last and first <= other[1] and j != i]
        for i, (first, last) in enumerate(spans)
    ]
    if sum(len(t) ** 2 for t in together) > _MANY:
        return []

    def value(v: _Vector, at: int = 3) -> int:
        return sum(a * _value(m, at) for a, m in zip(v, basis, strict=True))

    def length(i: int) -> int:
        return spans[i][1] - spans[i][0]

    everything = range(len(sizes))
    orders = [
        sorted(everything, key=lambda i: (-value(vectors[i]), spans[i][0], i)),
        sorted(everything, key=lambda i: (-value(vectors[i], 1000), spans[i][0], i)),
        sorted(everything, key=lambda i: (-value(vectors[i], 0), spans[i][0], i)),
        sorted(everything, key=lambda i: (-length(i), -value(vectors[i]), i)),
        sorted(everything, key=lambda i: (spans[i][0], -value(vectors[i]), i)),
    ]
    weights = [_value(m, 3) for m in basis]
    results = [_greedy(order, vectors, together, weights) for order in orders]
    down = {n: Dim.symbol(n) - low.get(n, 0) for n in names}

    def polynomial(v: _Vector) -> DimLike:
        total: DimLike = 0
        for coefficient, monomial in zip(v, basis, strict=True):
            if coefficient:
                total = total + (Dim(((monomial, coefficient),)) if monomial else coefficient)
        return substitute(total, down)

    return [([polynomial(v) for v in offsets], polynomial(end)) for offsets, end in results]


def _terms(size: DimLike) -> dict[Monomial, int]:
    return dict(size.terms) if isinstance(size, Dim) else {(): size}


def _value(monomial: Monomial, at: int) -> int:
    result = 1
    for _, power in monomial:
        result *= at**power
    return result


def _greedy(
    order: Sequence[int],
    sizes: Sequence[_Vector],
    together: Sequence[Sequence[int]],
    weights: Sequence[int],
) -> tuple[list[_Vector], _Vector]:
    """Places each buffer at the lowest place that is certainly free while it is in use."""
    zero = (0,) * len(weights)
    placed: dict[int, _Vector] = {}
    top = zero
    for i in order:
        taken = [(placed[j], _sum(placed[j], sizes[j])) for j in together[i] if j in placed]
        above = zero
        for _, end in taken:
            above = _larger(above, end)
        places = sorted(
            {zero, above, *(end for _, end in taken)},
            key=lambda v: (sum(a * b for a, b in zip(v, weights, strict=True)), v),
        )
        placed[i] = next(p for p in places if p == above or _free(p, _sum(p, sizes[i]), taken))
        top = _larger(top, _sum(placed[i], sizes[i]))
    return [placed[i] for i in range(len(sizes))], top


def _free(start: _Vector, end: _Vector, taken: Sequence[tuple[_Vector, _Vector]]) -> bool:
    return all(_below(end, a) or _below(b, start) for a, b in taken)


def _below(a: _Vector, b: _Vector) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True))


def _sum(a: _Vector, b: _Vector) -> _Vector:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _larger(a: _Vector, b: _Vector) -> _Vector:
    return tuple(map(max, a, b))
