"""Metrics over an epoch, by the names that the command line and the history use."""

from __future__ import annotations

import inspect
import json
import re

from graphc.train.metrics.base import Metric, MetricError
from graphc.train.metrics.classification import (
    F1,
    Accuracy,
    ConfusionMatrix,
    Precision,
    Recall,
    TopK,
)
from graphc.train.metrics.regression import (
    R2,
    MeanAbsoluteError,
    MeanSquaredError,
    RootMeanSquaredError,
)
from graphc.train.metrics.scores import Perplexity, RocAuc

__all__ = [
    "F1",
    "METRICS",
    "R2",
    "Accuracy",
    "ConfusionMatrix",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "MetricError",
    "Perplexity",
    "Precision",
    "Recall",
    "RocAuc",
    "RootMeanSquaredError",
    "TopK",
    "lower_is_better",
    "make",
]

_ALL: tuple[type[Metric], ...] = (
    Accuracy,
    TopK,
    Precision,
    Recall,
    F1,
    ConfusionMatrix,
    RocAuc,
    MeanSquaredError,
    RootMeanSquaredError,
    MeanAbsoluteError,
    R2,
    Perplexity,
)

METRICS: dict[str, type[Metric]] = {m.name: m for m in _ALL}
"""Every metric by its name."""

_CALL = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*")
_ARGUMENT = re.compile(r"(\w+)\s*=\s*(\S+)")


def make(text: str) -> Metric:
    """The metric that `accuracy`, `top_k(k=5)` or `f1(average=micro)` means. Raises MetricError."""
    match = _CALL.fullmatch(text)
    if match is None or match[1] not in METRICS:
        raise MetricError(f"there is no metric `{text}`; there are {', '.join(METRICS)}")
    kind = METRICS[match[1]]
    known = inspect.signature(kind).parameters
    arguments = {}
    for part in filter(None, (p.strip() for p in (match[2] or "").split(","))):
        argument = _ARGUMENT.fullmatch(part)
        if argument is None or argument[1] not in known:
            takes = ", ".join(known) or "no arguments"
            raise MetricError(f"metric `{text}`: `{part}` is none of its arguments ({takes})")
        default = known[argument[1]].default
        value = _literal(argument[2])
        if isinstance(default, str) != isinstance(value, str) or (
            isinstance(default, int) and not isinstance(value, int)
        ):
            raise MetricError(f"metric `{text}`: `{part}` is no {type(default).__name__}")
        arguments[argument[1]] = value
    return kind(**arguments)


def _literal(text: str) -> str | int | float:
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip('"')
    return value if type(value) in (int, float, str) else text


def lower_is_better(name: str) -> bool:
    """Whether less of a history's column is better: True for losses, errors and perplexity.

    Names of validation columns (`val_accuracy`) are those of training ones; an unknown name is a loss if it says so.
    """
    plain = name.removeprefix("val_").partition("(")[0]
    if plain in METRICS:
        return METRICS[plain].better == "min"
    return any(word in plain for word in ("loss", "error", "perplexity", "nll", "mse", "mae"))
