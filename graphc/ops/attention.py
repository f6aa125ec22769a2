"""Scaled dot-product attention and its gradient, kept whole for kernels that never store the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.dtype import DType
from graphc.ir.graph import GraphBuilder, Value
from graphc.ir.op import Array, OpError
from graphc.ir.pullback import Pullback
from graphc.ir.types import TensorType
from graphc.ops import arith
from graphc.ops.composite import Composite, in_working_precision
from graphc.ops.dot import DotGeneral
from graphc.ops.errors import check_kind, check_rank
from graphc.ops.norm import Softmax
from graphc.ops.numerics import as_f64, rounded
from graphc.ops.source import Iota


@dataclass(frozen=True)
class Attention(Composite):
    """softmax(q k^T * scale + mask) v per batch and head (Vaswani et al. 2017), as PyTorch's function of this name.

    Operands (q [B, h, T, d], k [B, h, S, d], v [B, h, S, e], mask); the mask may be left out. It is bool (True: take
    part) or additive in q's element type, and has 4 dimensions, each equal to that of [B, h, T, S] or 1. `causal`
    lets query t see keys 0 to t. A query that may see nothing gives zeros.
    """

    name: ClassVar[str] = "attention"
    family: ClassVar[str] = "attention"
    expensive: ClassVar[bool] = True
    operand_names: ClassVar[tuple[str, ...]] = ("q", "k", "v", "mask")
    required: ClassVar[int] = 3
    strided_operands: ClassVar[int] = 3
    scale: float
    causal: bool = False

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """[B, h, T, e]. Raises OpError E0201 to E0206."""
        self.check_count(operands)
        q, k, v = operands[:3]
        check_kind(self.name, q, "float", 0)
        for slot, x in enumerate((q, k, v)):
            check_rank(self.name, x, 4, slot, self.operand_names[slot])
            if x.dtype is not q.dtype:
                raise OpError(
                    f"attention of q {q} and {self.operand_names[slot]} {x}: element types differ",
                    operand=slot,
                    code="E0206",
                )
            if x.shape[:2] != q.shape[:2]:
                raise OpError(
                    f"attention of q {q} and {self.operand_names[slot]} {x}: "
                    "batches or heads differ",
                    operand=slot,
                    code="E0202",
                )
        if k.shape[3] != q.shape[3]:
            raise OpError(
                f"attention of q {q} and k {k}: head sizes {q.shape[3]} and {k.shape[3]} differ",
                operand=1,
                code="E0203",
            )
        if v.shape[2] != k.shape[2]:
            raise OpError(
                f"attention of k {k} and v {v}: {k.shape[2]} keys for {v.shape[2]} values",
                operand=2,
                code="E0203",
            )
        if len(operands) > 3:
            self._check_mask(operands[3], q, (*q.shape[:3], k.shape[2]))
        return (q.with_shape((*q.shape[:3], v.shape[3])),)

    def _check_mask(self, mask: TensorType, q: TensorType, scores: tuple[object, ...]) -> None:
        if mask.dtype not in (DType.BOOL, q.dtype):
            raise OpError(
                f"attention takes a mask of bool or {q.dtype} and got {mask}",
                operand=3,
                code="E0206",
            )
        check_rank(self.name, mask, 4, 3, "a mask")
        if any(d not in (1, s) for d, s in zip(mask.shape, scores, strict=True)):
            shape = ", ".join(map(str, scores))
            raise OpError(
                f"attention: mask {mask} does not broadcast to the scores' [{shape}]",
                operand=3,
                code="E0202",
            )

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """In f64."""
        q, k, v = (as_f64(x) for x in operands[:3])
        with np.errstate(all="ignore"):
            return (rounded(np.matmul(self.weights_of(q, k, *operands[3:]), v), operands[0]),)

    def weights_of(self, q: Array, k: Array, mask: Array | None = None) -> Array:
        """What each query takes of each key, [B, h, T, S], for f64 arrays; NumPy's `weights`."""
        scores = np.matmul(q, k.swapaxes(-1, -2)) * self.scale
        if mask is not None:
            scores = (
                np.where(mask, scores, -np.inf) if mask.dtype == np.bool_ else scores + as_f64(mask)
            )
        if self.causal:
            seen = np.tri(q.shape[2], k.shape[2], dtype=np.bool_)
            scores = np.where(seen, scores, -np.inf)
        top = scores.max(-1, keepdims=True, initial=-np.inf)
        powers = np.exp(scores - top)
        return np.where(top == -np.inf, 0.0, powers / powers.sum(-1, keepdims=True))

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """A product, scale and masks, softmax, a product. Rows that see nothing are set to 0 where there is a mask."""
        return (self._parts(b, operands, smooth=False),)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """`AttentionGradient`; where the mask's cotangent is asked for, through the decomposition instead.

        A row that sees nothing has gradient 0.
        """
        if any(p.wanted[3:]):
            return p.through([self._parts(p.b, p.operands, smooth=True)])
        q, k, v, *mask = p.operands
        op = AttentionGradient(self.scale, self.causal)
        found = p.b.emit(op, q, k, v, *p.results, p.cotangent, *mask)
        return (*found, *(None for _ in mask))

    def weights(
        self, b: GraphBuilder, q: Value, k: Value, mask: Value | None = None, *, smooth: bool
    ) -> Value:
        """What each query takes of each key, [B, h, T, S], in f32 for half precision.

        `smooth` keeps the softmax finite too in rows whose outcome is not used, for the sake of gradients.
        """
        q, k = in_working_precision(b, q, k)
        scores = b(DotGeneral((0, 1), (0, 1), (3,), (3,)), q, k)
        scores = arith.multiply(b, scores, self.scale)
        shape = b.type_of(scores).shape
        if mask is not None:
            (mask,) = in_working_precision(b, mask)
            if b.type_of(mask).dtype is DType.BOOL:
                scores = arith.select(b, mask, scores, -np.inf)
            else:
                scores = arith.add(b, scores, mask)
        if self.causal:
            query, key = (b(Iota(DType.I64, shape[2:], axis)) for axis in (0, 1))
            scores = arith.select(b, arith.compare(b, "le", key, query), scores, -np.inf)
        if mask is None:
            return b(Softmax(3), scores)
        seen = arith.compare(b, "ne", arith.max(b, scores, 3), -np.inf)
        seen = arith.as_spread(b, seen, shape, (0, 1, 2))
        if smooth:
            scores = arith.select(b, seen, scores, 0.0)
        return arith.select(b, seen, b(Softmax(3), scores), 0.0)

    def _parts(self, b: GraphBuilder, operands: tuple[Value, ...], smooth: bool) -> Value:
        """The decomposition."""
        q, k, v, *mask = operands
        weights = self.weights(b, q, k, *mask, smooth=smooth)
        return self.weighted(b, weights, v)

    @staticmethod
    def weighted(b: GraphBuilder, weights: Value, v: Value) -> Value:
        """The values taken by weights, in the values' element type."""
        dtype = b.type_of(v).dtype
        (v,) = in_working_precision(b, v)
        return arith.convert(b, b(DotGeneral((0, 1), (0, 1), (3,), (2,)), weights, v), dtype)


