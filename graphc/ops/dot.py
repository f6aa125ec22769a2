"""The general matrix product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dim import DimLike, product
from graphc.ir.graph import Value
from graphc.ir.op import Array, Emitter, Expr, Op, OpError, Pattern, Read, Stacked
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops.errors import check_axes, check_kind, check_same_dtype, show
from graphc.ops.numerics import as_f64, rounded, working
from graphc.ops.shape import Transpose, inverse


@dataclass(frozen=True)
class DotGeneral(Op):
    """Sums of products over the contracted dimensions, for every batch, lhs-free and rhs-free index.

    `lhs_batch[i]` pairs with `rhs_batch[i]`, `lhs_contract[i]` with `rhs_contract[i]`. The result's dimensions are
    the batch ones in the order given, then what is left of lhs, then what is left of rhs. Accumulates in f64 in NumPy
    and in f32 (f64 for f64) in kernels; integers wrap around.
    """

    name: ClassVar[str] = "dot_general"
    pattern: ClassVar[Pattern] = Pattern.CONTRACT
    arity: ClassVar[int | None] = 2
    family: ClassVar[str] = "dot"
    lhs_batch: tuple[int, ...]
    rhs_batch: tuple[int, ...]
    lhs_contract: tuple[int, ...]
    rhs_contract: tuple[int, ...]

    def lhs_free(self, rank: int) -> tuple[int, ...]:
        """Dimensions of an lhs of this rank that the result keeps besides the batch ones."""
        return tuple(i for i in range(rank) if i not in self.lhs_batch + self.lhs_contract)

    def rhs_free(self, rank: int) -> tuple[int, ...]:
        """Dimensions of an rhs of this rank that the result keeps besides the batch ones."""
        return tuple(i for i in range(rank) if i not in self.rhs_batch + self.rhs_contract)

    def stacked(
        self, length: DimLike, ranks: Sequence[int], each: Sequence[bool]
    ) -> Stacked | None:
        """The steps are a batch dimension where both operands have them, and else a free one: more rows."""

        def moved(dims: tuple[int, ...], side: int) -> tuple[int, ...]:
            return tuple(i + each[side] for i in dims)

        batch = moved(self.lhs_batch, 0), moved(self.rhs_batch, 1)
        contract = moved(self.lhs_contract, 0), moved(self.rhs_contract, 1)
        if all(each):
            return Stacked(DotGeneral((0, *batch[0]), (0, *batch[1]), *contract))
        before = len(self.lhs_batch) + (0 if each[0] else len(self.lhs_free(ranks[0])))
        return Stacked(DotGeneral(*batch, *contract), before)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """Batch, lhs free, rhs free. Raises OpError E0203 for sizes that differ, E0206, E0207 or E0211."""
        lhs, rhs = operands
        check_kind(self.name, lhs, "number", 0)
        check_same_dtype(self.name, operands)
        check_axes(self.name, self.lhs_batch + self.lhs_contract, lhs.rank, lhs.shape)
        check_axes(self.name, self.rhs_batch + self.rhs_contract, rhs.rank, rhs.shape)
        for what, left, right in (
            ("batch", self.lhs_batch, self.rhs_batch),
            ("contracted", self.lhs_contract, self.rhs_contract),
        ):
            if len(left) != len(right):
                raise OpError(
                    f"dot_general: {what} dimensions {show(left)} and {show(right)} do not pair up",
                    code="E0207",
                )
            for i, j in zip(left, right, strict=True):
                if lhs.shape[i] != rhs.shape[j]:
                    raise OpError(
                        f"dot_general of {lhs} and {rhs}: {what} dimension {i} of the first "
                        f"({lhs.shape[i]}) and {j} of the second ({rhs.shape[j]}) differ",
                        operand=1,
                        code="E0203",
                    )
        shape = (
            *(lhs.shape[i] for i in self.lhs_batch),
            *(lhs.shape[i] for i in self.lhs_free(lhs.rank)),
            *(rhs.shape[i] for i in self.rhs_free(rhs.rank)),
        )
        return (lhs.with_shape(shape),)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """One batched NumPy matmul."""
        lhs, rhs = operands
        m, n = self.lhs_free(lhs.ndim), self.rhs_free(rhs.ndim)
        left = lhs.transpose(self.lhs_batch + m + self.lhs_contract)
        right = rhs.transpose(self.rhs_batch + self.rhs_contract + n)
        batch = left.shape[: len(self.lhs_batch)]
        inner = math.prod(lhs.shape[i] for i in self.lhs_contract)
        rows = math.prod(lhs.shape[i] for i in m)
        columns = math.prod(rhs.shape[i] for i in n)
        with np.errstate(all="ignore"):
            out = np.matmul(
                as_f64(left.reshape((*batch, rows, inner))),
                as_f64(right.reshape((*batch, inner, columns))),
            )
        shape = (*batch, *(lhs.shape[i] for i in m), *(rhs.shape[i] for i in n))
        return (rounded(out.reshape(shape), lhs),)

    def compute(
        self, e: Emitter, operands: Sequence[TensorType], index: Sequence[Expr], read: Read
    ) -> Expr:
        """One sum over the box of contracted dimensions, in f32 for f16 and bf16."""
        lhs, rhs = operands
        work = working(lhs.dtype)
        batch = dict(zip(self.lhs_batch, index, strict=False))
        free = self.lhs_free(lhs.rank)
        left = index[len(self.lhs_batch) :]
        right = left[len(free) :]

        def wide(value: Expr) -> Expr:
            return value if work is lhs.dtype else e.cast(value, work)

        def body(k: Sequence[Expr]) -> Expr:
            at = dict(zip(self.lhs_contract, k, strict=True)) | batch
            at |= dict(zip(free, left, strict=False))
            of = dict(zip(self.rhs_contract, k, strict=True))
            of |= dict(zip(self.rhs_batch, index, strict=False))
            of |= dict(zip(self.rhs_free(rhs.rank), right, strict=True))
            a = read(0, [at[i] for i in range(lhs.rank)])
            b = read(1, [of[i] for i in range(rhs.rank)])
            return e.binary("mul", wide(a), wide(b))

        value = e.reduce("sum", [lhs.shape[i] for i in self.lhs_contract], body, work)
        return value if work is lhs.dtype else e.cast(value, lhs.dtype)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """The cotangent times the other operand, contracted over what that one alone gave to the result.

        Whichever comes first, the result is in the operand's order where one way is.
        """
        lhs, rhs = p.operands
        left, right = (p.b.type_of(v).rank for v in p.operands)
        m, n = self.lhs_free(left), self.rhs_free(right)
        start = len(self.lhs_batch)
        batch, rows = tuple(range(start)), tuple(range(start, start + len(m)))
        columns = tuple(range(start + len(m), start + len(m) + len(n)))
        pairs = list(zip(self.lhs_contract, self.rhs_contract, strict=True))
        back: Value | None = None
        forth: Value | None = None
        if p.wanted[0]:
            shared = tuple(i for i, _ in sorted(pairs, key=lambda at: at[1]))
            if _in_order(order := self.lhs_batch + shared + m):
                back = p.b(DotGeneral(self.rhs_batch, batch, n, columns), rhs, p.cotangent)
            else:
                order = self.lhs_batch + m + shared
                back = p.b(DotGeneral(batch, self.rhs_batch, columns, n), p.cotangent, rhs)
            back = _put_back(p, back, order)
        if p.wanted[1]:
            shared = tuple(j for _, j in sorted(pairs))
            if _in_order(order := self.rhs_batch + n + shared):
                forth = p.b(DotGeneral(batch, self.lhs_batch, rows, m), p.cotangent, lhs)
            else:
                order = self.rhs_batch + shared + n
                forth = p.b(DotGeneral(self.lhs_batch, batch, m, rows), lhs, p.cotangent)
            forth = _put_back(p, forth, order)
        return back, forth

    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> DimLike:
        """Two per multiply-add."""
        inner = product(operands[0].shape[i] for i in self.lhs_contract)
        return results[0].size * inner * 2

    @staticmethod
    def matrix(batch: int = 0) -> DotGeneral:
        """The plain product [..., m, k] x [..., k, n] with `batch` leading dimensions in common."""
        dims = tuple(range(batch))
        return DotGeneral(dims, dims, (batch + 1,), (batch,))


def _in_order(order: tuple[int, ...]) -> bool:
    return order == tuple(range(len(order)))


def _put_back(p: Pullback, x: Value, order: tuple[int, ...]) -> Value:
    """x, whose dimension i is the operand's `order[i]`, in the operand's order."""
    return x if _in_order(order) else p.b(Transpose(inverse(order)), x)
