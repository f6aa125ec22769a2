"""The built-in functions by name: what is written in lower case and owns no parameters.

One file per kind. An implementation takes the graph builder, then its arguments; its Python signature is the
signature that `.nn` files see, its docstring the documentation.
"""

from __future__ import annotations

from graphc.frontend.functions import (
    colour,
    create,
    elementwise,
    gradient,
    initial,
    linalg,
    loss,
    loss_class,
    loss_ctc,
    loss_pairs,
    mix,
    neural,
    plain,
    random,
    reduce,
    shape,
    warp,
)
from graphc.frontend.signature import Function

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Function] = {
    **plain.FUNCTIONS,
    **elementwise.FUNCTIONS,
    **reduce.FUNCTIONS,
    **shape.FUNCTIONS,
    **create.FUNCTIONS,
    **linalg.FUNCTIONS,
    **neural.FUNCTIONS,
    **loss.FUNCTIONS,
    **loss_class.FUNCTIONS,
    **loss_ctc.FUNCTIONS,
    **loss_pairs.FUNCTIONS,
    **random.FUNCTIONS,
    **warp.FUNCTIONS,
    **colour.FUNCTIONS,
    **mix.FUNCTIONS,
    **gradient.FUNCTIONS,
    **initial.FUNCTIONS,
}
"""Every built-in function, by the name `.nn` files use."""
