"""The loop on a NumPy step: what it learns, writes and says; and an interrupted run that ends with the same bits."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphc.artifact.safetensors_io import read_safetensors
from graphc.train import checkpoint as ck
from graphc.train.checkpoint import load
from graphc.train.errors import CheckpointError, DataError, DivergedError, TrainError
from graphc.train.evaluation import evaluate
from graphc.train.loop import fit
from graphc.train.metrics import ConfusionMatrix, MetricError
from graphc.train.progress import Silent
from graphc.train.stopping import EarlyStopping
from tests.train.fake import PORTS, FakeStep, blobs
from tests.train.ports import port

ROOT = Path(__file__).parents[2]
DATA, HELD = blobs(90), blobs(40, seed=1)


def bits(step: FakeStep) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in step.state().items()}


def untimed(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    clocks = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in clocks} for row in rows]


def test_it_learns_and_writes_what_it_says(tmp_path: Path) -> None:
    step = FakeStep()
    run = fit(
        step, DATA, epochs=6, batch=16, val=HELD, out=tmp_path / "o",
        metrics=["accuracy", "f1(average=macro)", "confusion_matrix"], title="blobs",
    )  # fmt: skip
    assert run.ended == "done" and len(run.history) == 6 and step.runs == 36
    assert run.history["val_accuracy"][-1] > 0.8
    assert run.history["loss"][-1] < run.history["loss"][0]
    assert run.best == 1 + int(np.argmin(run.history["val_loss"]))
    assert np.sum(run.scores["confusion_matrix"]["matrix"]) == 40
    assert run.history.columns == [
        "epoch", "step", "loss", "accuracy", "lr", "val_loss", "val_accuracy",
        "val_f1(average=macro)", "seconds", "images_per_second",
    ]  # fmt: skip
    assert run.history["lr"][-1] == 0.1 / 36  # the last one, not a mean
    assert {p.name for p in (tmp_path / "o").iterdir()} == {
        "checkpoints", "curves.svg", "history.csv", "history.jsonl", "weights.safetensors", ".lock",
    }  # fmt: skip
    lines = (tmp_path / "o" / "history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,step,loss") and len(lines) == 7
    rows = [json.loads(x) for x in (tmp_path / "o" / "history.jsonl").read_text().splitlines()]
    assert rows == run.history.rows
    best = load(tmp_path / "o" / "checkpoints" / "best")
    assert best.record["epoch"] == run.best
    exported = read_safetensors(tmp_path / "o" / "weights.safetensors")
    assert sorted(exported) == ["fc.bias", "fc.weight"]
    np.testing.assert_array_equal(exported["fc.weight"], best.state["fc.weight"])


def test_means_weigh_batches_by_their_rows() -> None:
    class Constant(FakeStep):
        def run(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"loss": np.array(float(len(batch["x"])))}

    run = fit(Constant(), DATA, epochs=1, batch=40)
    assert run.history["loss"] == [(40 * 40 + 40 * 40 + 10 * 10) / 90]
    assert run.weights is None


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path: Path) -> None:
    steps = [FakeStep() for _ in range(3)]
    for step, (seed, threads) in zip(steps, ((1, 0), (1, 3), (2, 1)), strict=True):
        fit(step, DATA, epochs=2, batch=16, val=0.2, seed=seed, threads=threads)
    assert bits(steps[0]) == bits(steps[1]) != bits(steps[2])


def test_an_iterable_is_data_too(tmp_path: Path) -> None:
    class Rows:
        def __iter__(self) -> Iterator[dict[str, object]]:
            return ({"x": x, "label": n} for x, n in zip(DATA["x"], DATA["label"], strict=True))

    a, b = FakeStep(), FakeStep()
    fit(a, Rows(), epochs=2, batch=16, val=Rows())
    fit(b, DATA, epochs=2, batch=16, shuffle=False)
    assert bits(a) == bits(b)
    with pytest.raises(DataError, match="has no rows"):
        fit(a, (r for r in ()), epochs=1)  # type: ignore[var-annotated]
    with pytest.raises(DataError, match="with a length only"):
        fit(a, Rows(), epochs=1, val=0.1)


class StopAfter(Silent):
    """Sends a signal to this process when a number of batches is done."""

    def __init__(self, batches: int, number: int = signal.SIGINT, validation: bool = False) -> None:
        self._left, self._number, self._validation = batches, number, validation

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), self._number)

    def batch(self, number: int, rows: int, values: object) -> None:
        if not self._validation:
            self._count()

    def validated(self, number: int) -> None:
        if self._validation:
            self._count()


@pytest.mark.parametrize("at", [1, 5, 6, 8])
@pytest.mark.parametrize("validation", [False, True])
def test_interrupted_and_resumed_is_as_if_nothing_had_happened(
    tmp_path: Path, at: int, validation: bool
) -> None:
    whole = FakeStep()
    expected = fit(whole, DATA, epochs=3, batch=16, val=HELD, metrics=["accuracy"])
    arguments = {"epochs": 3, "batch": 16, "val": HELD, "metrics": ["accuracy"], "out": tmp_path}
    number = signal.SIGTERM if at == 5 else signal.SIGINT
    with pytest.raises(SystemExit if at == 5 else KeyboardInterrupt):
        fit(FakeStep(), DATA, reporter=StopAfter(at, number, validation), **arguments)  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    other = FakeStep(seed=5)
    run = fit(other, DATA, resume=True, **arguments)  # type: ignore[arg-type]
    assert bits(other) == bits(whole)
    assert untimed(run.history.rows) == untimed(expected.history.rows)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4


def test_a_finished_run_goes_on_with_more_epochs(tmp_path: Path) -> None:
    whole, part = FakeStep(), FakeStep()
    fit(whole, DATA, epochs=3, batch=16)
    fit(part, DATA, epochs=2, batch=16, out=tmp_path)
    with pytest.raises(CheckpointError, match="holds a run already: resume it"):
        fit(part, DATA, epochs=3, batch=16, out=tmp_path)
    for name, arguments in (
        ("batch 16, not 8", {"batch": 8}),
        ("seed 0, not 1", {"seed": 1, "batch": 16}),
        ("shuffle True, not False", {"shuffle": False, "batch": 16}),
    ):
        with pytest.raises(CheckpointError, match=name):
            fit(FakeStep(), DATA, epochs=3, out=tmp_path, resume=True, **arguments)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="rows 90, not 40"):
        fit(FakeStep(), HELD, epochs=3, batch=16, out=tmp_path, resume=True)
    again = FakeStep(seed=7)
    run = fit(again, DATA, epochs=3, batch=16, out=tmp_path, resume=True)
    assert bits(again) == bits(whole) and len(run.history) == 3
    idle = FakeStep()
    assert len(fit(idle, DATA, epochs=3, batch=16, out=tmp_path, resume=True).history) == 3
    assert idle.runs == 0


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from graphc.train.loop import fit
from tests.train.fake import FakeStep, blobs

def child(folder):
    pid = os.fork()
    if pid:
        return pid
    try:
        fit(FakeStep(), blobs(90), epochs=5, batch=16, val=blobs(40, 1), out=folder, resume=True,
            checkpoint_every=2, metrics=["accuracy"])
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)

random.seed(1)
top = Path(sys.argv[1])
start = time.monotonic()
os.waitpid(child(top / "0"), 0)
whole = time.monotonic() - start
kills = runs = 0
while kills < 20:
    runs += 1
    for attempt in range(30):
        pid = child(top / str(runs))
        if attempt < 29:
            time.sleep(random.uniform(0, 0.6 * whole))
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if not os.WIFSIGNALED(status):
            break
        kills += 1
    if os.waitstatus_to_exitcode(status):
        sys.exit(1)
print(runs)
"""


