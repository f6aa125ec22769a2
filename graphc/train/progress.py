"""What a run shows while it goes: a live line on a terminal, a plain line per epoch elsewhere, or nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from graphc.train.history import Value

WINDOW = 2.0
"""Seconds over which the images per second and the time left are taken."""
_QUIET = ("epoch", "step", "seconds", "images_per_second", "lr")


class Reporter(Protocol):
    """Who is told how a run goes."""

    def start(self, epochs: int, done: int) -> None:
        """The run begins, or goes on after `done` epochs."""

    def epoch(self, epoch: int, batches: int | None, start: int) -> None:
        """An epoch (from 1) begins at batch `start`; `batches` is None for a stream."""

    def batch(self, number: int, rows: int, values: Mapping[str, float]) -> None:
        """Batch `number` (from 0) is done; `values` are the epoch's means so far."""

    def validate(self, batches: int | None) -> None:
        """Validation begins."""

    def validated(self, number: int) -> None:
        """A validation batch is done."""

    def end_epoch(self, row: Mapping[str, Value], best: bool) -> None:
        """The epoch's row of the history."""

    def close(self) -> None:
        """The run is over, well or not."""


class Silent:
    """Shows nothing; a base for those that show something."""

    def start(self, epochs: int, done: int) -> None:
        """Nothing."""

    def epoch(self, epoch: int, batches: int | None, start: int) -> None:
        """Nothing."""

    def batch(self, number: int, rows: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def validate(self, batches: int | None) -> None:
        """Nothing."""

    def validated(self, number: int) -> None:
        """Nothing."""

    def end_epoch(self, row: Mapping[str, Value], best: bool) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Lines(Silent):
    """A line per epoch, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._epochs = 0

    def start(self, epochs: int, done: int) -> None:
        """Says where a resumed run goes on."""
        self._epochs = epochs
        if done:
            self._print(f"going on after epoch {done}")

    def end_epoch(self, row: Mapping[str, Value], best: bool) -> None:
        """The line."""
        width = len(str(self._epochs))
        mark = "  *" if best else ""
        self._print(
            f"epoch {int(row['epoch']):{width}}/{self._epochs}  {describe(row)}  "
            f"{rate(row.get('images_per_second', math.nan))}  {duration(row.get('seconds', 0.0))}{mark}"
        )

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


class Bars(Lines):
    """A live bar for the epoch that runs, with loss, metrics, images/s and the time left; lines for those before.

    Ctrl-C and errors leave the terminal as it was, if `close` is called.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[at]}"),
            TextColumn("{task.fields[values]}"),
            TextColumn("{task.fields[speed]}", style="dim"),
            console=console,
            auto_refresh=False,
        )
        self._live = Live(self._progress, console=console, refresh_per_second=8, transient=True)
        self._task: TaskID | None = None
        self._clock = Pace()
        self._number = 0
        self._total: int | None = None

    def start(self, epochs: int, done: int) -> None:
        """Shows the bar."""
        super().start(epochs, done)
        self._live.start()

    def epoch(self, epoch: int, batches: int | None, start: int) -> None:
        """A new bar."""
        self._number, self._total = epoch, batches
        self._begin(f"epoch {epoch}/{self._epochs}", batches, start)

    def batch(self, number: int, rows: int, values: Mapping[str, float]) -> None:
        """Moves the bar."""
        self._clock.done(rows)
        eta = ""
        if self._total is not None:
            epoch = self._total - number - 1
            later = (self._epochs - self._number) * self._total
            times = [duration(self._clock.left(n)) for n in (epoch, epoch + later)]
            eta = f"  {times[0]} left" + (f", {times[1]} in all" if later else "")
        self._update(number + 1, values=describe(values), speed=rate(self._clock.rate) + eta)

    def validate(self, batches: int | None) -> None:
        """A bar for the validation."""
        self._begin("validating", batches, 0)

    def validated(self, number: int) -> None:
        """Moves it."""
        self._update(number + 1)

    def end_epoch(self, row: Mapping[str, Value], best: bool) -> None:
        """The bar becomes a line."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        super().end_epoch(row, best)

    def close(self) -> None:
        """Takes the bar away."""
        self._live.stop()

    def _begin(self, text: str, total: int | None, start: int) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._clock = Pace()
        self._total = total
        self._task = self._progress.add_task(
            text, total=total, completed=start, at="", values="", speed=""
        )

    def _update(self, done: int, **fields: Any) -> None:
        if self._task is not None:
            at = f"{done}/{self._total}" if self._total is not None else str(done)
            self._progress.update(self._task, completed=done, at=at, **fields)


class Pace:
    """Rows per second and time left, over the last seconds."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int, int]] = [(time.monotonic(), 0, 0)]
        self.rate = math.nan
        self._each = math.nan

    def done(self, rows: int) -> None:
        """A batch of so many rows is done."""
        now = time.monotonic()
        _, batches, total = self._marks[-1]
        self._marks.append((now, batches + 1, total + rows))
        while len(self._marks) > 2 and now - self._marks[1][0] > WINDOW:
            del self._marks[0]
        first, last = self._marks[0], self._marks[-1]
        seconds = max(last[0] - first[0], 1e-9)
        self.rate = (last[2] - first[2]) / seconds
        self._each = seconds / (last[1] - first[1])

    def left(self, batches: int) -> float:
        """Seconds for so many batches more; NaN before the first."""
        return batches * self._each


def for_console(console: Console) -> Reporter:
    """Bars on a terminal, lines elsewhere."""
    return Bars(console) if console.is_terminal else Lines(console)


def describe(values: Mapping[str, float]) -> str:
    """`loss 0.1234  accuracy 98.31 %  val_loss 0.2`."""
    return "  ".join(f"{k} {_number(k, v)}" for k, v in values.items() if k not in _QUIET)


def _number(name: str, value: float) -> str:
    share = name.removeprefix("val_").startswith(("accuracy", "top_k"))
    return f"{100 * value:.2f} %" if share else f"{value:.4g}"


def rate(value: float) -> str:
    """`1,234 images/s`."""
    if math.isnan(value):
        return ""
    return f"{value:,.0f} images/s" if value >= 10 else f"{value:.2g} images/s"


def duration(seconds: float) -> str:
    """`0.3 s`, `42 s`, `3:07`, `1:02:03`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
