"""What can go wrong with training, as exceptions whose text is one sentence for the person who trains."""

from __future__ import annotations


class TrainError(Exception):
    """Training cannot start or go on as asked. The message says what to do about it."""


class DataError(TrainError, ValueError):
    """Data is missing, unreadable, or not what the model takes; the message names file and row."""


class CheckpointError(TrainError):
    """A checkpoint cannot be written, or what is read is damaged or of another run."""


class StateError(TrainError, ValueError):
    """The state of a step does not fit, or something needed to make one is missing."""


class DivergedError(TrainError, ArithmeticError):
    """The loss is no longer a finite number.

    Attributes:
        step: updates that were done before the one that failed.
        epoch: counted from 1.
        batch: counted from 1 within the epoch.
        where: the layer where the first such value appeared, if the step could tell.
    """

    def __init__(self, message: str, step: int, epoch: int, batch: int, where: str | None) -> None:
        super().__init__(message)
        self.step, self.epoch, self.batch, self.where = step, epoch, batch, where
