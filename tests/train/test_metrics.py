"""Metrics against scikit-learn, however the rows are cut into batches, and corner cases by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphc.train import metrics as m
from graphc.train.metrics import lower_is_better, make

RNG = np.random.default_rng(0)
ROWS = 101
LOGITS = np.round(RNG.standard_normal((ROWS, 4)) * 3) / 2  # with ties
TRUTH = np.where(
    RNG.random(ROWS) < 0.6, LOGITS.argmax(1), RNG.integers(0, 3, ROWS)
)  # class 3 is rare
SCORES = np.round(RNG.standard_normal(ROWS), 1)
BINARY = ((SCORES + RNG.standard_normal(ROWS)) > 0).astype(np.int64)
VALUES = RNG.standard_normal((ROWS, 3)) + 1e4
GUESSES = VALUES + 0.5 * RNG.standard_normal((ROWS, 3))
BEST = LOGITS.argmax(1)


def seen(metric: m.Metric, prediction: np.ndarray, target: np.ndarray, size: int = 17) -> float:
    metric.reset()
    for i in range(0, len(target), size):
        metric.update(prediction[i : i + size], target[i : i + size])
    return metric.value()


CLASSES: dict[str, Callable[[], float]] = {
    "accuracy": lambda: sk.accuracy_score(TRUTH, BEST),
    "confusion_matrix": lambda: sk.accuracy_score(TRUTH, BEST),
    **{
        f"{name}(average={average})": lambda f=f, average=average: f(
            TRUTH, BEST, average=average, zero_division=0
        )
        for name, f in (
            ("precision", sk.precision_score),
            ("recall", sk.recall_score),
            ("f1", sk.f1_score),
        )
        for average in ("macro", "micro", "weighted")
    },
    "perplexity": lambda: math.exp(
        torch.nn.functional.cross_entropy(torch.tensor(LOGITS), torch.tensor(TRUTH)).item()
    ),
}


@pytest.mark.parametrize("name", CLASSES)
def test_metrics_of_classes(name: str) -> None:
    metric = make(name)
    values = [seen(metric, LOGITS, TRUTH, size) for size in (1, 17, ROWS)]
    assert values == pytest.approx([CLASSES[name]()] * 3, rel=1e-12)
    spread = LOGITS.reshape(1, ROWS, 4)  # [N, T, C] with [N, T]
    assert seen(metric, spread, TRUTH.reshape(1, ROWS)) == pytest.approx(values[0], rel=1e-12)
    assert seen(metric, spread.transpose(0, 2, 1), TRUTH[None]) == pytest.approx(
        values[0], rel=1e-12
    )
    masked = np.concatenate([TRUTH, np.full(9, -100)])
    longer = np.concatenate([LOGITS, RNG.standard_normal((9, 4))])
    assert seen(metric, longer, masked) == pytest.approx(values[0], rel=1e-12)


def test_details_of_classes() -> None:
    for name, f in (
        ("precision", sk.precision_score),
        ("recall", sk.recall_score),
        ("f1", sk.f1_score),
    ):
        metric = make(name)
        seen(metric, LOGITS, TRUTH)
        expected = f(TRUTH, BEST, average=None, labels=range(4), zero_division=0)
        np.testing.assert_allclose(metric.details()["per_class"], expected, rtol=1e-12)
        binary = make(f"{name}(average=binary)")
        assert seen(binary, SCORES, BINARY) == pytest.approx(f(BINARY, SCORES > 0), rel=1e-12)
        assert seen(binary, SCORES[:, None], BINARY.astype(np.float32)) == binary.value()
    matrix = m.ConfusionMatrix()
    seen(matrix, LOGITS, TRUTH)
    assert matrix.details()["matrix"] == sk.confusion_matrix(TRUTH, BEST, labels=range(4)).tolist()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_top_k(k: int) -> None:
    scores = RNG.standard_normal((ROWS, 4))
    expected = sk.top_k_accuracy_score(TRUTH, scores, k=k, labels=range(4))
    assert seen(make(f"top_k(k={k})"), scores, TRUTH) == pytest.approx(expected, rel=1e-12)


def test_ties_in_the_top_k_go_to_the_first() -> None:
    scores = np.array([[1.0, 1.0, 1.0, 0.0]] * 4)
    assert seen(m.TopK(2), scores, np.arange(4)) == 0.5
    assert seen(m.TopK(1), scores, np.arange(4)) == 0.25
    assert seen(m.TopK(1), np.full((2, 3), np.nan), np.zeros(2, int)) == 0


def test_area_under_the_curve() -> None:
    expected = sk.roc_auc_score(BINARY, SCORES)
    for shaped in (SCORES, SCORES[:, None], np.stack([np.zeros(ROWS), SCORES], 1)):
        assert seen(m.RocAuc(), shaped, BINARY) == pytest.approx(expected, rel=1e-14)
    assert seen(m.RocAuc(), SCORES.astype(np.float32), BINARY == 1) == pytest.approx(
        expected, rel=1e-14
    )
    assert math.isnan(seen(m.RocAuc(), SCORES, np.zeros(ROWS)))
    assert math.isnan(m.RocAuc().value())
    assert math.isnan(seen(m.RocAuc(), np.array([np.nan, 1.0]), np.array([0, 1])))


def test_area_of_each_class_against_the_rest() -> None:
    logits = torch.tensor(RNG.standard_normal((ROWS, 4)))
    truth = RNG.integers(0, 4, ROWS)
    expected = sk.roc_auc_score(truth, logits.softmax(1).numpy(), multi_class="ovr")
    assert seen(m.RocAuc(), logits.numpy(), truth) == pytest.approx(expected, rel=1e-12)
    assert math.isnan(seen(m.RocAuc(), logits.numpy(), truth % 3))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=12))
def test_area_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    high = [s for s, positive in rows if positive]
    low = [s for s, positive in rows if not positive]
    pairs = [(a > b) + (a == b) / 2 for a in high for b in low]
    scores, truth = np.array([s for s, _ in rows], float), np.array([p for _, p in rows])
    found = seen(m.RocAuc(), scores, truth, 3)
    assert (math.isnan(found) and not pairs) or found == sum(pairs) / len(pairs)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("mse", sk.mean_squared_error),
        ("rmse", lambda y, p: math.sqrt(sk.mean_squared_error(y, p))),
        ("mae", sk.mean_absolute_error),
        ("r2", sk.r2_score),
    ],
)
def test_metrics_of_numbers(name: str, truth: Callable[..., float]) -> None:
    for size in (1, 17, ROWS):
        assert seen(make(name), GUESSES, VALUES, size) == pytest.approx(
            truth(VALUES, GUESSES), rel=1e-9
        )
    one = seen(make(name), GUESSES[:, :1], VALUES[:, 0])
    assert one == pytest.approx(truth(VALUES[:, 0], GUESSES[:, 0]), rel=1e-9)
    assert math.isnan(make(name).value())


def test_r2_of_constant_targets() -> None:
    ones = np.ones(4)
    for guess in (ones, ones + 1):
        assert seen(m.R2(), guess, ones, 2) == sk.r2_score(ones, guess)
    assert math.isnan(seen(m.R2(), ones[:1], ones[:1]))


def test_perplexity_does_not_overflow() -> None:
    assert seen(m.Perplexity(), np.array([[0.0, 800.0]]), np.array([0])) == math.inf
    assert seen(m.Perplexity(), np.array([[0.0, 800.0]]), np.array([1])) == 1.0


@pytest.mark.parametrize(
    ("metric", "prediction", "target", "message"),
    [
        (m.Accuracy(), np.zeros((3, 4)), np.zeros(2), "holds no scores"),
        (m.Accuracy(), np.zeros(3), np.full(3, 0.5), "no classes"),
        (m.F1(), np.zeros((2, 3)), np.array([0, -1]), "negative"),
        (m.TopK(1), np.zeros((2, 3)), np.array([0, 3]), "outside of the 3"),
        (m.Perplexity(), np.zeros((2, 3)), np.array([0, 3]), "outside of the 3"),
        (m.RocAuc(), np.zeros((2, 3)), np.array([0, 3]), "others than classes 0 to 2"),
        (m.RocAuc(), np.zeros(2), np.array([0, 2]), "others than classes 0 to 1"),
        (
            m.MeanSquaredError(),
            np.zeros((2, 3)),
            np.zeros((3, 2)),
            r"\[2, 3\], the target \[3, 2\]",
        ),
        (m.ConfusionMatrix(), np.zeros((2, 5000)), np.zeros(2, int), "too many"),
    ],
)
def test_what_cannot_be_compared(
    metric: m.Metric, prediction: np.ndarray, target: np.ndarray, message: str
) -> None:
    with pytest.raises(m.MetricError, match=message):
        metric.update(prediction, target)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acuracy", "there is no metric"),
        ("top_k(3)", "`3` is none of its arguments"),
        ("top_k(k=0)", "at least 1"),
        ("top_k(k=1.5)", "is no int"),
        ("f1(average=median)", "one of macro"),
        ("f1(average=3)", "is no str"),
        ("auc(k=3)", "no arguments"),
    ],
)
def test_names_of_metrics_are_checked(text: str, message: str) -> None:
    with pytest.raises(m.MetricError, match=message):
        make(text)


def test_which_way_is_better() -> None:
    assert all(map(lower_is_better, ("loss", "val_loss", "val_mse", "perplexity", "my_error")))
    assert not any(map(lower_is_better, ("accuracy", "val_f1(average=micro)", "val_auc", "gain")))
