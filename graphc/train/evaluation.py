"""What a step is worth on data: means of its loss and metrics, without an update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from graphc.train.batches import Loader
from graphc.train.data.dataset import Stream
from graphc.train.data.sources import Data, Given, open_data
from graphc.train.errors import DataError
from graphc.train.means import Means
from graphc.train.metrics import Metric
from graphc.train.ports import check_ports
from graphc.train.scoring import Scoring
from graphc.train.step import Step


def evaluate(
    step: Step,
    data: Given,
    *,
    batch: int = 256,
    metrics: Sequence[str | Metric] = (),
    prediction: str | None = None,
    target: str | None = None,
    threads: int = 1,
) -> dict[str, float]:
    """The mean loss and the metrics of a step on all rows of the data, by name.

    The arguments are those of `fit`; metrics given as objects can be asked for their `details` afterwards. Raises
    DataError and MetricError as `fit` does.
    """
    fixed = check_ports(step.ports)
    opened = open_data(data, step.ports)
    loader = in_order(opened, batch if fixed is None else fixed, fixed is not None, threads)
    return measure(step, loader, Scoring(metrics, step.ports, prediction, target))


def in_order(data: Data, size: int, fixed: bool, threads: int) -> Loader:
    """Batches of all rows in the order of the data. Raises DataError where a fixed batch would leave rows over."""
    if fixed and not isinstance(data, Stream) and len(data) % size:
        raise DataError(
            f"the model takes batches of {size} rows and the validation data has {len(data)}, which is no multiple"
        )
    return Loader(data, size, 0, False, fixed, threads)


def measure(
    step: Step,
    loader: Loader,
    scoring: Scoring,
    measured: Callable[[int], None] = lambda number: None,
) -> dict[str, float]:
    """One pass: means over rows, and metrics. `measured` is told the number of each batch that is done."""
    means = Means()
    scoring.reset()
    with closing(loader.epoch(0)) as batches:
        for batch in batches:
            results = step.evaluate(batch.arrays)
            means.add(results, len(batch))
            scoring.update(results, batch.arrays)
            measured(batch.number)
    if not means.rows:
        raise DataError("the validation data has no rows")
    return {**means.values(), **scoring.values()}
