"""Dropout: identity in inference; in a training step elements or whole channels are left out at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from graphc.frontend import draws
from graphc.frontend.keys import RandomKey
from graphc.frontend.layers.base import (
    Layer,
    LayerContext,
    layer_classes,
    need_float,
    need_rank,
    type_of,
)
from graphc.frontend.layers.conv import SPATIAL
from graphc.frontend.report import RejectError
from graphc.ir.dim import Shape
from graphc.ir.graph import GraphBuilder, Value

_Drop = Callable[[GraphBuilder, Value, float, RandomKey, "Shape | None"], Value]


def check_probability(cx: LayerContext, name: str, p: float, help: str | None = None) -> None:
    """Raises RejectError (E0405) for an argument that is no probability."""
    if not 0 <= p <= 1:
        raise RejectError(
            f"`{name}` of {cx.what} is a probability, not {p:g}", argument=name, help=help
        )


@dataclass(frozen=True)
class _Dropout(Layer):
    """Training draws a new mask every step, from the seed, the step and the place of the layer; the backward pass
    uses the same one.
    """

    drop: ClassVar[_Drop] = staticmethod(draws.dropout)
    whole: ClassVar[int | None] = None  # spatial dimensions, where channels are dropped whole

    p: float = 0.5
    inplace: bool = False

    def apply(self, cx: LayerContext, x: Value) -> Value:
        """Applies the layer."""
        check_probability(cx, "p", self.p)
        if self.whole is not None:
            need_rank(cx, x, 2 + self.whole, f"N, C, {SPATIAL[self.whole]}")
        if not cx.training or self.p == 0:
            return x
        need_float(cx, x)
        return type(self).drop(cx.b, x, self.p, cx.random_key(), self._mask(cx, x))

    def _mask(self, cx: LayerContext, x: Value) -> Shape | None:
        """The shape of the mask, if it is not x's."""
        shape = type_of(cx, x).shape
        return None if self.whole is None else (*shape[:2], *(1 for _ in shape[2:]))


@dataclass(frozen=True)
class Dropout(_Dropout):
    """Zeroes elements with probability `p` while training and scales the others by `1 / (1 - p)`.

    Source: `torch.nn.Dropout`; Srivastava et al. 2014.
    """


@dataclass(frozen=True)
class Dropout1d(_Dropout):
    """Zeroes whole channels of `[N, C, L]` with probability `p` while training. Source: `torch.nn.Dropout1d`."""

    whole: ClassVar[int | None] = 1


@dataclass(frozen=True)
class Dropout2d(_Dropout):
    """Zeroes whole channels of `[N, C, H, W]` with probability `p` while training. Source: `torch.nn.Dropout2d`."""

    whole: ClassVar[int | None] = 2


@dataclass(frozen=True)
class Dropout3d(_Dropout):
    """Zeroes whole channels of `[N, C, D, H, W]` with probability `p` while training. Source: `torch.nn.Dropout3d`."""

    whole: ClassVar[int | None] = 3


@dataclass(frozen=True)
class AlphaDropout(_Dropout):
    """Sets elements to SELU's negative limit with probability `p` while training, keeping mean and variance.

    Source: `torch.nn.AlphaDropout`; Klambauer et al. 2017.
    """

    drop: ClassVar[_Drop] = staticmethod(draws.alpha_dropout)


@dataclass(frozen=True)
class FeatureAlphaDropout(AlphaDropout):
    """`AlphaDropout` of whole channels of `[N, C, ...]`. Source: `torch.nn.FeatureAlphaDropout`."""

    def _mask(self, cx: LayerContext, x: Value) -> Shape | None:
        shape = type_of(cx, x).shape
        if len(shape) < 2:
            need_rank(cx, x, 2, "N, C")
        return (*shape[:2], *(1 for _ in shape[2:]))


LAYERS = layer_classes(
    "Dropout", Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout
)
"""The layers of this file."""
