"""Arena planning: static offsets for values that live between kernel calls.

Offsets are polynomials in the named dims that hold for every value of them. Buffers with named dims in their size
cannot be compared in general, so buffers are split into classes whose sizes are multiples of one primitive polynomial
(all constants; all multiples of `N`; of `N*T`; ...): within a class sizes are plain integers, offsets are found
greedily, and the classes follow one another in the arena. Where that is more than needed, `shared.py` may know better:
it lets classes share memory as far as one size is certainly the larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.ir.dim import Dim, DimLike, evaluate, product
from graphc.lowering.shared import share

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register


@dataclass(frozen=True)
class Request:
    """A buffer of `size` bytes that is written by call `first` and last read by call `last` (inclusive)."""

    size: DimLike
    first: int
    last: int


@dataclass(frozen=True)
class Layout:
    """Offsets in bytes, one a request, and the arena's size."""

    offsets: tuple[DimLike, ...]
    size: DimLike
    requests: tuple[Request, ...]

    def live(self, dims: Mapping[str, int]) -> int:
        """The largest sum of sizes alive at once, for given dims: no arena can be smaller."""
        sizes = [evaluate(r.size, dims) for r in self.requests]
        alive = (
            sum(
                size
                for size, r in zip(sizes, self.requests, strict=True)
                if r.first <= now <= r.last
            )
            for now in {r.first for r in self.requests}
        )
        return max(alive, default=0)


def _split(size: DimLike) -> tuple[DimLike, int]:
    """A size as (primitive polynomial, integer multiple), the multiple rounded up to keep buffers aligned.

    Rounding to a cache line is dropped to 16 bytes where it would cost more than a twentieth.
    """
    if isinstance(size, int):
        return 1, _round(size, ALIGNMENT)
    unit = math.gcd(*(c for _, c in size.terms))
    primitive = Dim(tuple((m, c // unit) for m, c in size.terms))
    rounded = _round(unit, ALIGNMENT)
    single = len(primitive.names) == 1 and primitive == Dim.symbol(primitive.names[0])
    return primitive, rounded if single or rounded <= 1.05 * unit else _round(unit, 16)


def _round(value: int, to: int) -> int:
    return -(-value // to) * to


def plan(requests: Sequence[Request], low: Mapping[str, int] | None = None) -> Layout:
    """Assigns offsets so that buffers alive at the same time never overlap; deterministic.

    `low` says how large each named dim is at least: 0 where it says nothing.
    """
    classes: dict[DimLike, list[int]] = {}
    units = []
    for i, request in enumerate(requests):
        primitive, unit = _split(request.size)
        classes.setdefault(primitive, []).append(i)
        units.append(unit)
    offsets: list[DimLike] = [0] * len(requests)
    total: DimLike = 0
    for primitive in sorted(classes, key=lambda p: (not isinstance(p, int), str(p))):
        members = classes[primitive]
        placed, size = _best(members, units, requests)
        for i in members:
            offsets[i] = total + placed[i] * primitive
        total = total + _round(size, ALIGNMENT) * primitive
    layout = Layout(tuple(offsets), total, tuple(requests))
    if len(classes) < 2:
        return layout
    rounded = [product(_split(r.size)) for r in requests]
    spans = [(r.first, r.last) for r in requests]
    names = sorted({name for size in rounded if isinstance(size, Dim) for name in size.names})
    least = {name: (low or {}).get(name, 0) for name in names}
    many = {name: value + 63 for name, value in least.items()}
    choices = [
        (
            evaluate(size, least),
            evaluate(size, many),
            i,
            Layout(tuple(places), size, layout.requests),
        )
        for i, (places, size) in enumerate(share(rounded, spans, low or {}))
        if evaluate(size, many) <= 1.05 * evaluate(total, many)
    ]
    best = min(choices, default=None, key=lambda c: c[:3])
    return best[3] if best and best[0] < evaluate(total, least) else layout


def _best(
    members: Sequence[int], units: Sequence[int], requests: Sequence[Request]
) -> tuple[dict[int, int], int]:
    """The best of a few greedy orders; largest first is nearly always within a tenth of the bound."""

    def length(i: int) -> int:
        return requests[i].last - requests[i].first

    orders = [
        sorted(members, key=lambda i: (-units[i], requests[i].first, i)),
        sorted(members, key=lambda i: (-length(i), -units[i], i)),
        sorted(members, key=lambda i: (-units[i] * (1 + length(i)), i)),
        sorted(members, key=lambda i: (requests[i].first, -units[i], i)),
    ]
    results = [_greedy(order, units, requests) for order in orders]
    return min(results, key=lambda r: r[1])


def _greedy(
    order: Sequence[int], units: Sequence[int], requests: Sequence[Request]
) -> tuple[dict[int, int], int]:
    """Places each buffer in the smallest gap between those already placed that live at the same time."""
    placed: dict[int, int] = {}
    total = 0
    for i in order:
        overlapping = sorted(
            (placed[j], placed[j] + units[j])
            for j in placed
            if requests[j].first <= requests[i].last and requests[i].first <= requests[j].last
        )
        best: tuple[int, int] | None = None  # (waste, offset)
        end = 0
        for start, stop in overlapping:
            if start - end >= units[i] and (best is None or start - end - units[i] < best[0]):
                best = (start - end - units[i], end)
            end = max(end, stop)
        placed[i] = best[1] if best else end
        total = max(total, placed[i] + units[i])
    return placed, total
