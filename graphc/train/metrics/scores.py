"""Metrics of scores: area under the ROC curve, and perplexity."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from graphc.train.metrics.base import Array, Metric, MetricError, is_binary, rows_of_scores
from graphc.train.metrics.classification import IGNORE


class RocAuc(Metric):
    """The area under the ROC curve: the chance that a positive row has a higher score than a negative one.

    Exact, equal scores counting half (Mann & Whitney 1947); all scores of an epoch are kept. Scores are [N] or [N, 1]
    for classes 0 and 1. Of logits [N, C] of two classes the difference counts; of more, it is the mean area of each
    class against the rest by its softmax (sklearn's `multi_class="ovr"`, `average="macro"`).
    """

    name: ClassVar[str] = "auc"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything seen."""
        self._scores: list[Array] = []
        self._truth: list[Array] = []

    def update(self, prediction: Array, target: Array) -> None:
        """Sees a batch: scores, and classes."""
        if is_binary(prediction, target):
            scores, classes = prediction.reshape(-1, 1).astype(np.float64), 2
        else:
            logits, target = rows_of_scores(prediction, target, self.name)
            scores, classes = logits.astype(np.float64), logits.shape[1]
            if classes == 2:
                scores = scores[:, 1:] - scores[:, :1]
            else:
                powers = np.exp(scores - scores.max(1, keepdims=True))
                scores = powers / powers.sum(1, keepdims=True)
        truth = target.reshape(-1)
        if not np.isin(truth, range(classes)).all():
            raise MetricError(
                f"{self.name}: the target holds others than classes 0 to {classes - 1}"
            )
        self._scores.append(scores)
        self._truth.append(truth)

    def value(self) -> float:
        """The area; NaN when a class has no rows or all of them, or a score is NaN."""
        if not self._scores:
            return float("nan")
        scores, truth = np.concatenate(self._scores), np.concatenate(self._truth)
        if scores.shape[1] == 1:
            return _area(scores[:, 0], truth == 1)
        return float(np.mean([_area(s, truth == c) for c, s in enumerate(scores.T)]))


def _area(scores: Array, positive: Array) -> float:
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
