"""What a gradient rule works with: `ir.pullback.Pullback` over a builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.dim import Shape
from graphc.ir.graph import GraphBuilder, Node, Value
from graphc.ir.types import TensorType
from graphc.ops import BroadcastInDim, arith
from graphc.ops.replay import GraphEmitter

Seeds = Sequence[tuple[Value, Value | None]]
Sweep = Callable[[GraphBuilder, Seeds, Sequence[Value], int], tuple[Value | None, ...]]


class Application:
    """One node whose results have cotangents. `sweep` is reverse mode itself, for composites."""

    def __init__(
        self,
        b: GraphBuilder,
        node: Node,
        wanted: Sequence[bool],
        cotangents: Sequence[Value | None],
        sweep: Sweep,
    ) -> None:
        self.b = b
        self.wanted = tuple(wanted)
        self.operands, self.results = node.operands, node.values
        self.cotangents = tuple(cotangents)
        self._sweep, self._first = sweep, len(b.nodes)

    @property
    def cotangent(self) -> Value:
        """The cotangent of the only result."""
        (cotangent,) = self.cotangents
        assert cotangent is not None
        return cotangent

    def arithmetic(self, shape: Shape) -> GraphEmitter:
        """Elementwise arithmetic on values of one shape."""
        return GraphEmitter(self.b, shape)

    def zeros(self, type: TensorType) -> Value:
        """Zeros."""
        return filled(self.b, 0.0, type)

    def sum(self, x: Value, axes: Sequence[int]) -> Value:
        """x summed over axes, which are dropped; x itself for none."""
        return arith.sum(self.b, x, axes)

    def spread(self, x: Value, shape: Shape, axes: Sequence[int]) -> Value:
        """x repeated along `axes` of `shape`; x itself for none."""
        kept = tuple(a for a in range(len(shape)) if a not in axes)
        return arith.as_spread(self.b, x, shape, kept) if axes else x

    def reshape(self, x: Value, shape: Shape) -> Value:
        """x in another shape; x itself when it has it."""
        return arith.reshape(self.b, x, shape)

    def through(self, results: Sequence[Value]) -> tuple[Value | None, ...]:
        """The operands' cotangents through what the rule has emitted since it was asked.

        A value that is an operand several times gets the whole of it the first time.
        """
        seeds = list(zip(results, self.cotangents, strict=True))
        each = list(dict.fromkeys(self.operands))
        found = dict(zip(each, self._sweep(self.b, seeds, each, self._first), strict=True))
        return tuple(found.pop(x, None) for x in self.operands)

    def inside(
        self, b: GraphBuilder, seeds: Seeds, xs: Sequence[Value]
    ) -> tuple[Value | None, ...]:
        """The cotangents of `xs` from those of the seeds, all of them values of another builder: a body."""
        return self._sweep(b, seeds, xs, 0)


def filled(b: GraphBuilder, value: float, type: TensorType) -> Value:
    """A tensor of one number."""
    scalar = arith.constant(b, value, type.dtype)
    return b(BroadcastInDim(type.shape, ()), scalar) if type.shape else scalar
