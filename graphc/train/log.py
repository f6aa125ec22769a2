"""What a run writes for people and programs: history.csv, history.jsonl, curves.svg, TensorBoard events.

The text files and the picture are written anew after each epoch, whole, from the history that the checkpoint holds:
going on after an interruption neither repeats nor loses a line.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphc.train import curves
from graphc.train.errors import TrainError
from graphc.train.files import write_whole
from graphc.train.history import History

CSV, JSONL, CURVES, EVENTS = "history.csv", "history.jsonl", "curves.svg", "tensorboard"
EVERY = 10
"""Steps between points of the training loss in TensorBoard."""


class Log:
    """The log of one run in a folder.

    Args:
        folder: of the run.
        title: over the curves.
        tensorboard: whether events are written, to `folder/tensorboard`.
        step: updates that were done before, when a run goes on.

    Raises:
        TrainError: tensorboardX is asked for and not installed.
    """

    def __init__(
        self, folder: Path, *, title: str = "", tensorboard: bool = False, step: int = 0
    ) -> None:
        self._folder, self._title = folder, title
        self._events: Any = None
        if tensorboard:
            try:
                events = importlib.import_module("graphc.train.tensorboard")
            except ModuleNotFoundError as error:
                raise TrainError(
                    "TensorBoard events need tensorboardX: pip install 'graphc[train]'"
                ) from error
            self._events = events.TensorBoard(folder / EVENTS, step + 1)

    def step(self, step: int, values: Mapping[str, float]) -> None:
        """After an update: every tenth goes to TensorBoard."""
        if self._events is not None and step % EVERY == 0:
            self._events.scalars({f"{k}_by_step": v for k, v in values.items()}, step)

    def epoch(self, history: History, best: int | None) -> None:
        """After an epoch: the files are as the history is. Raises TrainError when they cannot be written."""
        self.write(history, best)
        if self._events is not None:
            row = dict(history.rows[-1])
            step = int(row.pop("step"))
            self._events.scalars({k: float(v) for k, v in row.items()}, step)

    def write(self, history: History, best: int | None) -> None:
        """Writes the text files and the curves. Raises TrainError when they cannot be written."""
        texts = {CSV: history.to_csv(), JSONL: history.to_jsonl()}
        if len(history):
            texts[CURVES] = curves.draw(history, title=self._title, best=best)
        for name, text in texts.items():
            try:
                write_whole(self._folder / name, text)
            except OSError as error:
                reason = error.strerror or error
                raise TrainError(f"cannot write {self._folder / name}: {reason}") from error

    def close(self) -> None:
        """Ends the event file."""
        if self._events is not None:
            self._events.close()
