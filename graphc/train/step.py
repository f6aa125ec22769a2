"""What the loop needs of a training step; `Trainer` is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from graphc.train.ports import Port

Array = np.ndarray[Any, np.dtype[Any]]


class Step(Protocol):
    """A model that can be trained a batch at a time.

    The results of `run` must depend on nothing but the state and the batches, or a run that was interrupted does not go
    on bit for bit.
    """

    @property
    def ports(self) -> Sequence[Port]:
        """The data inputs."""

    def run(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        """One update: `loss`, and scalars such as metrics and `lr`. A loss that is not finite changes nothing."""

    def evaluate(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        """`loss`, metrics and the model's outputs, without an update."""

    def blame(self, batch: Mapping[str, Array]) -> str:
        """The layer where the first number that is not finite appears on this batch; "" when none does."""

    def state(self) -> Mapping[str, Array]:
        """Copies of all that an update changes."""

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Goes on from what `state` gave."""

    def weights(self, *, average: bool = False) -> Mapping[str, Array]:
        """Copies of the model's parameters by path, or of their moving averages."""
