"""Batches of an epoch, from any batch on: shuffled by seed and epoch alone, gathered ahead of the step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from graphc.train.ahead import ahead
from graphc.train.data.dataset import Array, Stream
from graphc.train.data.sources import Data
from graphc.train.errors import DataError
from graphc.train.order import uniform_order

DEPTH = 2
"""Batches per thread that wait, finished or not: enough to even out slow files, little enough memory."""


@dataclass(frozen=True)
class Batch:
    """Rows for one step.

    Attributes:
        number: of the batch in its epoch, from 0.
        arrays: by input; the last batch of an epoch may have fewer rows.
        rows: their numbers in the data; the running number in a stream.
    """

    number: int
    arrays: Mapping[str, Array]
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Loader:
    """Cuts data into batches.

    Attributes:
        data: what `open_data` gives.
        size: rows in a batch.
        seed: of the order, together with the epoch's number.
        shuffle: rows in random order; a stream keeps its own.
        fixed: the step takes exactly `size` rows: what is left over at the end of an epoch is dropped.
        threads: that gather batches ahead of the step; 0 gathers when asked. A stream is read by one.
    """

    data: Data
    size: int
    seed: int = 0
    shuffle: bool = True
    fixed: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DataError(f"a batch has at least one row, not {self.size}")
        if not 0 <= self.seed < 1 << 64:
            raise DataError(f"the seed is an integer from 0 to 2^64 - 1, not {self.seed}")
        if isinstance(self.data, Stream):
            return
        if not len(self.data):
            raise DataError("the data has no rows")
        if self.fixed and len(self.data) < self.size:
            raise DataError(
                f"the model takes batches of {self.size} rows and the data has {len(self.data)} only"
            )

    @property
    def rows(self) -> int | None:
        """Rows of an epoch; None for a stream, which tells only by ending."""
        if isinstance(self.data, Stream):
            return None
        return len(self.data) // self.size * self.size if self.fixed else len(self.data)

    @property
    def batches(self) -> int | None:
        """Batches of an epoch; None for a stream."""
        rows = self.rows
        return None if rows is None else -(-rows // self.size)

    def epoch(self, epoch: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch (from 0), beginning with number `start`: the same ones each time.

        Close the iterator when you stop early. Raises DataError where a row is unfit.
        """
        if isinstance(self.data, Stream):
            return self._stream(self.data, start)
        order = self._order(epoch)
        numbers = range(start, self.batches or 0)
        jobs = (
            partial(self._gather, i, order[i * self.size : (i + 1) * self.size]) for i in numbers
        )
        return ahead(jobs, self.threads, DEPTH * self.threads)

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        assert not isinstance(self.data, Stream)
        length = len(self.data)
        order = uniform_order(length, self.seed, epoch) if self.shuffle else np.arange(length)
        return order[: self.rows]

    def _gather(self, number: int, rows: npt.NDArray[np.int64]) -> Batch:
        assert not isinstance(self.data, Stream)
        return Batch(number, self.data.gather(rows), rows)

    def _stream(self, data: Stream, start: int) -> Generator[Batch, None, None]:
        with closing(ahead(self._stream_jobs(data, start), min(self.threads, 1), DEPTH)) as found:
            for batch in found:
                if batch is None:  # a read past the end, asked for ahead of it
                    return
                yield batch

    def _stream_jobs(self, data: Stream, start: int) -> Iterator[Callable[[], Batch | None]]:
        """Jobs that each read the next batch; one thread runs them, in order, so that they share the iterator."""
        rows = itertools.islice(iter(data), start * self.size, None)
        ended = False

        def read(number: int) -> Batch | None:
            nonlocal ended
            taken = [] if ended else list(itertools.islice(rows, self.size))
            if len(taken) < self.size:
                ended = True
            if not taken or (self.fixed and ended):
                return None
            first = number * self.size
            return Batch(number, data.stack(taken, first), np.arange(first, first + len(taken)))

        for number in itertools.count(start):
            if ended:
                return
            yield partial(read, number)
