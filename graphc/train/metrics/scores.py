"""Metrics of scores: area under the ROC curve, and perplexity."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from graphc.train.metrics.base import Array, Metric, MetricError, is_binary, rows_of_scores
from graphc.train.metrics.classification import IGNORE


class RocAuc(Metric):
    """The area under the ROC curve of a binary classifier: the chance that a positive row has a higher score.

    Exact, equal scores counting half (Mann & Whitney 1947); all scores of an epoch are kept. Scores are [N] or [N, 1],
    or two classes' [N, 2], whose difference counts.
    """

    name: ClassVar[str] = "auc"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self._scores: list[Array] = []
        self._positive: list[Array] = []

    def update(self, prediction: Array, target: Array) -> None:
        """Sees a batch: scores, and classes 0 and 1."""
        if is_binary(prediction, target):
            scores = prediction.reshape(-1).astype(np.float64)
        else:
            both, target = rows_of_scores(prediction, target, self.name)
            if both.shape[1] != 2:
                raise MetricError(
                    f"{self.name}: it is of two classes, the output has {both.shape[1]}"
                )
            scores = both[:, 1].astype(np.float64) - both[:, 0]
        truth = target.reshape(-1)
        if not np.isin(truth, (0, 1)).all():
            raise MetricError(f"{self.name}: it is of classes 0 and 1, the target holds others")
        self._scores.append(scores)
        self._positive.append(truth == 1)

    def value(self) -> float:
        """The area; NaN when all rows are of one class, or a score is NaN."""
        if not self._scores:
            return float("nan")
        scores, positive = np.concatenate(self._scores), np.concatenate(self._positive)
        positives = int(positive.sum())
        negatives = len(positive) - positives
        if not positives or not negatives or np.isnan(scores).any():
            return float("nan")
        _, group = np.unique(scores, return_inverse=True)
        above = np.bincount(group, positive).astype(np.int64)
        below = np.bincount(group, ~positive).astype(np.int64)
        lower = np.cumsum(below) - below
        twice = int((above * (2 * lower + below)).sum())  # pairs in order count 2, ties 1
        return twice / (2 * positives * negatives)


class Perplexity(Metric):
    """exp of the mean negative log-likelihood of the true classes, from logits [N, C, ...] or [..., C]."""

    name: ClassVar[str] = "perplexity"
    better: ClassVar[str] = "min"

    def __init__(self, ignore: int = IGNORE) -> None:
        self._ignore = ignore
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self._sum, self._seen = 0.0, 0

    def update(self, prediction: Array, target: Array) -> None:
        """Sees a batch: logits and classes."""
        logits, truth = rows_of_scores(prediction, target, self.name)
        keep = truth != self._ignore
        logits, truth = logits[keep].astype(np.float64), truth[keep].astype(np.int64)
        if truth.size and not 0 <= truth.min() <= truth.max() < logits.shape[1]:
            raise MetricError(f"{self.name}: a class is outside of the {logits.shape[1]} logits")
        high = logits.max(1, keepdims=True)
        total = np.log(np.exp(logits - high).sum(1)) + high[:, 0]
        own = np.take_along_axis(logits, truth[:, None], 1)[:, 0]
        self._sum += float((total - own).sum())
        self._seen += len(truth)

    def value(self) -> float:
        """exp(mean); infinite where that overflows."""
        if not self._seen:
            return float("nan")
        mean = self._sum / self._seen
        return math.exp(mean) if mean < 709 else mean * float("inf")
