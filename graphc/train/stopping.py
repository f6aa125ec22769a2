"""The best epoch so far, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from graphc.train.errors import TrainError
from graphc.train.metrics import lower_is_better


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a run when the watched number has not become better for `patience` epochs.

    Attributes:
        patience: epochs without a better number until the run ends.
        min_delta: a smaller change is none.
    """

    patience: int = 10
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        if self.patience < 1 or not self.min_delta >= 0:
            raise TrainError(
                "early stopping needs a patience of 1 or more and a min_delta of 0 or more"
            )


@dataclass
class Best:
    """The best value of one column of the history.

    Attributes:
        column: which one; less is better for losses and errors, more for accuracies and the like.
        min_delta: a value counts as better from this difference on.
        value: the best one; None before the first.
        epoch: when it was, from 1.
        waited: epochs since.
    """

    column: str
    min_delta: float = 0.0
    value: float | None = None
    epoch: int = 0
    waited: int = 0
    lower: bool = field(init=False)

    def __post_init__(self) -> None:
        self.lower = lower_is_better(self.column)

    def see(self, epoch: int, row: Mapping[str, float]) -> bool:
        """Takes an epoch into account; True when it is the best so far. Raises TrainError without the column."""
        if self.column not in row:
            raise TrainError(f"`{self.column}` is watched, but there is only {', '.join(row)}")
        value = float(row[self.column])
        if self._better(value):
            self.value, self.epoch, self.waited = value, epoch, 0
            return True
        self.waited += 1
        return False

    def _better(self, value: float) -> bool:
        if math.isnan(value):
            return False
        if self.value is None:
            return True
        gain = self.value - value if self.lower else value - self.value
        return gain > self.min_delta

    def to_json(self) -> dict[str, Any]:
        """What must be known to go on."""
        return {
            "column": self.column,
            "value": self.value,
            "epoch": self.epoch,
            "waited": self.waited,
        }

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Goes on from `to_json`, if it is of the same column; else from nothing."""
        if saved.get("column") == self.column:
            value = saved["value"]
            self.value = None if value is None else float(value)
            self.epoch, self.waited = int(saved["epoch"]), int(saved["waited"])
