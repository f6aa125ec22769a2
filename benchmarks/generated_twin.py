"""The PyTorch twin of a generated network (`generated.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from generated import Layer, Residual, Stage
from torch import Tensor, nn


class Network(nn.Module):
    """Runs its stages one after another; the layers are its attributes, under their labels."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = stages
        for stage in stages:
            for layer in stage.stages if isinstance(stage, Residual) else (stage,):
                first = () if layer.inferred is None else (layer.inferred,)
                self.add_module(
                    layer.label, getattr(nn, layer.kind)(*first, **dict(layer.arguments))
                )

    def _run(self, layer: Layer, x: Tensor) -> Tensor:
        module = getattr(self, layer.label)
        if isinstance(module, nn.MultiheadAttention):
            return module(x, x, x, need_weights=False)[0]
        return module(x)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            if isinstance(stage, Residual):
                y = x
                for layer in stage.stages:
                    y = self._run(layer, y)
                x = x + y
            else:
                x = self._run(stage, x)
        return x
