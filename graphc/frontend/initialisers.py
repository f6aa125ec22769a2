"""Parameter initialisers: their text in a graph, and the arrays they make.

The formulas are those of `torch.nn.init`; the random numbers are NumPy's PCG64, one independent stream per
parameter path, so that adding a layer changes nobody else's weights and equal seeds give equal arrays anywhere.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphc.ir.op import Array

DEFAULTS: dict[str, dict[str, float]] = {
    "zeros": {},
    "ones": {},
    "constant": {"value": 0.0},
    "uniform": {"low": 0.0, "high": 1.0},
    "normal": {"mean": 0.0, "std": 1.0},
    "trunc_normal": {"mean": 0.0, "std": 1.0, "low": -2.0, "high": 2.0},
    "xavier_uniform": {"gain": 1.0},
    "xavier_normal": {"gain": 1.0},
    "kaiming_uniform": {"a": 0.0},
    "kaiming_normal": {"a": 0.0},
    "orthogonal": {"gain": 1.0},
}
"""Every initialiser with its arguments and their defaults. `kaiming_*` take fan-in and the gain of a leaky ReLU."""

NEEDS_MATRIX = frozenset(
    ("xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", "orthogonal")
)
"""Initialisers that need at least two dimensions, to tell fan-in from fan-out."""


@dataclass(frozen=True)
class Initializer:
    """An initialiser with its arguments; `str` is the text a graph keeps, `parse` reads it back."""

    name: str
    arguments: tuple[tuple[str, float], ...] = ()

    @staticmethod
    def of(name: str, **arguments: float) -> Initializer:
        """The initialiser called `name`, with the defaults filled in. Raises KeyError for an unknown one."""
        values = {**DEFAULTS[name]}
        for key, value in arguments.items():
            if key not in values:
                raise KeyError(key)
            values[key] = float(value)
        return Initializer(name, tuple(values.items()))

    @staticmethod
    def parse(text: str) -> Initializer:
        """Reads `normal(mean=0.0, std=0.02)`. Raises ValueError for anything else."""
        match = re.fullmatch(r"(\w+)\((.*)\)", text)
        try:
            if match is None:
                raise ValueError
            pairs = [part.split("=", 1) for part in match[2].split(",") if part.strip()]
            return Initializer.of(match[1], **{key.strip(): float(v) for key, v in pairs})
        except (ValueError, KeyError) as error:
            raise ValueError(f"{text!r} is no initialiser") from error

    @property
    def needs_matrix(self) -> bool:
        """True for those that tell fan-in from fan-out, and for `orthogonal`."""
        return self.name in NEEDS_MATRIX

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments)})"


def stream(path: str, seed: int) -> np.random.Generator:
    """The random stream of one parameter: seeded by SHA-256 of its path, and by `seed`."""
    digest = hashlib.sha256(path.encode()).digest()
    entropy = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, *np.frombuffer(digest, "<u4").tolist()]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan-in, fan-out) of a weight [out, in, *kernel]. Source: `torch.nn.init._calculate_fan_in_and_fan_out`."""
    if len(shape) < 2:
        raise ValueError("fan-in and fan-out need at least two dimensions")
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def make(text: str, shape: tuple[int, ...], path: str, seed: int) -> Array:
    """The f32 array of one parameter.

    Raises ValueError for a text that is no initialiser, and for a vector where a matrix is needed.
    """
    init = Initializer.parse(text)
    a: Mapping[str, float] = dict(init.arguments)
    rng = stream(path, seed)
    if init.name in ("zeros", "ones", "constant"):
        value = {"zeros": 0.0, "ones": 1.0}.get(init.name, a.get("value", 0.0))
        return np.full(shape, value, np.float32)
    if init.name == "uniform":
        return _uniform(rng, shape, a["low"], a["high"])
    if init.name == "normal":
        return _normal(rng, shape, a["mean"], a["std"])
    if init.name == "trunc_normal":
        return _truncated(rng, shape, a["mean"], a["std"], a["low"], a["high"])
    if init.name == "orthogonal":
        return _orthogonal(rng, shape, a["gain"])
    fan_in, fan_out = fans(shape)
    if init.name.startswith("xavier"):
        std = a["gain"] * math.sqrt(2.0 / max(1, fan_in + fan_out))
    else:
        std = math.sqrt(2.0 / (1.0 + a["a"] ** 2)) / math.sqrt(max(1, fan_in))
    if init.name.endswith("_normal"):
        return _normal(rng, shape, 0.0, std)
    bound = math.sqrt(3.0) * std
    return _uniform(rng, shape, -bound, bound)


def _uniform(rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> Array:
    out = rng.random(shape, dtype=np.float32)
    out *= np.float32(high - low)
    out += np.float32(low)
    return out


def _normal(rng: np.random.Generator, shape: tuple[int, ...], mean: float, std: float) -> Array:
    out = rng.standard_normal(shape, dtype=np.float32)
    out *= np.float32(std)
    out += np.float32(mean)
    return out


def _truncated(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    mean: float,
    std: float,
    low: float,
    high: float,
) -> Array:
    """Normal numbers redrawn until they lie in [low, high]; uniform where that range is out in the tail."""
    if std <= 0 or low >= high:
        return np.full(shape, min(max(mean, low), high), np.float32)
    if abs(min(max(mean, low), high) - mean) > 3 * std:
        return _uniform(rng, shape, low, high)
    out = _normal(rng, shape, mean, std)
    bad = (out < low) | (out > high)
    while bad.any():
        out[bad] = _normal(rng, (int(bad.sum()),), mean, std)
        bad = (out < low) | (out > high)
    return out


def _orthogonal(rng: np.random.Generator, shape: tuple[int, ...], gain: float) -> Array:
    """A (semi-)orthogonal matrix (Saxe et al. 2013): QR of normal numbers, later dimensions flattened."""
    if len(shape) < 2:
        raise ValueError("orthogonal needs at least two dimensions")
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q *= np.where(np.diagonal(r) < 0, -gain, gain)
    return np.ascontiguousarray((q if rows >= columns else q.T).reshape(shape), np.float32)
