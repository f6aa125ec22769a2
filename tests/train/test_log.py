"""The log: text that reads back, events that TensorBoard's own format holds, curves that do not change."""

from __future__ import annotations

import csv
import json
import math
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from graphc.train import curves
from graphc.train.axes import count_axis, values_axis
from graphc.train.errors import TrainError
from graphc.train.history import History, from_json, to_json
from graphc.train.log import Log
from graphc.train.loop import fit
from tests.golden import check_golden
from tests.train.fake import FakeStep, blobs

ROWS = [
    {"epoch": 1, "step": 4, "loss": 2.0, "accuracy": 0.5, "val_loss": 1.5},
    {
        "epoch": 2,
        "step": 8,
        "loss": 0.1 + 0.2,
        "accuracy": math.nan,
        "val_loss": math.inf,
        "lr": 1e-3,
    },
    {"epoch": 3, "step": 12, "loss": 0.25, "accuracy": 0.75, "val_loss": 0.5, "lr": 1e-4},
]


def test_a_history_reads_back() -> None:
    history = History(ROWS)
    assert history.columns == ["epoch", "step", "loss", "accuracy", "val_loss", "lr"]
    assert history["loss"] == [2.0, 0.1 + 0.2, 0.25] and math.isnan(history["lr"][0])
    with pytest.raises(KeyError):
        history["val_accuracy"]
    back = [from_json(json.loads(line)) for line in history.to_jsonl().splitlines()]
    assert repr(back) == repr(ROWS)
    table = list(csv.DictReader(history.to_csv().splitlines()))
    assert [float(r["loss"]) for r in table] == history["loss"]
    assert (table[1]["accuracy"], table[0]["lr"], table[1]["val_loss"]) == ("", "", "inf")
    for bad in ({"x": True}, {"x": None}, {"x": "word"}, {"x": [1]}):
        with pytest.raises(ValueError, match=r"no number|could not convert"):
            from_json(bad)
    assert to_json({"x": -math.inf}) == {"x": "-inf"}


def events(folder: Path) -> list[Event]:
    """Reads event files as TensorFlow records: length, CRC, data, CRC."""
    found = []
    for file in sorted(folder.iterdir(), key=lambda f: int(f.name.split(".")[-1].split("-")[0])):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + size]))
            at += 12 + size + 4
    return found


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    return [(v.tag, e.step, v.simple_value) for e in events(folder) for v in e.summary.value]


def test_events_hold_every_epoch_and_every_tenth_step(tmp_path: Path) -> None:
    arguments = {"batch": 8, "val": blobs(20, 1), "out": tmp_path, "tensorboard": True}
    run = fit(FakeStep(), blobs(90), epochs=2, **arguments)  # type: ignore[arg-type]
    found = scalars(tmp_path / "tensorboard")
    losses = [(step, value) for tag, step, value in found if tag == "train/loss"]
    assert [s for s, _ in losses] == [12, 24]
    assert [v for _, v in losses] == pytest.approx(run.history["loss"])
    assert {tag for tag, _, _ in found} >= {"val/loss", "train/accuracy", "train/lr"}
    assert [s for tag, s, _ in found if tag == "train/loss_by_step"] == [10, 20]
    fit(FakeStep(), blobs(90), epochs=3, resume=True, **arguments)  # type: ignore[arg-type]
    found = scalars(tmp_path / "tensorboard")
    assert [s for tag, s, _ in found if tag == "train/loss"] == [12, 24, 36]
    starts = [e.step for e in events(tmp_path / "tensorboard") if e.session_log.status]
    assert starts == [1, 25]  # from these on, what an interrupted run wrote is dropped
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"cannot write .*history\.csv: No such file"):
        Log(tmp_path / "gone").epoch(History(ROWS), None)


def test_the_curves_are_a_picture_that_does_not_change(request: pytest.FixtureRequest) -> None:
    text = curves.draw(History(ROWS), title='a < b & "c"', best=3)
    check_golden(request, Path(__file__).parent / "curves.svg", text)
    root = ET.fromstring(text)
    names = [e.text for e in root.iter() if e.get("class") == "name"]
    assert names == ["loss", "accuracy", "lr"]
    kinds = [e.get("class") for e in root.iter() if e.tag.endswith(("polyline", "circle"))]
    assert kinds.count("line train") == 2 and kinds.count("train dot") == 5
    assert any(e.text == "best: epoch 3" for e in root.iter())
    for element in root.iter():
        for key in ("x", "y", "cx", "cy"):
            assert 0 <= float(element.get(key, "0")) <= 1000


def test_long_histories_keep_their_peaks() -> None:
    rows = [{"epoch": i, "step": i, "loss": 1.0 + (i == 4567)} for i in range(1, 10_001)]
    text = curves.draw(History(rows))
    assert len(text) < 20_000
    points = next(e for e in ET.fromstring(text).iter() if e.tag.endswith("polyline")).get("points")
    assert points is not None and len({p.split(",")[1] for p in points.split()}) == 2


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.1, 2.3], ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]),
        ([0.9, 0.95], ["0.90", "0.91", "0.92", "0.93", "0.94", "0.95"]),
        ([-3, 7], ["-4", "-2", "0", "2", "4", "6", "8"]),
        ([1e-4, 30], ["0.0001", "0.001", "0.01", "0.1", "1", "10", "100"]),
        ([5, 5], ["4.4", "4.6", "4.8", "5.0", "5.2", "5.4", "5.6"]),
        ([0, 0], ["-0.6", "-0.4", "-0.2", "0.0", "0.2", "0.4", "0.6"]),
        ([2e6, 7e6], ["2e+06", "3e+06", "4e+06", "5e+06", "6e+06", "7e+06"]),
        ([math.nan], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
    ],
)
def test_ticks_are_round(values: list[float], ticks: list[str]) -> None:
    axis = values_axis(values)
    assert axis.labels() == ticks
    assert all(0 <= axis.at(v) <= 1 for v in values if math.isfinite(v))
    assert axis.at(axis.low) == 0 and axis.at(axis.high) == pytest.approx(1)


@pytest.mark.parametrize(
    ("last", "ticks"),
    [(1, ["1"]), (3, ["1", "2", "3"]), (30, ["1", "5", "10", "15", "20", "25", "30"])],
)
def test_epochs_are_whole_numbers(last: int, ticks: list[str]) -> None:
    assert count_axis(last).labels() == ticks
