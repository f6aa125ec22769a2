"""TensorBoard event files of a run, written by tensorboardX."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter


class TensorBoard:
    """Writes scalars to `folder`, an event file for each process that trains.

    `purge_step` tells TensorBoard to drop what an interrupted run wrote from that step on: going on adds no duplicates.
    """

    def __init__(self, folder: Path, purge_step: int = 0) -> None:
        # The writer names files by the second; two runs in one second would write to the same.
        suffix = f".{purge_step}-{os.getpid()}"
        self._writer = SummaryWriter(str(folder), purge_step=purge_step, filename_suffix=suffix)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers after update `step`: `train/loss`, `val/loss`, ... What is not finite is left out."""
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(_tag(name), value, step)

    def close(self) -> None:
        """Everything is in the file after this."""
        self._writer.close()


def _tag(name: str) -> str:
    plain = name.removeprefix("val_")
    return f"{'val' if plain != name else 'train'}/{plain}"
