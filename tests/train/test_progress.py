"""What is shown: a line per epoch in a pipe, a bar on a terminal that leaves nothing behind."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from graphc.train import progress
from graphc.train.errors import DataError
from graphc.train.loop import fit
from graphc.train.progress import Bars, Lines, describe, duration, for_console, rate
from tests.train.fake import FakeStep, blobs


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=140, color_system=None)


def text(c: Console) -> str:
    assert isinstance(c.file, io.StringIO)
    return c.file.getvalue()


def test_lines_in_a_pipe() -> None:
    c = console(False)
    reporter = for_console(c)
    assert type(reporter) is Lines
    fit(FakeStep(), blobs(90), epochs=2, batch=16, val=blobs(30, 1), reporter=reporter)
    first, second = text(c).splitlines()
    assert first.startswith("epoch 1/2  loss ") and "images/s" in first and "\x1b" not in first
    assert "accuracy" in first and "val_loss" in second and second.endswith("*")


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    c = console(True)
    shown = []
    original = Bars.batch

    def batch(self: Bars, *arguments: object) -> None:
        original(self, *arguments)  # type: ignore[arg-type]
        with c.capture() as captured:
            c.print(self._progress)
        shown.append(captured.get())

    monkeypatch.setattr(Bars, "batch", batch)
    reporter = for_console(c)
    fit(FakeStep(), blobs(90), epochs=2, batch=16, val=blobs(30, 1), reporter=reporter)
    assert "epoch 1/2" in shown[2] and "3/6" in shown[2]
    assert " left, " in shown[2] and " in all" in shown[2] and " in all" not in shown[-1]
    assert all(word in shown[-1] for word in ("loss 0.", "accuracy", " %", "images/s", " left"))
    assert text(c).count("val_loss") >= 2
    assert text(c).endswith("\x1b[?25h") or "\x1b[?25h" in text(c)  # the cursor is back


def test_the_terminal_is_left_well_after_an_error() -> None:
    c = console(True)
    with pytest.raises(DataError):
        fit(FakeStep(), [{"x": [0.0] * 5, "label": 0}, {}], epochs=1, reporter=Bars(c))
    assert "\x1b[?25h" in text(c)


def test_numbers_for_people() -> None:
    row = {"epoch": 1, "loss": 0.123456, "val_accuracy": 0.98314, "lr": 0.1, "seconds": 3.0}
    assert describe(row) == "loss 0.1235  val_accuracy 98.31 %"
    assert [duration(s) for s in (0.34, 9.96, 59.4, 61, 3723)] == [
        "0.3 s", "10 s", "59 s", "1:01", "1:02:03",
    ]  # fmt: skip
    assert [rate(v) for v in (12345.6, 2.34, float("nan"))] == [
        "12,346 images/s",
        "2.3 images/s",
        "",
    ]


def test_pace_looks_at_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace = progress.Pace()
    assert math.isnan(pace.left(5))
    for _ in range(10):
        now[0] += 10.0
        pace.done(8)
    assert pace.rate == 0.8 and pace.left(3) == 30.0
    for _ in range(50):
        now[0] += 0.1
        pace.done(8)
    assert pace.rate == pytest.approx(80)