@dataclass(frozen=True)
class AttentionGradient(Composite):
    """The cotangents of q, k and v, from (q, k, v, result, cotangent of the result, mask) of `Attention`.

    With the weights P and the result O = P v, D being O's cotangent (Dao 2023, FlashAttention-2, section 2.2):
    dv = P^T D, dS = P * (D v^T - rowsum(D * O)), dq = dS k * scale, dk = dS^T q * scale. Taking the row sums from the
    result instead of the weights is what lets a kernel forget the weights. A row that sees nothing has gradient 0.
    """

    name: ClassVar[str] = "attention_gradient"
    arity: ClassVar[int | None] = None
    family: ClassVar[str] = "attention"
    expensive: ClassVar[bool] = True
    operand_names: ClassVar[tuple[str, ...]] = ("q", "k", "v", "result", "cotangent", "mask")
    required: ClassVar[int] = 5
    strided_operands: ClassVar[int] = 6
    scale: float
    causal: bool = False

    @property
    def forward(self) -> Attention:
        """The attention that this is the gradient of."""
        return Attention(self.scale, self.causal)

    def infer(self, *operands: TensorType) -> tuple[TensorType, ...]:
        """The types of q, k and v. Raises OpError E0203 where a result is not what attention gives, E0201-E0206."""
        self.check_count(operands)
        q, k, v, *results = operands[:5]
        (type,) = self.forward.infer(q, k, v, *operands[5:])
        for slot, given in enumerate(results, 3):
            if given != type:
                raise OpError(
                    f"{self.name}: attention gives {type} and its {self.operand_names[slot]} is {given}",
                    operand=slot,
                    code="E0203",
                )
        return (q, k, v)

    def evaluate(self, *operands: Array) -> tuple[Array, ...]:
        """In f64."""
        q, k, v, result, given = (as_f64(x) for x in operands[:5])
        with np.errstate(all="ignore"):
            weights = self.forward.weights_of(q, k, *operands[5:])
            sums = (given * result).sum(-1, keepdims=True)
            scores = weights * (np.matmul(given, v.swapaxes(-1, -2)) - sums) * self.scale
            found = (
                np.matmul(scores, k),
                np.matmul(scores.swapaxes(-1, -2), q),
                np.matmul(weights.swapaxes(-1, -2), given),
            )
        return tuple(rounded(x, like) for x, like in zip(found, operands, strict=False))

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """The weights again, and four products; in f32 for half precision."""
        q, k, v, result, given = in_working_precision(b, *operands[:5])
        weights = self.forward.weights(b, *operands[:2], *operands[5:], smooth=True)
        shape = b.type_of(weights).shape
        sums = arith.sum(b, arith.multiply(b, given, result), 3)
        change = b(DotGeneral((0, 1), (0, 1), (3,), (3,)), given, v)
        change = arith.subtract(b, change, arith.as_spread(b, sums, shape, (0, 1, 2)))
        scores = arith.multiply(b, arith.multiply(b, weights, change), self.scale)
        over_keys, over_queries = (DotGeneral((0, 1), (0, 1), (a,), (2,)) for a in (3, 2))
        found = b(over_keys, scores, k), b(over_queries, scores, q), b(over_queries, weights, given)
        dtype = b.type_of(operands[0]).dtype
        return tuple(arith.convert(b, x, dtype) for x in found)
