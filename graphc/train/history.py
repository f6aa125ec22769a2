"""What an epoch came to, row by row: the history of a run, and its text forms."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

Value = int | float


class History:
    """One row per epoch: `epoch` (from 1), `step` (updates so far), `loss`, metrics, `val_loss`, ...

    A number is a float or an int and may be NaN; a row may lack columns that others have.
    """

    def __init__(self, rows: Iterable[Mapping[str, Value]] = ()) -> None:
        self.rows: list[dict[str, Value]] = [dict(row) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> list[float]:
        """A column, NaN where a row lacks it. Raises KeyError when all do."""
        if column not in self.columns:
            raise KeyError(column)
        return [float(row.get(column, math.nan)) for row in self.rows]

    @property
    def columns(self) -> list[str]:
        """Names in order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def add(self, row: Mapping[str, Value]) -> None:
        """Appends an epoch."""
        self.rows.append(dict(row))

    def to_csv(self) -> str:
        """A header and a line per epoch; what is missing is empty."""
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v != v else v for k, v in row.items()} for row in self.rows)
        return out.getvalue()

    def to_jsonl(self) -> str:
        """A JSON object per line and epoch; NaN and infinities, which JSON lacks, are strings."""
        return "".join(json.dumps(to_json(row)) + "\n" for row in self.rows)


def to_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers as JSON has them. Floats keep every bit; those that are not finite become strings."""
    return {
        k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()
    }


def from_json(row: Mapping[str, Any]) -> dict[str, Value]:
    """What `to_json` was given. Raises ValueError for what is no number."""
    found: dict[str, Value] = {}
    for name, value in row.items():
        if isinstance(value, str):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{name} is no number")
        found[str(name)] = value
    return found
