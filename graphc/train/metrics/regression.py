"""Metrics of numbers: squared and absolute errors, and the coefficient of determination. Sums are in f64."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from graphc.train.metrics.base import Array, Metric, MetricError


def _pair(prediction: Array, target: Array, name: str) -> tuple[Array, Array]:
    """Both as [rows, numbers] in f64; [N, 1] against [N] is what a last Linear(1) gives."""
    if prediction.shape != target.shape and prediction.shape != (*target.shape, 1):
        raise MetricError(
            f"{name}: the output has shape {list(prediction.shape)}, the target {list(target.shape)}"
        )
    rows = len(target) if target.ndim else 1
    return tuple(a.astype(np.float64).reshape(rows, -1) for a in (prediction, target))  # type: ignore[return-value]


class MeanSquaredError(Metric):
    """The mean of squared differences."""

    name: ClassVar[str] = "mse"
    better: ClassVar[str] = "min"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self._sum, self._seen = 0.0, 0

    def update(self, prediction: Array, target: Array) -> None:
        """Sees a batch."""
        guess, truth = _pair(prediction, target, self.name)
        self._sum += float(self._error(guess - truth).sum())
        self._seen += truth.size

    def value(self) -> float:
        """The mean over all numbers of all rows."""
        return self._sum / self._seen if self._seen else float("nan")

    def _error(self, difference: Array) -> Array:
        return difference * difference


class RootMeanSquaredError(MeanSquaredError):
    """The square root of the mean of squared differences."""

    name: ClassVar[str] = "rmse"

    def value(self) -> float:
        """The root of the mean."""
        return math.sqrt(super().value())


class MeanAbsoluteError(MeanSquaredError):
    """The mean of absolute differences."""

    name: ClassVar[str] = "mae"

    def _error(self, difference: Array) -> Array:
        return np.abs(difference)


class R2(Metric):
    """1 - squared error / variance of the target, the mean over a row's numbers (sklearn's `r2_score`).

    The variance is updated batch by batch around the running mean (Chan, Golub & LeVeque 1983), so that targets far
    from zero lose no digits.
    """

    name: ClassVar[str] = "r2"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self._seen = 0
        self._error = self._spread = self._mean = np.zeros(1)

    def update(self, prediction: Array, target: Array) -> None:
        """Sees a batch."""
        guess, truth = _pair(prediction, target, self.name)
        count = len(truth)
        if not count:
            return
        mean = truth.mean(0)
        shift = mean - self._mean
        total = self._seen + count
        around = ((truth - mean) ** 2).sum(0)
        self._spread = self._spread + around + shift**2 * (self._seen * count / total)
        self._mean = self._mean + shift * (count / total)
        self._error = self._error + ((guess - truth) ** 2).sum(0)
        self._seen = total

    def value(self) -> float:
        """The mean; a constant target counts 1 if it is met exactly, else 0. NaN for fewer than two rows."""
        if self._seen < 2:
            return float("nan")
        constant = np.where(self._error == 0, 1.0, 0.0)
        spread = np.where(self._spread > 0, self._spread, 1.0)
        return float(np.where(self._spread > 0, 1 - self._error / spread, constant).mean())
