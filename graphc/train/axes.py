"""Scales of a chart: round tick values, and numbers to positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOG_RATIO = 50.0
"""Positive values that span more than this factor are shown on a logarithmic scale."""


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high` with ticks.

    Attributes:
        low: the value at position 0.
        high: the value at position 1.
        ticks: values to mark, within.
        log: positions go by the logarithm.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """The position of a value, 0 to 1."""
        if self.log:
            span = math.log(self.high) - math.log(self.low)
            return (math.log(max(value, self.low)) - math.log(self.low)) / span
        return (value - self.low) / (self.high - self.low)

    def labels(self) -> list[str]:
        """Texts of the ticks: as few digits as tell them apart."""
        if self.log:
            return [f"{t:g}" for t in self.ticks]
        if not self.ticks:
            return []
        largest = max(abs(t) for t in self.ticks)
        if largest >= 1e5 or 0 < largest < 1e-4:
            return [f"{t:.3g}" for t in self.ticks]
        step = min(
            (b - a for a, b in zip(self.ticks, self.ticks[1:], strict=False)), default=largest or 1
        )
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [f"{t + 0.0:.{digits}f}" for t in self.ticks]


def values_axis(values: Sequence[float], count: int = 5) -> Axis:
    """An axis that shows all finite values, with about `count` ticks at round numbers."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if low > 0 and high / low > LOG_RATIO:
        return _log_axis(low, high)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        pad = abs(high) * 0.1 or 0.5
        low, high = low - pad, high + pad
    step = _round_step((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 12) if step > 1e-9 else i * step for i in range(first, last + 1))
    return Axis(first * step, last * step, ticks)


def count_axis(last: int, count: int = 8) -> Axis:
    """An axis of whole numbers from 1 to `last` (or 0 to 2 when there is one only)."""
    if last <= 1:
        return Axis(0, 2, (1,))
    step = max(1, round(_round_step((last - 1) / count)))
    ticks = tuple(float(t) for t in range(step, last + 1, step))
    return Axis(1, last, ticks if step == 1 else (1.0, *(t for t in ticks if t > 1)))


def _log_axis(low: float, high: float) -> Axis:
    low = 10.0 ** math.floor(math.log10(low) + 1e-9)
    high = 10.0 ** math.ceil(math.log10(high) - 1e-9)
    decades = round(math.log10(high / low))
    every = max(1, -(-decades // 6))
    start = round(math.log10(low))
    return Axis(low, high, tuple(10.0**e for e in range(start, start + decades + 1, every)), True)


def _round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    factor = rough / power
    return next(f for f in (1, 2, 5, 10) if factor <= f * (1 + 1e-9)) * power
