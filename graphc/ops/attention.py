"""Scaled dot-product attention, kept whole for kernels that never store the scores."""

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
            scores = np.matmul(q, k.swapaxes(-1, -2)) * self.scale
            if len(operands) > 3:
                mask, keeps = operands[3], operands[3].dtype == np.bool_
                scores = np.where(mask, scores, -np.inf) if keeps else scores + as_f64(mask)
            if self.causal:
                seen = np.tri(q.shape[2], k.shape[2], dtype=np.bool_)
                scores = np.where(seen, scores, -np.inf)
            top = scores.max(-1, keepdims=True, initial=-np.inf)
            powers = np.exp(scores - top)
            weights = powers / powers.sum(-1, keepdims=True)
            weights = np.where(top == -np.inf, 0.0, weights)
            return (rounded(np.matmul(weights, v), operands[0]),)

    def decompose(self, b: GraphBuilder, *operands: Value) -> tuple[Value, ...]:
        """A product, scale and masks, softmax, a product. Rows that see nothing are set to 0 where there is a mask."""
        return (self._parts(b, operands, smooth=False),)

    def gradient(self, p: Pullback) -> tuple[Value | None, ...]:
        """Through the decomposition, where a row that sees nothing has gradient 0."""
        return p.through([self._parts(p.b, p.operands, smooth=True)])

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
