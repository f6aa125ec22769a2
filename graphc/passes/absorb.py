"""Products read their operands in any order of dimensions, so transposes of operands go into them.

A flatten of a transposed tensor, which is no view, is absorbed as well when the other operand is
known at build time: the rows of the weight are reordered instead (the first fully connected layer
behind channels-last convolutions).
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.dim import DimLike, product
from graphc.ir.graph import Value
from graphc.ir.rewrite import Rewriter
from graphc.ops import DotGeneral, Reshape, Transpose
from graphc.passes.static import Static
from graphc.passes.views import Permutation, reshape_groups


@dataclass
class _Side:
    """One operand of a product and the dimensions that are batched and contracted."""

    value: Value
    batch: list[int]
    contract: list[int]

    def free(self, rank: int) -> list[int]:
        return [i for i in range(rank) if i not in self.batch and i not in self.contract]


def absorb(
    r: Rewriter, static: Static, op: DotGeneral, operands: tuple[Value, ...]
) -> Value | None:
    """The product without transposes in front of its operands, or None if there are none."""
    lhs = _Side(operands[0], list(op.lhs_batch), list(op.lhs_contract))
    rhs = _Side(operands[1], list(op.rhs_batch), list(op.rhs_contract))
    batch = len(op.lhs_batch)
    kept = len(lhs.free(r.type_of(lhs.value).rank))
    after_lhs = _transpose(r, static, lhs)
    after_rhs = _transpose(r, static, rhs)
    changed = after_lhs is not None or after_rhs is not None
    for side, other in ((lhs, rhs), (rhs, lhs)):
        if static(r, other.value) and not static(r, side.value):
            changed = _flatten(r, side, other) or changed
    if not changed:
        return None
    new = DotGeneral(tuple(lhs.batch), tuple(rhs.batch), tuple(lhs.contract), tuple(rhs.contract))
    result = r(new, lhs.value, rhs.value)
    # Free dimensions come out in the order of the operands that are read now.
    rank = r.type_of(result).rank
    order = list(range(batch))
    order += [batch + i for i in after_lhs or range(kept)]
    order += [batch + kept + i for i in after_rhs or range(rank - batch - kept)]
    return result if order == sorted(order) else r(Transpose(tuple(order)), result)


def _transpose(r: Rewriter, static: Static, side: _Side) -> Permutation | None:
    """Takes the transpose off a side.

    Returns where each free dimension is among the free dimensions now, or None when nothing changed.
    """
    node = r.node_of(side.value)
    if not isinstance(node.op, Transpose):
        return None
    permutation = node.op.permutation
    free = [permutation[i] for i in side.free(len(permutation))]
    if static(r, side.value) and free != sorted(free):
        return None  # the weight is cheaper to transpose than the result
    side.batch = [permutation[i] for i in side.batch]
    side.contract = [permutation[i] for i in side.contract]
    (side.value,) = node.operands
    return tuple(sorted(free).index(i) for i in free)


def _flatten(r: Rewriter, side: _Side, weight: _Side) -> bool:
    """Reorders a weight so that `reshape(transpose(x))` becomes a plain reshape of x."""
    node = r.node_of(side.value)
    if not isinstance(node.op, Reshape):
        return False
    inner = r.node_of(node.operands[0])
    if not isinstance(inner.op, Transpose):
        return False
    (x,) = inner.operands
    shape, permutation, new = r.type_of(x).shape, inner.op.permutation, node.op.shape
    groups = reshape_groups(tuple(shape[p] for p in permutation), new)
    if groups is None:
        return False
    merged: dict[int, tuple[tuple[int, ...], list[int]]] = {}  # first dimension -> (dims, sources)
    last = -1
    for group in groups:
        sources = [permutation[i] for i in group.old]
        contracted = all(j in side.contract for j in group.new)
        ordered = sorted(sources) if contracted else sources
        alone = all(shape[i] == 1 or i in sources for i in range(min(sources), max(sources) + 1))
        if ordered != sorted(sources) or not alone or ordered[0] < last:
            return False
        last = ordered[-1]
        if contracted and sources != ordered:
            merged[group.new[0]] = (group.new, sources)
    for dims, sources in merged.values():
        paired = [weight.contract[side.contract.index(j)] for j in dims]
        sizes = [shape[i] for i in sources]
        order = tuple(sorted(range(len(sources)), key=sources.__getitem__))
        _reorder(r, weight, paired, sizes, order)
    _merge(r, side, weight, x, new, {first: dims for first, (dims, _) in merged.items()})
    return True


def _reorder(
    r: Rewriter, weight: _Side, paired: list[int], sizes: list[DimLike], order: Permutation
) -> None:
    """Merges the weight's dimensions `paired` into one, at the end, its parts in another order.

    The merged dimension takes the place of the first of `paired` in `contract`; the others stay
    there as -1 until `_merge` drops them.
    """
    type = r.type_of(weight.value)
    rest = [i for i in range(type.rank) if i not in paired]
    kept = tuple(type.shape[i] for i in rest)
    value = r(Transpose((*rest, *paired)), weight.value)
    value = r(Reshape((*kept, *sizes)), value)
    value = r(Transpose((*range(len(rest)), *(len(rest) + i for i in order))), value)
    weight.value = r(Reshape((*kept, product(sizes))), value)
    weight.batch = [rest.index(i) for i in weight.batch]
    weight.contract = [
        len(rest) if i == paired[0] else -1 if i in paired else rest.index(i) if i >= 0 else i
        for i in weight.contract
    ]


def _merge(
    r: Rewriter,
    side: _Side,
    weight: _Side,
    x: Value,
    new: tuple[DimLike, ...],
    merged: dict[int, tuple[int, ...]],
) -> None:
    """Reshapes x to `new` with every merged run as one dimension, and renumbers both sides."""
    dropped = {j for dims in merged.values() for j in dims[1:]}
    kept = [j for j in range(len(new)) if j not in dropped]
    shape = tuple(product(new[i] for i in merged.get(j, (j,))) for j in kept)
    side.value = r(Reshape(shape), x)
    side.batch = [kept.index(j) for j in side.batch]
    pairs = [
        (kept.index(j), k)
        for j, k in zip(side.contract, weight.contract, strict=True)
        if j not in dropped
    ]
    side.contract, weight.contract = [j for j, _ in pairs], [k for _, k in pairs]
