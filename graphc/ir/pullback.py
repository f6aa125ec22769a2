"""What the gradient rule of an op is given: one application, the cotangents of its results, arithmetic to answer in.

`Op.gradient` is written against this, as `Op.compute` is against `Emitter`; `graphc/autodiff` implements it over a
builder. A cotangent has the type of its value. `None` stands for zero, so that what does not depend costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from graphc.ir.dim import Shape
from graphc.ir.types import TensorType

if TYPE_CHECKING:
    from graphc.ir.graph import GraphBuilder, Value


class Pullback(Protocol):
    """One application of an op on its way back."""

    @property
    def b(self) -> GraphBuilder:
        """Where the rule emits."""

    @property
    def operands(self) -> tuple[Value, ...]:
        """The application's operands."""

    @property
    def results(self) -> tuple[Value, ...]:
        """The application's results."""

    @property
    def wanted(self) -> tuple[bool, ...]:
        """Which operands' cotangents are asked for: others may be None even where they are not zero."""

    @property
    def cotangents(self) -> tuple[Value | None, ...]:
        """The cotangents of the results; at least one is not None."""

    @property
    def cotangent(self) -> Value:
        """The cotangent of the only result."""

    def arithmetic(self, shape: Shape) -> Any:
        """Elementwise arithmetic (`ops.elementwise.Arithmetic`) on values of one shape."""

    def zeros(self, type: TensorType) -> Value:
        """Zeros."""

    def sum(self, x: Value, axes: Sequence[int]) -> Value:
        """x summed over axes, which are dropped; x itself for none."""

    def spread(self, x: Value, shape: Shape, axes: Sequence[int]) -> Value:
        """x repeated along `axes` of `shape`: what a reduction over them dropped, back."""

    def reshape(self, x: Value, shape: Shape) -> Value:
        """x in another shape; x itself when it has it."""

    def through(self, results: Sequence[Value]) -> tuple[Value | None, ...]:
        """The operands' cotangents if `results`, emitted by the rule from the operands, took the results' place."""

    def inside(
        self, b: GraphBuilder, seeds: Sequence[tuple[Value, Value | None]], xs: Sequence[Value]
    ) -> tuple[Value | None, ...]:
        """The cotangents of `xs` from those of the seeds, all of them values of another builder: a body."""
