"""Initialisers of parameters: `param w: f32[D, D] = orthogonal()`. The formulas are in `frontend/initialisers.py`."""

from __future__ import annotations

from graphc.frontend.initialisers import Initializer
from graphc.frontend.report import RejectError
from graphc.frontend.signature import Registry
from graphc.ir.graph import GraphBuilder

FUNCTIONS = Registry()
_add = FUNCTIONS.add("Initialisers")


@_add
def constant(b: GraphBuilder, value: float) -> Initializer:
    """Every element is `value`."""
    return Initializer.of("constant", value=value)


@_add
def uniform(b: GraphBuilder, low: float = 0.0, high: float = 1.0) -> Initializer:
    """Uniform in [low, high)."""
    if low > high:
        raise RejectError(f"uniform from {low:g} to {high:g} is empty", argument="high")
    return Initializer.of("uniform", low=low, high=high)


@_add
def normal(b: GraphBuilder, mean: float = 0.0, std: float = 1.0) -> Initializer:
    """Normal with a mean and a standard deviation."""
    return Initializer.of("normal", mean=mean, std=_positive(std))


@_add
def trunc_normal(
    b: GraphBuilder, mean: float = 0.0, std: float = 1.0, low: float = -2.0, high: float = 2.0
) -> Initializer:
    """Normal, with numbers outside of [low, high] drawn again. Source: `torch.nn.init.trunc_normal_`."""
    if low >= high:
        raise RejectError(f"trunc_normal from {low:g} to {high:g} is empty", argument="high")
    return Initializer.of("trunc_normal", mean=mean, std=_positive(std), low=low, high=high)


@_add
def xavier_uniform(b: GraphBuilder, gain: float = 1.0) -> Initializer:
    """Uniform in ±gain * sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    return Initializer.of("xavier_uniform", gain=gain)


@_add
def xavier_normal(b: GraphBuilder, gain: float = 1.0) -> Initializer:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    return Initializer.of("xavier_normal", gain=gain)


@_add
def kaiming_uniform(b: GraphBuilder, a: float = 0.0) -> Initializer:
    """Uniform in ±sqrt(6 / ((1 + a²) fan_in)) (He et al. 2015)."""
    return Initializer.of("kaiming_uniform", a=a)


@_add
def kaiming_normal(b: GraphBuilder, a: float = 0.0) -> Initializer:
    """Normal with std sqrt(2 / ((1 + a²) fan_in)) (He et al. 2015)."""
    return Initializer.of("kaiming_normal", a=a)


@_add
def orthogonal(b: GraphBuilder, gain: float = 1.0) -> Initializer:
    """A (semi-)orthogonal matrix (Saxe et al. 2013)."""
    return Initializer.of("orthogonal", gain=gain)


def _positive(std: float) -> float:
    if std < 0:
        raise RejectError(f"`std` cannot be negative and is {std:g}", argument="std")
    return std
