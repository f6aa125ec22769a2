"""`fit`: trains a step on data, in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from graphc.train.batches import Loader
from graphc.train.data.dataset import Dataset, split
from graphc.train.data.sources import Data, Given, open_data
from graphc.train.epochs import Loop, Run
from graphc.train.errors import DataError, TrainError
from graphc.train.evaluation import in_order
from graphc.train.files import only_writer
from graphc.train.log import Log
from graphc.train.metrics import Metric
from graphc.train.ports import check_ports
from graphc.train.progress import Reporter, Silent
from graphc.train.scoring import Scoring
from graphc.train.signals import asked_to_stop
from graphc.train.step import Step
from graphc.train.stopping import Best, EarlyStopping


def fit(
    step: Step,
    data: Given,
    *,
    epochs: int,
    batch: int = 32,
    val: Given | float | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    shuffle: bool = True,
    metrics: Sequence[str | Metric] = (),
    prediction: str | None = None,
    target: str | None = None,
    monitor: str | None = None,
    stopping: EarlyStopping | None = None,
    checkpoint_every: int | None = None,
    keep: int = 1,
    average: bool = False,
    threads: int = 1,
    tensorboard: bool = False,
    title: str = "",
    reporter: Reporter | None = None,
) -> Run:
    """Trains a step on data.

    Args:
        step: usually a `Trainer`.
        data: as for `open_data`.
        epochs: passes over the data in all, those of a resumed run included.
        batch: rows in a batch; a step whose batch dim is fixed says it itself.
        val: data to validate on after each epoch, or a share of the rows (0.1) to hold out for that.
        out: a folder for checkpoints, `weights.safetensors`, `history.csv`, `history.jsonl`, `curves.svg`, and
            `classes.json` if the data has names for classes.
        resume: go on from the last checkpoint in `out`; begin anew if there is none.
        seed: of the order of rows and of what is held out.
        shuffle: take rows in random order.
        metrics: numbers of the validation rows: `accuracy`, `top_k(k=5)`, `f1(average=macro)`, or objects.
        prediction, target: the output and the input that metrics compare; needed where there are several.
        monitor: the column that decides which epoch is best: `val_loss`, or `loss` without validation.
        stopping: end early; None runs all epochs.
        checkpoint_every: steps between checkpoints within an epoch; there is always one after an epoch.
        keep: how many of the newest checkpoints are kept, besides the best.
        average: `weights.safetensors` and the checkpoints' hold the moving averages.
        threads: that read and decode batches ahead of the step; 0 reads when a batch is needed.
        tensorboard: write event files to `out/tensorboard`.
        title: over the curves.
        reporter: who is told how it goes; None is nobody.

    Raises:
        DataError: data is missing or wrong; the message names the file and the row.
        DivergedError: the loss is not finite.
        CheckpointError: a checkpoint is damaged, of another run, or cannot be written.
        TrainError: wrong arguments, or files that cannot be written.
        KeyboardInterrupt: after Ctrl-C, when the checkpoint is written.
    """
    if epochs < 1:
        raise TrainError(f"a run has at least one epoch, not {epochs}")
    if checkpoint_every is not None and checkpoint_every < 1:
        raise TrainError(f"checkpoint_every is at least one step, not {checkpoint_every}")
    if out is None and (resume or tensorboard or checkpoint_every):
        raise TrainError("resuming, checkpoints and TensorBoard need a folder: out=...")
    fixed = check_ports(step.ports)
    train, held = _opened(step, data, val, seed)
    size = batch if fixed is None else fixed
    loader = Loader(train, size, seed, shuffle, fixed is not None, threads)
    validation = None if held is None else in_order(held, size, fixed is not None, threads)
    scoring = Scoring(metrics, step.ports, prediction, target)
    best = Best(
        monitor or ("val_loss" if held is not None else "loss"),
        stopping.min_delta if stopping is not None else 0.0,
    )
    patience = stopping.patience if stopping is not None else None
    show = reporter or Silent()
    with ExitStack() as stack:
        folder = None if out is None else Path(out)
        if folder is not None:
            try:
                stack.enter_context(only_writer(folder))
            except OSError as error:
                raise TrainError(f"cannot write to {folder}: {error.strerror or error}") from error
        loop = Loop(step, loader, validation, scoring, best, patience, folder, keep, average, show)
        loop.begin(resume)
        if folder is not None:
            loop.log = Log(folder, title=title, tensorboard=tensorboard, step=loop.steps)
            stack.callback(loop.log.close)
        show.start(epochs, loop.epoch)
        stack.callback(show.close)
        asked = stack.enter_context(asked_to_stop())
        return loop.run(epochs, checkpoint_every, asked)


def _opened(
    step: Step, data: Given, val: Given | float | None, seed: int
) -> tuple[Data, Data | None]:
    train = open_data(data, step.ports)
    if not isinstance(val, (int, float)):
        return train, None if val is None else open_data(val, step.ports, like=train)
    if not isinstance(train, Dataset):
        raise DataError("rows can be held out of data with a length only: give the validation data")
    return split(train, val, seed)
