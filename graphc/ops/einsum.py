"""Einstein summation on a builder: `einsum(b, "bhqd,bhkd->bhqk", q, k)`.

Operands are contracted from left to right, each pair as one `DotGeneral`. Labels are letters; `...` stands for leading
dimensions that broadcast. Without `->` the result has the labels that occur once, in alphabetical order (NumPy).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from graphc.ir.dim import DimLike
from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import OpError
from graphc.ops import arith, binary
from graphc.ops.dot import DotGeneral
from graphc.ops.errors import show
from graphc.ops.shape import Transpose
from graphc.ops.source import Iota

Labels = tuple[str, ...]  # a letter, or an ellipsis dimension as "...2": the second from the right


def einsum(b: GraphBuilder, equation: str, *operands: Value) -> Value:
    """The sum of products an equation says.

    Raises OpError E0215 for a malformed equation, E0205 for a term with another number of dimensions than its
    operand, E0203 for a label with two sizes (both shapes are named), E0206 for element types that differ.
    """
    terms, result = _parse(b, equation, operands)
    sizes = _sizes(b, equation, terms, operands)
    parts = [_without_repeats(b, t, x) for t, x in zip(terms, operands, strict=True)]
    labels, value = parts[0]
    for i, (other, x) in enumerate(parts[1:], 1):
        later = {a for t, _ in parts[i + 1 :] for a in t} | set(result)
        labels, value = _contract(b, labels, value, other, x, later)
    labels, value = _summed(b, labels, value, set(result))
    if labels != result:
        kept = tuple(a for a in result if a in labels)
        value = (
            b(Transpose(tuple(labels.index(a) for a in kept)), value) if kept != labels else value
        )
        labels = kept
    shape = tuple(sizes[a] for a in result)
    return arith.broadcast_to(b, value, shape)


def _parse(
    b: GraphBuilder, equation: str, operands: Sequence[Value]
) -> tuple[list[Labels], Labels]:
    text = equation.replace(" ", "")
    if not re.fullmatch(r"[A-Za-z.]*(,[A-Za-z.]*)*(->[A-Za-z.]*)?", text):
        raise OpError(
            f'einsum: "{equation}" is malformed', code="E0215", help='write it like "ij,jk->ik"'
        )
    left, arrow, right = text.partition("->")
    texts = left.split(",")
    if len(texts) != len(operands):
        raise OpError(
            f'einsum: "{equation}" is for {len(texts)} operands and gets {len(operands)}',
            code="E0215",
        )
    terms = []
    for slot, (term, x) in enumerate(zip(texts, operands, strict=True)):
        terms.append(_expand(equation, term, b.type_of(x).rank, slot, str(b.type_of(x))))
    dots = max((sum(a[0] == "." for a in t) for t in terms), default=0)
    ellipsis = tuple(f"...{i}" for i in range(dots, 0, -1))
    if arrow:
        letters, _ = _letters(equation, right)
        result = tuple(a for c in letters for a in (ellipsis if c == "..." else (c,)))
    else:
        count = Counter(a for t in terms for a in t if a[0] != ".")
        result = ellipsis + tuple(sorted(a for a, n in count.items() if n == 1))
    known = {a for t in terms for a in t}
    for label, n in Counter(result).items():
        if n > 1 or label not in known:
            what = "is there twice" if n > 1 else "is in no operand"
            raise OpError(f'einsum: "{label}" of the result of "{equation}" {what}', code="E0215")
    return terms, result


def _letters(equation: str, term: str) -> tuple[list[str], bool]:
    """A term's labels with "..." as one, and whether it has one."""
    parts = term.split("...")
    if len(parts) > 2 or any("." in p for p in parts):
        raise OpError(f'einsum: "{term}" of "{equation}" is malformed', code="E0215")
    if len(parts) == 1:
        return list(term), False
    return [*parts[0], "...", *parts[1]], True


def _expand(equation: str, term: str, rank: int, slot: int, type: str) -> Labels:
    """One label per dimension of the operand."""
    letters, dotted = _letters(equation, term)
    rest = rank - (len(letters) - dotted)
    if rest < 0 or (rest and not dotted):
        raise OpError(
            f'einsum: "{term}" of "{equation}" does not fit {type} with {rank} dimensions',
            operand=slot,
            code="E0205",
        )
    dots = [f"...{i}" for i in range(rest, 0, -1)]
    return tuple(a for c in letters for a in (dots if c == "..." else (c,)))


def _sizes(
    b: GraphBuilder, equation: str, terms: Sequence[Labels], operands: Sequence[Value]
) -> dict[str, DimLike]:
    """The size of every label."""
    sizes: dict[str, DimLike] = {}
    origin: dict[str, Value] = {}
    for slot, (term, x) in enumerate(zip(terms, operands, strict=True)):
        for label, d in zip(term, b.type_of(x).shape, strict=True):
            known = sizes.setdefault(label, d)
            origin.setdefault(label, x)
            if known == d or (label[0] == "." and d == 1):
                continue
            if label[0] == "." and known == 1:
                sizes[label], origin[label] = d, x
                continue
            first = b.type_of(origin[label]).shape
            raise OpError(
                f'einsum "{equation}": {label} is {known} in {show(first)} and {d} in '
                f"{show(b.type_of(x).shape)}",
                operand=slot,
                code="E0203",
            )
    return sizes


def _without_repeats(b: GraphBuilder, labels: Labels, x: Value) -> tuple[Labels, Value]:
    """The diagonal where a label repeats, and no ellipsis dimensions of 1 (they broadcast)."""
    for label, n in Counter(labels).items():
        while n > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            shape = b.type_of(x).shape
            rows, columns = (b(Iota(DType.I64, shape, axis)) for axis in (i, j))
            diagonal = b(binary.Compare("eq"), rows, columns)
            kept = arith.select(b, diagonal, x, arith.constant(b, 0, b.type_of(x).dtype))
            x = arith.sum(b, kept, j)
            labels, n = labels[:j] + labels[j + 1 :], n - 1
    shape = b.type_of(x).shape
    drop = [i for i, a in enumerate(labels) if a[0] == "." and shape[i] == 1]
    if drop:
        x = arith.reshape(b, x, [d for i, d in enumerate(shape) if i not in drop])
        labels = tuple(a for i, a in enumerate(labels) if i not in drop)
    return labels, x


def _summed(b: GraphBuilder, labels: Labels, x: Value, keep: set[str]) -> tuple[Labels, Value]:
    """Labels nobody needs any more are summed over."""
    axes = tuple(i for i, a in enumerate(labels) if a not in keep)
    return tuple(a for a in labels if a in keep), arith.sum(b, x, axes) if axes else x


def _contract(
    b: GraphBuilder, left: Labels, x: Value, right: Labels, y: Value, later: set[str]
) -> tuple[Labels, Value]:
    """Two operands as one `DotGeneral`: shared labels needed later are batches, other shared ones contract."""
    left, x = _summed(b, left, x, later | set(right))
    right, y = _summed(b, right, y, later | set(left))
    shared = [a for a in left if a in right]
    batch = [a for a in shared if a in later]
    inner = [a for a in shared if a not in later]
    op = DotGeneral(
        tuple(left.index(a) for a in batch),
        tuple(right.index(a) for a in batch),
        tuple(left.index(a) for a in inner),
        tuple(right.index(a) for a in inner),
    )
    out = (
        *batch,
        *(a for a in left if a not in shared),
        *(a for a in right if a not in shared),
    )
    return out, b(op, x, y)
