"""What a metric is: something that sees every batch of an epoch and then says a number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from graphc.train.errors import TrainError

Array = npt.NDArray[Any]


class Metric(ABC):
    """A number over an epoch, exact however the rows are cut into batches.

    Attributes:
        name: how it is called in the history and on the command line.
        better: whether less is better, or more: `min` or `max`.
        column: whether its value is a column of the history; what matters of some is in `details` only.
    """

    name: ClassVar[str]
    better: ClassVar[str] = "max"
    column: ClassVar[bool] = True

    @abstractmethod
    def reset(self) -> None:
        """Forgets everything seen."""

    @abstractmethod
    def update(self, prediction: Array, target: Array) -> None:
        """Sees a batch. Raises MetricError when the arrays are not what it can compare."""

    @abstractmethod
    def value(self) -> float:
        """The number for what was seen; NaN where it is not defined."""

    def details(self) -> dict[str, Any]:
        """More than one number, for those who want it: JSON-like."""
        return {}


class MetricError(TrainError):
    """A metric does not fit the model's output, or its arguments are wrong."""


def class_axis(prediction: Array, target: Array, name: str) -> int:
    """The axis of scores: where target has none. PyTorch's axis 1 if that fits, else the last. Raises MetricError."""
    if prediction.ndim == target.ndim + 1:
        for axis in (1, prediction.ndim - 1):
            if prediction.shape[:axis] + prediction.shape[axis + 1 :] == target.shape:
                return axis
    raise MetricError(
        f"{name}: an output of shape {list(prediction.shape)} holds no scores for classes of shape {list(target.shape)}"
    )


def rows_of_scores(prediction: Array, target: Array, name: str) -> tuple[Array, Array]:
    """Scores as [rows, classes] and classes as [rows]."""
    axis = class_axis(prediction, target, name)
    scores = np.moveaxis(prediction, axis, -1)
    return scores.reshape(-1, scores.shape[-1]), target.reshape(-1)


def is_binary(prediction: Array, target: Array) -> bool:
    """One number a row: a score of the positive class, or a class already. [N, 1] counts as [N]."""
    return prediction.size == target.size and (
        prediction.shape == target.shape or prediction.shape == (*target.shape, 1)
    )


def classes_of(
    prediction: Array, target: Array, name: str, threshold: float, ignore: int
) -> tuple[Array, Array, int]:
    """Predicted and true classes as flat i64 arrays without ignored rows, and how many classes there are at least.

    Scores of several classes give the first largest; one float a row is positive above `threshold`; integers are
    classes already.
    """
    width = 0
    if is_binary(prediction, target):
        flat = prediction.reshape(-1)
        guess = flat > threshold if flat.dtype.kind not in "iub" else flat
    else:
        scores, target = rows_of_scores(prediction, target, name)
        guess, width = scores.argmax(1), scores.shape[1]
    truth = target.reshape(-1)
    if truth.dtype.kind not in "iub":
        whole = truth.astype(np.int64)
        if not np.array_equal(whole, truth):
            raise MetricError(f"{name}: the target holds {truth.dtype} that are no classes")
        truth = whole
    keep = truth != ignore
    guess, truth = guess[keep].astype(np.int64), truth[keep].astype(np.int64)
    if truth.size and (truth.min() < 0 or guess.min() < 0):
        raise MetricError(f"{name}: a class is negative")
    return guess, truth, width
