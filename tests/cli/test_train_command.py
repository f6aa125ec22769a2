"""`graphc train`: from a file and data to weights that compile, and on from where a run was killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as package
from graphc.artifact.safetensors_io import read_safetensors
from graphc.cli.command import UserError
from graphc.cli.commands import train
from graphc.model import Model
from graphc.train.checkpoint import load
from graphc.train.progress import Lines
from graphc.train.trainer import Trainer
from tests.cli.shell import graphc, graphc_json

MODEL = """
model Blobs {
    input x: f32[N, 4]
    output logits = x -> fc1: Linear(8) -> ReLU -> fc2: Linear(3)
}

train Blobs {
    input label: i64[N]
    loss cross_entropy(logits, label)
    metric accuracy = mean(argmax(logits, dim=1) == label)
    optimizer SGD(lr=0.1, momentum=0.9)
    batch 16
    epochs 4
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and data in two formats."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "blobs.nn").write_text(MODEL)
    rng = np.random.default_rng(0)
    centres = 2 * rng.standard_normal((3, 4))
    for name, rows in (("train", 120), ("val", 40)):
        label = rng.integers(0, 3, rows)
        x = (centres[label] + rng.standard_normal((rows, 4))).astype(np.float32)
        np.savez(folder / f"{name}.npz", x=x, label=label)
        np.save(folder / f"{name}_x.npy", x)
        np.save(folder / f"{name}_label.npy", label)
        lines = [
            ",".join(map(repr, map(float, row))) + f",{n}" for row, n in zip(x, label, strict=True)
        ]
        (folder / f"{name}.csv").write_text("a,b,c,d,label\n" + "\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """The step of the same model is compiled once for all runs in this file; each begins with fresh state."""
    made: dict[tuple[Any, ...], tuple[Trainer, dict[str, np.ndarray]]] = {}

    def trainer(model: Model, weights: object, **settings: Any) -> Trainer:
        settings.pop("progress")
        key = (model.dump(), *settings.items())
        if weights is not None:
            return Trainer(model, weights, **settings)  # type: ignore[arg-type]
        if key not in made:
            new = Trainer(model, **settings)
            made[key] = new, new.state()
        found, begun = made[key]
        found.load_state(begun)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Trainer", trainer)
        yield


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A run of four epochs."""
    out = folder / "run"
    shown = graphc(
        "train", folder / "blobs.nn", "--data", folder / "train.npz", "--val", folder / "val.npz",
        "-o", out, "--metric", "f1(average=macro)", "--metric", "confusion_matrix",
    )  # fmt: skip
    assert "trained: 4 epochs" in shown.stdout and "best epoch" in shown.stdout
    assert "what is in a row was taken for the column" in shown.stdout
    assert "epoch 1/4  loss" in shown.stderr and "images/s" in shown.stderr
    return out


def test_a_run_learns_and_its_weights_compile(folder: Path, trained: Path) -> None:
    assert {p.name for p in trained.iterdir()} >= {
        "weights.safetensors", "history.csv", "history.jsonl", "curves.svg", "checkpoints",
    }  # fmt: skip
    graphc(
        "compile",
        folder / "blobs.nn",
        "-o",
        folder / "m",
        "--weights",
        trained / "weights.safetensors",
    )
    data = np.load(folder / "val.npz")
    with package.open(folder / "m") as module:
        guess = module(x=data["x"])["logits"].argmax(1)
    best = load(trained / "checkpoints" / "best")
    row = best.record["history"][-1]
    assert row["val_accuracy"] == pytest.approx((guess == data["label"]).mean(), abs=1e-6)
    assert row["val_accuracy"] > 0.8


def test_the_same_from_another_format_and_going_on(folder: Path, trained: Path) -> None:
    """Two epochs from a table, two more from arrays: the bits of four epochs at once."""
    out = folder / "again"
    arguments = ("train", folder / "blobs.nn", "-o", out, "--checkpoint-every", "3")
    report = graphc_json(
        *arguments, "--data", folder / "train.csv", "--val", folder / "val.csv", "--epochs", "2"
    )
    assert report["ok"] and len(report["history"]) == 2 and report["ended"] == "done"
    again = graphc_json(
        *arguments, "--resume", "--workers", "2",
        "--data", f"x={folder / 'train_x.npy'}", "--data", f"label={folder / 'train_label.npy'}",
        "--val", folder / "val.npz",
    )  # fmt: skip
    assert len(again["history"]) == 4
    one, other = (load(o / "checkpoints" / "last").state for o in (trained, out))
    assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in other.items()}
    failed = graphc(*arguments, "--data", folder / "train.csv", code=1)
    assert "holds a run already" in failed.stderr


def test_an_interrupt_saves_and_says_how_to_go_on(
    folder: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(Lines):
        def batch(self, number: int, rows: int, values: object) -> None:
            if number == 2:
                os.kill(os.getpid(), signal.SIGINT)

    arguments = ("train", folder / "blobs.nn", "--data", folder / "train.npz", "-o", tmp_path / "o")
    with monkeypatch.context() as patch:
        patch.setattr(train, "for_console", Impatient)
        stopped = graphc(*arguments, "--val", folder / "val.npz", code=130)
    assert "--resume goes on from" in stopped.stderr
    assert load(tmp_path / "o" / "checkpoints" / "last").record["step"] == 3
    graphc(*arguments, "--val", folder / "val.npz", "--resume")
    one, other = (load(o / "checkpoints" / "last").state for o in (trained, tmp_path / "o"))
    assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in other.items()}


def test_transfer_keeps_what_fits_and_freezes(folder: Path, trained: Path, tmp_path: Path) -> None:
    other = MODEL.replace("Linear(3)", "Linear(5)")
    (tmp_path / "other.nn").write_text(other)
    weights = trained / "weights.safetensors"
    arguments = (
        "train",
        tmp_path / "other.nn",
        "--data",
        folder / "train.npz",
        "--weights",
        weights,
    )
    refused = graphc(*arguments, "-o", tmp_path / "o", code=1)
    assert "fc2.weight" in refused.stderr
    graphc(*arguments, "-o", tmp_path / "o", "--fresh", "fc2", "--freeze", "fc1", "--epochs", "1")
    before, after = (
        read_safetensors(weights),
        read_safetensors(tmp_path / "o" / "weights.safetensors"),
    )
    assert after["fc1.weight"].tobytes() == before["fc1.weight"].tobytes()
    assert after["fc2.weight"].shape == (5, 8)
    state = load(tmp_path / "o" / "checkpoints" / "last").state
    assert not any("fc1" in name for name in state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "gone.npz"], "gone.npz: no such file or folder"),
        (["--data", "train.npz", "--column", "label=y"], "has no `y` for `label`"),
        (["--data", "train.npz", "--column", "y=label"], "the model's inputs are label, x"),
        (["--data", "x=train_x.npy", "--data", "val.npz"], "not of the form INPUT=VALUE"),
        (["--data", "train.npz", "--freeze", "fc9"], "fits no parameter"),
    ],
)
def test_mistakes_are_told_before_anything_is_compiled(
    folder: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    failed = graphc("train", "blobs.nn", *arguments, "-o", tmp_path / "o", code=1)
    assert message in failed.stderr
    assert not (tmp_path / "o").exists()


def test_wrong_usage(folder: Path, tmp_path: Path) -> None:
    base = ("train", folder / "blobs.nn", "--data", folder / "train.npz", "-o", tmp_path / "o")
    both = graphc(*base, "--val", "x", "--split", "0.1", code=2)
    assert "not both" in both.stderr
    assert "--fresh is for --weights" in graphc(*base, "--fresh", "fc1", code=2).stderr
    (tmp_path / "plain.nn").write_text(MODEL.replace("    epochs 4\n", ""))
    lacks = graphc("train", tmp_path / "plain.nn", *base[2:], code=1)
    assert "how many epochs?" in lacks.stderr
    narrow = graphc(*base, "--precision", "bf16", code=2)
    assert "a training step is computed in f32" in narrow.stderr


def test_a_precision_is_for_gpus(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def trainer(model: Model, weights: object, **settings: Any) -> Trainer:
        asked.update(settings)
        raise UserError("so far")

    monkeypatch.setattr(train, "Trainer", trainer)
    data = ("--data", folder / "train.npz", "-o", tmp_path / "o")
    chosen = ("--target", "cuda:sm_80", "--precision", "tf32")
    assert "so far" in graphc("train", folder / "blobs.nn", *data, *chosen, code=1).stderr
    assert (asked["target"], asked["precision"]) == ("cuda:sm_80", "tf32")
