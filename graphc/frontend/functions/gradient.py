"""Functions of differentiation."""

from __future__ import annotations

from graphc.autodiff import gradients
from graphc.frontend.signature import Registry
from graphc.ir.graph import GraphBuilder, Value
from graphc.ops import StopGradient

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Gradients")


@_add
def grad(b: GraphBuilder, y: Value, x: Value) -> Value:
    """The gradient of the scalar `y` with respect to `x`, of x's type; zeros where `y` does not depend on it."""
    return gradients(b, y, [x])[0]


@_add
def stop_gradient(b: GraphBuilder, x: Value) -> Value:
    """`x` itself, a constant for `grad`."""
    return b(StopGradient(), x)
