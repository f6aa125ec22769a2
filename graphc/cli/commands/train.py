"""`graphc train`: from a `.nn` file with a train block, and data, to weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import graphc
from graphc.cli import terminal
from graphc.cli.command import UserError, graphc_command
from graphc.cli.options import check_training, json_option, model_options, precision_option
from graphc.train.data import Data, open_data, split
from graphc.train.data.dataset import Dataset
from graphc.train.epochs import Run
from graphc.train.history import to_json
from graphc.train.labels import data_ports
from graphc.train.loop import fit
from graphc.train.ports import Port
from graphc.train.progress import describe, for_console
from graphc.train.stopping import EarlyStopping
from graphc.train.trainer import Trainer
from graphc.train.transfer import starting_weights

MAX_SHOWN = 20
"""Classes of a confusion matrix that is printed."""
SEEDS = click.IntRange(0, (1 << 63) - 1)


@graphc_command("graphc train lenet.nn --data train.npz --val val.npz --epochs 10 -o run")
@model_options
@click.option(
    "--data",
    required=True,
    multiple=True,
    metavar="DATA",
    help="A .npz, .csv, .tsv or .parquet file, a folder of .npy files or of pictures by class, or INPUT=FILE.npy for "
    "each input.",
)
@click.option("--val", multiple=True, metavar="DATA", help="Data to validate on after each epoch.")
@click.option(
    "--split",
    "share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Instead of --val: hold this share of the data out.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="INPUT=NAME",
    help="What an input is called in the data, if otherwise. Repeatable.",
)
@click.option("--resize", is_flag=True, help="Scale and cut pictures to the model's size.")
@click.option(
    "--epochs", type=click.IntRange(1), help="Passes over the data. [default: the file's]"
)
@click.option(
    "--batch", type=click.IntRange(1), help="Rows in a step. [default: the file's, or 32]"
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for weights.safetensors, checkpoints, history and curves.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the output folder.")
@click.option(
    "--weights",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Begin with these. Default: fresh random weights.",
)
@click.option(
    "--fresh",
    multiple=True,
    metavar="PATTERN",
    help="With --weights: parameters that begin anew, such as fc. Repeatable.",
)
@click.option(
    "--freeze",
    multiple=True,
    metavar="PATTERN",
    help="Parameters that stay as they are, instead of the file's. Repeatable.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="METRIC",
    help="Measure on the validation data: accuracy, top_k(k=5), f1(average=macro), auc, mse, ... Repeatable.",
)
@click.option("--prediction", metavar="OUTPUT", help="The output that metrics judge.")
@click.option("--label", metavar="INPUT", help="The input that metrics compare it with.")
@click.option(
    "--monitor", metavar="COLUMN", help="Decides which epoch is best. [default: val_loss or loss]"
)
@click.option(
    "--patience", type=click.IntRange(1), help="Stop after so many epochs without a better one."
)
@click.option("--min-delta", type=click.FloatRange(0), default=0.0, help="A smaller gain is none.")
@click.option(
    "--checkpoint-every",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Checkpoints within an epoch.",
)
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Newest checkpoints to keep.",
)
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard events.")
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Of all that is random.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads that compute.")
@click.option(
    "--workers",
    type=click.IntRange(0, 256),
    default=1,
    show_default=True,
    help="Threads that read and decode ahead.",
)
@click.option(
    "--target",
    default="native",
    show_default=True,
    help="native (this machine), x86-64-v3, x86-64-v4, cuda (an NVIDIA GPU, sm_90), or another: cuda:sm_80.",
)
@precision_option
@json_option
def command(
    file: Path,
    model: str | None,
    settings: dict[str, Any],
    dims: dict[str, int],
    data: tuple[str, ...],
    val: tuple[str, ...],
    share: float | None,
    columns: tuple[str, ...],
    resize: bool,
    epochs: int | None,
    batch: int | None,
    output: Path,
    resume: bool,
    weights: Path | None,
    fresh: tuple[str, ...],
    freeze: tuple[str, ...],
    metrics: tuple[str, ...],
    prediction: str | None,
    label: str | None,
    monitor: str | None,
    patience: int | None,
    min_delta: float,
    checkpoint_every: int | None,
    keep: int,
    tensorboard: bool,
    seed: int,
    threads: int | None,
    workers: int,
    target: str,
    precision: str,
    as_json: bool,
) -> None:
    """Train a model by the train block of its file.

    Same seed, same data, same threads: same weights. After Ctrl-C, a crash or kill -9, --resume goes on from the last
    checkpoint as if nothing had happened. The best epoch's weights.safetensors fits `graphc compile --weights`.
    """
    if share is not None and val:
        raise click.UsageError("give --val or --split, not both")
    check_training(target, precision)
    if fresh and weights is None:
        raise click.UsageError("--fresh is for --weights: without it all parameters begin anew")
    with terminal.progress(not as_json) as stage:
        stage("reading the model")
        loaded = graphc.load(file, model=model, dims=dims, **settings)
        terminal.show_diagnostics(() if as_json else loaded.warnings)
        forward = loaded.for_training("train", freeze=freeze or None)
        said = forward.training
        assert said is not None
        stage("opening the data")  # mistakes in it before the long work
        ports = data_ports(forward.graph, said.inputs)
        train, held = _data(ports, data, val, share, columns, resize, seed)
        count = epochs or said.epochs
        if count is None:
            raise UserError("how many epochs? Say `epochs 10` in the train block, or --epochs 10")
        begun = None if weights is None else starting_weights(loaded, weights, fresh, seed)
        trainer = Trainer(
            loaded,
            begun,
            freeze=freeze or None,
            seed=seed,
            target=target,
            precision=precision,
            threads=threads,
            progress=stage,
        )
    err = terminal.console(err=True)
    try:
        run = fit(
            trainer,
            train,
            epochs=count,
            batch=batch or said.batch or 32,
            val=held,
            out=output,
            resume=resume,
            seed=seed,
            metrics=metrics,
            prediction=prediction,
            target=label,
            monitor=monitor,
            stopping=EarlyStopping(patience, min_delta) if patience else None,
            checkpoint_every=checkpoint_every,
            keep=keep,
            average=trainer.rule.ema is not None,
            threads=workers,
            tensorboard=tensorboard,
            title=trainer.model.name,
            reporter=None if as_json else for_console(err),
        )
    except KeyboardInterrupt:
        terminal.write(f"stopped; the same command with --resume goes on from {output}", err=True)
        raise
    if as_json:
        terminal.print_json(_json(run, output))
    else:
        _show(run, output)


def _data(
    ports: Sequence[Port],
    data: tuple[str, ...],
    val: tuple[str, ...],
    share: float | None,
    columns: tuple[str, ...],
    resize: bool,
    seed: int,
) -> tuple[Data, Data | None]:
    names = {p.name for p in ports}
    renamed = dict(_pair(text, names) for text in columns)
    train = open_data(_given(data, names), ports, columns=renamed, resize=resize)
    if val:
        return train, open_data(
            _given(val, names), ports, columns=renamed, resize=resize, like=train
        )
    if share is None:
        return train, None
    assert isinstance(train, Dataset)  # every file is
    return split(train, share, seed)


def _given(texts: tuple[str, ...], names: set[str]) -> str | dict[str, str]:
    """One path, or a file for each input."""
    if len(texts) == 1 and texts[0].partition("=")[0] not in names:
        return texts[0]
    return dict(_pair(text, names) for text in texts)


def _pair(text: str, names: set[str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or name not in names:
        known = ", ".join(sorted(names))
        raise UserError(f"`{text}` is not of the form INPUT=VALUE; the model's inputs are {known}")
    return name, value


def _files(run: Run, output: Path) -> list[Path]:
    names = (
        "weights.safetensors",
        "classes.json",
        "history.csv",
        "history.jsonl",
        "curves.svg",
        "checkpoints",
        "tensorboard",
    )
    return [output / name for name in names if (output / name).exists()]


def _json(run: Run, output: Path) -> dict[str, Any]:
    return {
        "ok": True,
        "ended": run.ended,
        "best": run.best,
        "history": [to_json(row) for row in run.history.rows],
        "scores": dict(run.scores),
        "files": [str(path) for path in _files(run, output)],
    }


def _show(run: Run, output: Path) -> None:
    why = "stopped early" if run.ended == "early" else "trained"
    click.echo(f"{why}: {len(run.history)} epochs")
    if run.best:
        row = run.history.rows[run.best - 1]
        click.echo(f"best epoch {run.best}: {describe(row)}")
    matrix = run.scores.get("confusion_matrix", {}).get("matrix", [])
    if 0 < len(matrix) <= MAX_SHOWN:
        click.echo("confusion matrix of the last epoch: what is in a row was taken for the column")
        terminal.console().print(_matrix(matrix))
    for path in _files(run, output):
        click.echo(f"  {path}")


def _matrix(matrix: list[list[int]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for i in range(len(matrix)):
        table.add_column(str(i), justify="right")
    for i, row in enumerate(matrix):
        cells = [
            Text(str(n), style="bold" if i == j else "red" if n else "dim")
            for j, n in enumerate(row)
        ]
        table.add_row(str(i), *cells)
    return table
