"""Metrics of a validation pass: which output is compared with which label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.train.metrics import Metric, MetricError, make
from graphc.train.ports import Port

Array = np.ndarray[Any, np.dtype[Any]]


class Scoring:
    """Feeds metrics from the results of `evaluate`.

    Args:
        metrics: objects, or texts such as `top_k(k=5)`; the history's columns are called as they are written.
        ports: the step's inputs.
        prediction: the output that is judged; needed when there are several.
        target: the input it is compared with; needed when the train block declares several.

    Raises:
        MetricError: no such metric or input, or it is not clear which input is meant.
    """

    def __init__(
        self,
        metrics: Sequence[str | Metric],
        ports: Sequence[Port],
        prediction: str | None = None,
        target: str | None = None,
    ) -> None:
        self._metrics = {m if isinstance(m, str) else m.name: _made(m) for m in metrics}
        self._prediction = prediction
        self._target = _target(ports, target) if metrics else ""

    def reset(self) -> None:
        """Begins a pass."""
        for metric in self._metrics.values():
            metric.reset()

    def update(self, results: Mapping[str, Array], batch: Mapping[str, Array]) -> None:
        """Sees a batch. Raises MetricError when an output does not fit."""
        if not self._metrics:
            return
        name = self._chosen(results)
        for metric in self._metrics.values():
            metric.update(results[name], batch[self._target])

    def values(self) -> dict[str, float]:
        """The numbers for the history, by name."""
        return {name: m.value() for name, m in self._metrics.items() if m.column}

    def details(self) -> dict[str, Any]:
        """Confusion matrices and numbers by class, by name, where a metric has them."""
        found = {name: metric.details() for name, metric in self._metrics.items()}
        return {name: details for name, details in found.items() if details}

    def _chosen(self, results: Mapping[str, Array]) -> str:
        outputs = [name for name, value in results.items() if value.ndim]
        if self._prediction is None and len(outputs) == 1:
            return outputs[0]
        if self._prediction in outputs:
            return str(self._prediction)
        have = ", ".join(outputs) or "none"
        if self._prediction is None:
            raise MetricError(f"which output do the metrics judge? The model has {have}")
        raise MetricError(f"the model has no output `{self._prediction}` to judge; it has {have}")


def _made(metric: str | Metric) -> Metric:
    return make(metric) if isinstance(metric, str) else metric


def _target(ports: Sequence[Port], name: str | None) -> str:
    names = [p.name for p in ports]
    if name is not None:
        if name not in names:
            raise MetricError(
                f"there is no input `{name}` to compare with; there are {', '.join(names)}"
            )
        return name
    targets = [p.name for p in ports if p.target]
    if len(targets) != 1:
        raise MetricError(
            f"which input do the metrics compare with? There are {', '.join(targets or names)}"
        )
    return targets[0]
