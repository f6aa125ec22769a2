"""A run's epochs: steps, validation, checkpoints and the history, such that an interrupted run goes on bit for bit.

A checkpoint says how many epochs and batches are done. The order of rows is a function of seed and epoch, what the step
remembers is in its state, and the means of the epoch that runs are in the record: going on from there computes what
would have been computed.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graphc.train import checkpoint as ck
from graphc.train.batches import Batch, Loader
from graphc.train.data.dataset import Stream
from graphc.train.data.fit import first_row, is_float
from graphc.train.errors import CheckpointError, DataError, DivergedError, StateError, TrainError
from graphc.train.evaluation import measure
from graphc.train.files import clean, copy_whole, write_whole
from graphc.train.history import History, from_json, to_json
from graphc.train.log import Log
from graphc.train.means import Means
from graphc.train.progress import Reporter
from graphc.train.scoring import Scoring
from graphc.train.signals import Asked
from graphc.train.step import Step
from graphc.train.stopping import Best

CHECKPOINTS, WEIGHTS, CLASSES = "checkpoints", "weights.safetensors", "classes.json"


@dataclass(frozen=True)
class Run:
    """What a run came to.

    Attributes:
        history: a row per epoch.
        best: the best epoch, from 1; 0 when there was none.
        ended: why: all epochs are done, or early stopping.
        scores: what metrics say beside their number, from the last validation.
        weights: the file of the best epoch's weights, if the run writes files.
    """

    history: History
    best: int
    ended: Literal["done", "early"]
    scores: Mapping[str, Any]
    weights: Path | None


class Loop:
    """A run between two checkpoints: where it is, and what it has seen. The arguments are `fit`'s."""

    def __init__(
        self,
        step: Step,
        loader: Loader,
        validation: Loader | None,
        scoring: Scoring,
        best: Best,
        patience: int | None,
        folder: Path | None,
        keep: int,
        average: bool,
        show: Reporter,
    ) -> None:
        self._step, self._loader, self._validation = step, loader, validation
        self._scoring, self._best, self._patience = scoring, best, patience
        self._folder, self._average, self._show = folder, average, show
        self._checkpoints = None if folder is None else ck.Checkpoints(folder / CHECKPOINTS, keep)
        self.log: Log | None = None
        self.epoch = self.batch = self.steps = 0  # done so far; batches of the epoch that runs
        self._means, self._seconds = Means(), 0.0
        self._history = History()

    # ---- Checkpoints --------------------------------------------------------------------------

    def begin(self, resume: bool) -> None:
        """Goes on from the last checkpoint, or makes sure that there is none to be lost."""
        if self._checkpoints is None:
            return
        assert self._folder is not None
        clean(self._folder)
        self._checkpoints.clean()
        found = self._checkpoints.load() if resume else None
        if found is None:
            if self._checkpoints.target(ck.LAST) is not None:
                raise CheckpointError(
                    f"{self._folder} holds a run already: resume it, or choose another folder"
                )
            return
        record = found.record
        try:
            self._check_same(record["settings"])
            self.epoch, self.batch, self.steps = (
                int(record[k]) for k in ("epoch", "batch", "step")
            )
            self._means = Means.from_json(record["means"])
            self._seconds = float(record["seconds"])
            self._history = History(from_json(row) for row in record["history"])
            self._best.resume(record["best"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError(
                f"the checkpoint {found.folder} is damaged: its record is none of a run ({error!r})"
            ) from error
        try:
            self._step.load_state(found.state)
        except StateError as error:
            raise CheckpointError(
                f"the checkpoint {found.folder} is of another model: {error}"
            ) from error

    def _settings(self) -> dict[str, Any]:
        """What must be the same for a run to go on as if nothing had happened."""
        loader = self._loader
        rows = None if isinstance(loader.data, Stream) else len(loader.data)
        return {
            "seed": loader.seed,
            "batch": loader.size,
            "shuffle": loader.shuffle,
            "rows": rows,
            "inputs": [str(p) for p in self._step.ports],
            "classes": {name: list(names) for name, names in loader.data.classes.items()},
        }

    def _check_same(self, saved: Mapping[str, Any]) -> None:
        for name, value in self._settings().items():
            if saved[name] != value:
                raise CheckpointError(
                    f"the run in {self._folder} has {name} {saved[name]}, not {value}: it cannot go on so"
                )

    def _save(self, *, best: bool = False) -> None:
        if self._checkpoints is None:
            return
        state = self._step.state()
        for name, array in state.items():
            if is_float(array.dtype) and not np.isfinite(array).all():
                raise self._diverged(f"`{name}` holds numbers that are not finite", None)
        record = {
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.steps,
            "means": self._means.to_json(),
            "seconds": self._seconds,
            "history": [to_json(row) for row in self._history.rows],
            "best": self._best.to_json(),
            "settings": self._settings(),
        }
        weights = self._step.weights(average=self._average)
        self._checkpoints.save(self.steps, state, weights, record, best=best)

    # ---- Epochs -------------------------------------------------------------------------------

    def run(self, epochs: int, every: int | None, asked: Asked) -> Run:
        """All epochs that are left."""
        self._write_classes()
        ended: Literal["done", "early"] = "done"
        while self.epoch < epochs:
            if self._patience is not None and self._best.waited >= self._patience:
                ended = "early"
                break
            self._train(every, asked)
            self._finish(self._validate(asked))
        if self.log is not None:
            self.log.write(self._history, self._best.epoch or None)
        return Run(self._history, self._best.epoch, ended, self._scoring.details(), self._export())

    def _train(self, every: int | None, asked: Asked) -> None:
        """The batches of the epoch that are left."""
        self._show.epoch(self.epoch + 1, self._loader.batches, self.batch)
        before, start = self._seconds, time.monotonic()
        with closing(self._loader.epoch(self.epoch, self.batch)) as batches:
            for batch in batches:
                self._update(batch)
                self._seconds = before + time.monotonic() - start
                self._show.batch(batch.number, len(batch), self._means.values())
                at_end = self.batch == self._loader.batches
                if asked or (every and self.steps % every == 0 and not at_end):
                    self._save()
                if asked:
                    asked.obey()
        if not self.batch:
            raise DataError("the data has no rows")

    def _update(self, batch: Batch) -> None:
        results = self._step.run(batch.arrays)
        loss = float(results["loss"])
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss:g}", batch)
        self.steps += 1
        self.batch = batch.number + 1
        self._means.add(results, len(batch))
        if self.log is not None:
            self.log.step(self.steps, {"loss": loss})

    def _diverged(self, what: str, batch: Batch | None) -> DivergedError:
        number = self.batch if batch is None else batch.number + 1
        where = self._step.blame(batch.arrays) if batch is not None else ""
        text = f"{what} in epoch {self.epoch + 1}, batch {number}, after {self.steps} steps"
        if where:
            text += f"; the first such number is in {where}"
        if batch is not None:
            text += f"; {self._suspects(batch)}"
        last = None if self._checkpoints is None else self._checkpoints.target(ck.LAST)
        if last is not None:
            text += f"; the last checkpoint is {last}"
        return DivergedError(text, self.steps, self.epoch + 1, number, where or None)

    def _suspects(self, batch: Batch) -> str:
        """Rows with inputs that are not finite, or else the first rows of the batch."""

        def place(i: int) -> str:
            data, row = self._loader.data, int(batch.rows[i])
            return f"sample {row}" if isinstance(data, Stream) else data.where(row)

        for name, array in batch.arrays.items():
            row = first_row(~np.isfinite(array)) if is_float(array.dtype) else None
            if row is not None:
                return f"the input `{name}` of {place(row)} is not finite"
        return f"the batch begins with {', '.join(place(i) for i in range(min(3, len(batch))))}"

    def _validate(self, asked: Asked) -> dict[str, float]:
        """Means and metrics of the validation data, as `val_...`."""
        if self._validation is None:
            return {}
        self._show.validate(self._validation.batches)

        def measured(number: int) -> None:
            self._show.validated(number)
            if asked:
                self._save()  # the epoch's steps are done, its row is not
                asked.obey()

        found = measure(self._step, self._validation, self._scoring, measured)
        return {f"val_{name}": value for name, value in found.items()}

    def _finish(self, validated: Mapping[str, float]) -> None:
        """The epoch is over: a row of the history, a checkpoint, the log."""
        self.epoch += 1
        row = {
            "epoch": self.epoch,
            "step": self.steps,
            **self._means.values(),
            **validated,
            "seconds": round(self._seconds, 3),
            "images_per_second": round(self._means.rows / max(self._seconds, 1e-9), 1),
        }
        best = self._best.see(self.epoch, row)
        self._history.add(row)
        self._means, self._seconds, self.batch = Means(), 0.0, 0
        self._save(best=best)
        if self.log is not None:
            self.log.epoch(self._history, self._best.epoch or None)
        self._show.end_epoch(row, best)

    def _write_classes(self) -> None:
        """Writes what the numbers of classes mean, where the data calls them by name."""
        names = self._settings()["classes"]
        if self._folder is None or not names:
            return
        try:
            text = json.dumps(names, indent=1, ensure_ascii=False)
            write_whole(self._folder / CLASSES, text + "\n")
        except OSError as error:
            reason = error.strerror or error
            raise TrainError(f"cannot write {self._folder / CLASSES}: {reason}") from error

    def _export(self) -> Path | None:
        """Copies the best epoch's weights to the run's folder."""
        if self._folder is None or self._checkpoints is None:
            return None
        source = self._checkpoints.target(ck.BEST) or self._checkpoints.target(ck.LAST)
        if source is None:
            return None
        final = self._folder / WEIGHTS
        try:
            copy_whole(source / ck.WEIGHTS, final)
        except OSError as error:
            raise TrainError(f"cannot write {final}: {error.strerror or error}") from error
        return final
