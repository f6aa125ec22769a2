"""Metrics of classes: accuracy, top-k, precision, recall, F1 and the confusion matrix.

Definitions and corner cases are scikit-learn's (`sklearn.metrics`, `zero_division=0`). Counts are integers: the cut
into batches changes nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from graphc.train.metrics.base import Array, Metric, MetricError, classes_of, rows_of_scores

IGNORE = -100
"""The class that counts nowhere; PyTorch's default `ignore_index`."""
MAX_CLASSES = 4096
"""A confusion matrix of more classes would be larger than anybody can look at: 128 MiB."""
AVERAGES = ("macro", "micro", "weighted", "binary")


class Accuracy(Metric):
    """The share of rows whose class is right.

    Args:
        threshold: above it a single score means the positive class; 0 for logits, 0.5 for probabilities.
        ignore: rows of this class do not count.
    """

    name: ClassVar[str] = "accuracy"

    def __init__(self, threshold: float = 0.0, ignore: int = IGNORE) -> None:
        self._threshold, self._ignore = threshold, ignore
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self._right = self._seen = 0

    def update(self, prediction: Array, target: Array) -> None:
        """Sees a batch: scores [N, C, ...] or [N], classes [N, ...]."""
        guess, truth, _ = classes_of(prediction, target, self.name, self._threshold, self._ignore)
        self._right += int((guess == truth).sum())
        self._seen += len(truth)

    def value(self) -> float:
        """Right rows / rows."""
        return self._right / self._seen if self._seen else float("nan")


class TopK(Metric):
    """The share of rows whose class is among the k with the highest scores.

    Scores that equal the true class's count against it only if their class comes first, so that exactly k classes are
    in the top k.
    """

    name: ClassVar[str] = "top_k"

    def __init__(self, k: int = 5, ignore: int = IGNORE) -> None:
        if k < 1:
            raise MetricError(f"top_k: k is at least 1, not {k}")
        self._k, self._ignore = int(k), ignore
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self._right = self._seen = 0

    def update(self, prediction: Array, target: Array) -> None:
        """Sees a batch: scores [N, C, ...], classes [N, ...]."""
        scores, truth = rows_of_scores(prediction, target, self.name)
        scores, truth = scores[truth != self._ignore], truth[truth != self._ignore]
        if truth.size and not 0 <= truth.min() <= truth.max() < scores.shape[1]:
            raise MetricError(f"{self.name}: a class is outside of the {scores.shape[1]} scores")
        own = np.take_along_axis(scores, truth[:, None].astype(np.int64), 1)
        first = np.arange(scores.shape[1]) < truth[:, None]
        before = (scores > own) | ((scores == own) & first)
        self._right += int(((before.sum(1) < self._k) & ~np.isnan(own[:, 0])).sum())
        self._seen += len(truth)

    def value(self) -> float:
        """Right rows / rows."""
        return self._right / self._seen if self._seen else float("nan")


class _PerClass(Metric):
    """Precision, recall and F1 come from three counts per class: hits, predictions, and rows.

    Args:
        average: `macro` (mean over the classes that occur), `micro` (all rows together), `weighted` (mean weighted
            by rows of the class), or `binary` (class 1 alone).
        threshold: above it a single score means the positive class.
        ignore: rows of this class do not count.
    """

    def __init__(
        self, average: str = "macro", threshold: float = 0.0, ignore: int = IGNORE
    ) -> None:
        if average not in AVERAGES:
            raise MetricError(f"{self.name}: average is one of {', '.join(AVERAGES)}")
        self._average, self._threshold, self._ignore = average, threshold, ignore
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self._counts = np.zeros((3, 0), np.int64)

    def update(self, prediction: Array, target: Array) -> None:
        """Sees a batch: scores [N, C, ...] or [N], classes [N, ...]."""
        guess, truth, width = classes_of(
            prediction, target, self.name, self._threshold, self._ignore
        )
        size = max(
            width, self._counts.shape[1], *(int(a.max()) + 1 for a in (guess, truth) if a.size)
        )
        counts = np.zeros((3, size), np.int64)
        counts[:, : self._counts.shape[1]] = self._counts
        for row, classes in enumerate((guess[guess == truth], guess, truth)):
            counts[row] += np.bincount(classes, minlength=size)
        self._counts = counts

    def per_class(self) -> Array:
        """The number for each class; 0 where it is not defined."""
        return self._ratio(*self._counts)

    def value(self) -> float:
        """The average asked for."""
        hits, predicted, actual = self._counts
        if not actual.sum():
            return float("nan")
        if self._average == "micro":
            return float(self._ratio(*(a.sum(keepdims=True) for a in self._counts))[0])
        if self._average == "binary":
            return float(self.per_class()[1]) if len(hits) > 1 else 0.0
        occurs = (predicted + actual) > 0
        weights = actual[occurs] if self._average == "weighted" else None
        return float(np.average(self.per_class()[occurs], weights=weights))

    def details(self) -> dict[str, Any]:
        """The number for each class."""
        return {"per_class": self.per_class().tolist()}

    @abstractmethod
    def _ratio(self, hits: Array, predicted: Array, actual: Array) -> Array:
        """The number of each class, from its three counts."""


def _divided(a: Array, b: Array) -> Array:
    quotient: Array = np.divide(a, b, out=np.zeros(len(a)), where=b > 0)
    return quotient


class Precision(_PerClass):
    """Of the rows predicted to be of a class, the share that is."""

    name: ClassVar[str] = "precision"

    def _ratio(self, hits: Array, predicted: Array, actual: Array) -> Array:
        return _divided(hits, predicted)


class Recall(_PerClass):
    """Of the rows of a class, the share predicted to be."""

    name: ClassVar[str] = "recall"

    def _ratio(self, hits: Array, predicted: Array, actual: Array) -> Array:
        return _divided(hits, actual)


class F1(_PerClass):
    """The harmonic mean of precision and recall: 2 hits / (predictions + rows)."""

    name: ClassVar[str] = "f1"

    def _ratio(self, hits: Array, predicted: Array, actual: Array) -> Array:
        return _divided(2 * hits, predicted + actual)


class ConfusionMatrix(Metric):
    """How often rows of a class (row of the matrix) were taken for another (column); its value is the accuracy."""

    name: ClassVar[str] = "confusion_matrix"
    column: ClassVar[bool] = False

    def __init__(self, threshold: float = 0.0, ignore: int = IGNORE) -> None:
        self._threshold, self._ignore = threshold, ignore
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self.matrix = np.zeros((0, 0), np.int64)

    def update(self, prediction: Array, target: Array) -> None:
        """Sees a batch: scores [N, C, ...] or [N], classes [N, ...]."""
        guess, truth, width = classes_of(
            prediction, target, self.name, self._threshold, self._ignore
        )
        size = max(width, len(self.matrix), *(int(a.max()) + 1 for a in (guess, truth) if a.size))
        if size > MAX_CLASSES:
            raise MetricError(f"{self.name}: {size} classes are too many, {MAX_CLASSES} at most")
        matrix = np.zeros((size, size), np.int64)
        matrix[: len(self.matrix), : len(self.matrix)] = self.matrix
        matrix += np.bincount(truth * size + guess, minlength=size * size).reshape(size, size)
        self.matrix = matrix

    def value(self) -> float:
        """The accuracy: the diagonal's share."""
        total = int(self.matrix.sum())
        return int(np.trace(self.matrix)) / total if total else float("nan")

    def details(self) -> dict[str, Any]:
        """The matrix."""
        return {"matrix": self.matrix.tolist()}