def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = FakeStep()
    expected = fit(whole, blobs(90), epochs=5, batch=16, val=blobs(40, 1), metrics=["accuracy"])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for run in range(int(done.stdout) + 1):
        folder = tmp_path / str(run)
        last = load(folder / "checkpoints" / "last")
        assert {n: a.tobytes() for n, a in last.state.items()} == bits(whole)
        assert untimed(last.record["history"]) == untimed(expected.history.rows)
        exported = read_safetensors(folder / "weights.safetensors")
        best = load(folder / "checkpoints" / "best")
        np.testing.assert_array_equal(exported["fc.bias"], best.state["fc.bias"])
        assert len((folder / "history.csv").read_text().splitlines()) == 6


def test_early_stopping_waits_and_remembers_that_it_has(tmp_path: Path) -> None:
    class Worse(FakeStep):
        def evaluate(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            good = self.state()["rng"][1] == 2 * 6
            return {"loss": np.array(0.0 if good else 1.0)}

    arguments = {"batch": 16, "val": HELD, "stopping": EarlyStopping(3), "out": tmp_path}
    run = fit(Worse(), DATA, epochs=20, **arguments)  # type: ignore[arg-type]
    assert (run.best, run.ended, len(run.history)) == (2, "early", 5)
    step = Worse()
    run = fit(step, DATA, epochs=30, resume=True, **arguments)  # type: ignore[arg-type]
    assert run.ended == "early" and step.runs == 0
    small = fit(FakeStep(), DATA, epochs=9, stopping=EarlyStopping(2, min_delta=1e9))
    assert (small.best, len(small.history)) == (1, 3)
    for bad in ({"patience": 0}, {"min_delta": -1.0}):
        with pytest.raises(TrainError, match="patience"):
            EarlyStopping(**bad)  # type: ignore[arg-type]
    with pytest.raises(TrainError, match="`val_gain` is watched, but there is only"):
        fit(FakeStep(), DATA, epochs=1, monitor="val_gain")


def test_a_loss_that_is_not_finite_stops_and_says_where(tmp_path: Path) -> None:
    x = DATA["x"].copy()
    x[7] = np.inf
    with pytest.raises(DivergedError) as caught:
        fit(FakeStep(), {**DATA, "x": x}, epochs=3, batch=8, shuffle=False, out=tmp_path)
    error = caught.value
    assert (error.step, error.epoch, error.batch, error.where) == (0, 1, 1, "divide of `norm`")
    assert "the loss is nan in epoch 1, batch 1, after 0 steps" in str(error)
    assert "divide of `norm`" in str(error)
    assert "the input `x` of data[7] is not finite" in str(error)


def test_a_loss_that_explodes_names_the_batch() -> None:
    class Explodes(FakeStep):
        def run(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            results = super().run(batch)
            return {**results, "loss": np.array(np.inf)} if self.runs == 8 else results

    message = (
        r"the loss is inf in epoch 2, batch 2, after 7 steps; the batch begins with data\[16\], "
    )
    with pytest.raises(DivergedError, match=message):
        fit(Explodes(), DATA, epochs=3, batch=16, shuffle=False)

    class Rows:
        def __iter__(self) -> Iterator[dict[str, object]]:
            return ({"x": x, "label": 0} for x in DATA["x"])

    with pytest.raises(DivergedError, match="begins with sample 16, sample 17"):
        fit(Explodes(), Rows(), epochs=3, batch=16)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    class Bad(FakeStep):
        def run(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            results = super().run(batch)
            if self.runs == 12:
                self._state["fc.bias"][0] = np.nan
            return results

    with pytest.raises(
        DivergedError, match=r"`fc\.bias` holds .* last checkpoint is .*step-00000006"
    ):
        fit(Bad(), DATA, epochs=3, batch=16, out=tmp_path)
    assert load(tmp_path / "checkpoints" / "last").record["epoch"] == 1


def test_a_full_disk_stops_with_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FakeStep()
    fit(whole, DATA, epochs=3, batch=16)
    calls = 0
    original = ck.write_safetensors

    def filling(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ck, "write_safetensors", filling)
        with pytest.raises(CheckpointError, match=r"No space left.*step-00000012 is as it was"):
            fit(FakeStep(), DATA, epochs=3, batch=16, out=tmp_path)
    step = FakeStep()
    fit(step, DATA, epochs=3, batch=16, out=tmp_path, resume=True)
    assert bits(step) == bits(whole)


def test_a_fixed_batch_decides_the_size() -> None:
    fixed = (port("x", "f32", 16, 5), port("label", "i64", 16, target=True))
    step = FakeStep(ports=fixed)
    fit(step, DATA, epochs=1, batch=999)
    assert step.runs == 5
    with pytest.raises(DataError, match="no multiple"):
        fit(FakeStep(ports=fixed), DATA, epochs=1, val=HELD)


def test_which_output_and_which_label(tmp_path: Path) -> None:
    class Two(FakeStep):
        def evaluate(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {**super().evaluate(batch), "hidden": batch["x"]}

    with pytest.raises(MetricError, match=r"which output .* logits, hidden"):
        fit(Two(), DATA, epochs=1, val=HELD, metrics=["accuracy"])
    with pytest.raises(MetricError, match="no output `y`"):
        fit(Two(), DATA, epochs=1, val=HELD, metrics=["accuracy"], prediction="y")
    run = fit(
        Two(),
        DATA,
        epochs=1,
        val=HELD,
        metrics=["accuracy"],
        prediction="logits",
        monitor="val_accuracy",
    )
    assert run.best == 1
    with pytest.raises(MetricError, match="no input `y`"):
        fit(Two(), DATA, epochs=1, metrics=["mse"], target="y")
    two = (*PORTS, port("other", "f32", "N", target=True))
    with pytest.raises(MetricError, match="There are label, other"):
        fit(FakeStep(ports=two), {**DATA, "other": np.zeros(90)}, epochs=1, metrics=["mse"])


def test_what_classes_are_called_is_kept(tmp_path: Path) -> None:
    def table(names: str) -> Path:
        lines = [f"{i % 3},0,1,2,{i},{names[i % len(names)]}" for i in range(12)]
        (tmp_path / "t.csv").write_text("\n".join(["a,b,c,d,e,label", *lines]))
        return tmp_path / "t.csv"

    fit(FakeStep(), table("xyz"), epochs=1, out=tmp_path / "o")
    assert json.loads((tmp_path / "o" / "classes.json").read_text()) == {"label": ["x", "y", "z"]}
    with pytest.raises(CheckpointError, match=r"has classes .*'z'.*, not .*'w'"):
        fit(FakeStep(), table("wxy"), epochs=2, out=tmp_path / "o", resume=True)


def test_moving_averages_are_exported(tmp_path: Path) -> None:
    step = FakeStep()
    fit(step, DATA, epochs=1, out=tmp_path, average=True)
    exported = read_safetensors(tmp_path / "weights.safetensors")
    np.testing.assert_array_equal(exported["fc.bias"], step.weights(average=True)["fc.bias"])
    found = load(tmp_path / "checkpoints" / "last")
    np.testing.assert_array_equal(found.state["fc.bias"], step.state()["fc.bias"])


def test_evaluation_is_what_validation_says() -> None:
    step = FakeStep()
    run = fit(step, DATA, epochs=2, batch=16, val=HELD, metrics=["accuracy"])
    matrix = ConfusionMatrix()
    found = evaluate(step, HELD, batch=7, metrics=["accuracy", matrix])
    assert found == pytest.approx(
        {"loss": run.history["val_loss"][-1], "accuracy": run.history["val_accuracy"][-1]}, rel=1e-6
    )
    assert matrix.matrix.sum() == 40


def test_arguments_are_checked(tmp_path: Path) -> None:
    for message, arguments in (
        ("at least one epoch", {"epochs": 0}),
        ("at least one step", {"epochs": 1, "checkpoint_every": 0}),
        ("need a folder", {"epochs": 1, "resume": True}),
        ("one row", {"epochs": 1, "batch": 0}),
    ):
        with pytest.raises(TrainError, match=message):
            fit(FakeStep(), DATA, **arguments)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match="cannot write to"):
        fit(FakeStep(), DATA, epochs=1, out=tmp_path / "file")


def test_in_another_thread_signals_are_left_alone() -> None:
    found: list[object] = []
    worker = threading.Thread(target=lambda: found.append(fit(FakeStep(), DATA, epochs=1).ended))
    worker.start()
    worker.join()
    assert found == ["done"]


def test_a_record_of_something_else_is_damage(tmp_path: Path) -> None:
    step = FakeStep()
    ck.Checkpoints(tmp_path / "checkpoints").save(3, step.state(), step.weights(), {"epoch": 1})
    with pytest.raises(CheckpointError, match="its record is none of a run"):
        fit(step, DATA, epochs=1, out=tmp_path, resume=True)
