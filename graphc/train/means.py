"""Means over the rows of an epoch, of numbers that come by batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

LAST = frozenset(("lr",))
"""Numbers whose last value counts, not their mean."""


class Means:
    """Weighs each batch by its rows, so that a ragged last batch counts for what it is. Sums are in f64."""

    def __init__(self) -> None:
        self.rows = 0
        self._sums: dict[str, float] = {}

    def add(self, results: Mapping[str, npt.NDArray[Any]], rows: int) -> None:
        """Takes the scalars of floating point among a batch's results."""
        self.rows += rows
        for name, value in results.items():
            if value.ndim == 0 and (value.dtype.kind == "f" or value.dtype.name == "bfloat16"):
                number = float(np.asarray(value, np.float64))
                self._sums[name] = (
                    number if name in LAST else self._sums.get(name, 0.0) + number * rows
                )

    def values(self) -> dict[str, float]:
        """The means so far."""
        return {
            name: total if name in LAST else total / self.rows for name, total in self._sums.items()
        }

    def to_json(self) -> dict[str, Any]:
        """All of it, every bit: JSON prints floats so that they come back."""
        return {"rows": self.rows, "sums": dict(self._sums)}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Means:
        """What `to_json` gave."""
        means = cls()
        means.rows = int(saved["rows"])
        means._sums = {str(name): float(value) for name, value in saved["sums"].items()}
        return means
