"""The built-in layers by name. One file per kind; `LAYERS` is the whole table."""

from __future__ import annotations

from graphc.frontend.layers import (
    activation,
    adaptive,
    attention,
    conv,
    dropout,
    linear,
    norm,
    pool,
    recurrent,
    shape,
)
from graphc.frontend.layers.base import Layer, LayerClass, LayerContext

__all__ = ["LAYERS", "Layer", "LayerClass", "LayerContext"]

LAYERS: dict[str, LayerClass] = {
    **linear.LAYERS,
    **conv.LAYERS,
    **pool.LAYERS,
    **adaptive.LAYERS,
    **norm.LAYERS,
    **attention.LAYERS,
    **recurrent.LAYERS,
    **activation.LAYERS,
    **dropout.LAYERS,
    **shape.LAYERS,
}
"""Every built-in layer, by the name `.nn` files use."""
