"""How transposes and reshapes commute: pure arithmetic on shapes and permutations.

Everywhere a permutation p makes dimension i of the result from dimension p[i] of the operand.
Dimensions of size 1 carry no order: moving only them is a reshape.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.dim import Shape, product

Permutation = tuple[int, ...]


def compose(inner: Permutation, outer: Sequence[int]) -> Permutation:
    """The permutation of `outer` applied after `inner`."""
    return tuple(inner[p] for p in outer)


def inverse(permutation: Sequence[int]) -> Permutation:
    """The permutation that undoes one."""
    out = [0] * len(permutation)
    for i, p in enumerate(permutation):
        out[p] = i
    return tuple(out)


def moves_nothing(shape: Shape, permutation: Permutation) -> bool:
    """True when transposing a value of `shape` keeps the order of its elements."""
    moved = [p for p in permutation if shape[p] != 1]
    return moved == sorted(moved)


@dataclass(frozen=True)
class Group:
    """A run of dimensions of a reshape's operand that becomes a run of the result's.

    Both without dimensions of size 1; the products are equal.
    """

    old: tuple[int, ...]
    new: tuple[int, ...]


def reshape_groups(old: Shape, new: Shape) -> tuple[Group, ...] | None:
    """The shortest groups of a reshape, in order; None when there are no elements.

    `[N, 16, 5, 5]` to `[N, 400]` has the groups (0)(0) and (1, 2, 3)(1).
    """
    a = [i for i, d in enumerate(old) if d != 1]
    b = [j for j, d in enumerate(new) if d != 1]
    if any(d == 0 for d in (*old, *new)):
        return None
    rest = {product(old[i] for i in a[k:]): k for k in range(len(a) + 1)}
    groups: list[Group] = []
    from_a = from_b = 0
    for k in range(1, len(b) + 1):
        to_a = rest.get(product(new[j] for j in b[k:]))
        if to_a is not None and to_a > from_a:
            groups.append(Group(tuple(a[from_a:to_a]), tuple(b[from_b:k])))
            from_a, from_b = to_a, k
    return tuple(groups) if from_a == len(a) and from_b == len(b) else None


def reshape_after(
    shape: Shape, permutation: Permutation, new: Shape
) -> tuple[Shape, Permutation] | None:
    """`reshape(transpose(x, permutation), new)` as `transpose(reshape(x, shape2), q)`.

    `shape` is x's. Returns (shape2, q), or None where dimensions that merge are not neighbours in
    x, or not in order.
    """
    groups = reshape_groups(tuple(shape[p] for p in permutation), new)
    if groups is None:
        return None
    sources = [[permutation[i] for i in g.old] for g in groups]
    if not all(_neighbours(shape, axes) for axes in sources):
        return None
    order = sorted(range(len(groups)), key=lambda k: sources[k][0])
    return _arrange(new, [groups[k].new for k in order])


def reshape_before(
    shape: Shape, new: Shape, permutation: Permutation
) -> tuple[Permutation, Shape] | None:
    """`transpose(reshape(x, new), permutation)` as `reshape(transpose(x, q), shape2)`.

    `shape` is x's. Returns (q, shape2), or None where the permutation tears a merged or split run
    of dimensions apart.
    """
    groups = reshape_groups(shape, new)
    if groups is None:
        return None
    place = inverse(permutation)
    targets = [[place[j] for j in g.new] for g in groups]
    result = tuple(new[p] for p in permutation)
    if not all(_neighbours(result, axes) for axes in targets):
        return None
    order = sorted(range(len(groups)), key=lambda k: targets[k][0])
    ones = [i for i, d in enumerate(shape) if d == 1]
    return tuple([i for k in order for i in groups[k].old] + ones), result


def _neighbours(shape: Shape, axes: Sequence[int]) -> bool:
    """True when the axes increase and only dimensions of size 1 lie between them."""
    return all(
        a < b and all(shape[i] == 1 for i in range(a + 1, b)) for a, b in itertools.pairwise(axes)
    )


def _arrange(new: Shape, order: Sequence[tuple[int, ...]]) -> tuple[Shape, Permutation]:
    """Groups of `new` in another order (ones at the end), and the permutation back to `new`."""
    axes = [j for group in order for j in group]
    if axes == sorted(axes):
        return new, tuple(range(len(new)))
    axes += [j for j, d in enumerate(new) if d == 1]
    return tuple(new[j] for j in axes), inverse(axes)
