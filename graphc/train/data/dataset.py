"""Data that batches can be taken from: rows by number, or rows in the order in which they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.train.data.fit import check_dtype, fit, require
from graphc.train.errors import DataError
from graphc.train.order import SPLIT, uniform_order
from graphc.train.ports import Port, check_rows

Array = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

EAGER_BYTES = 1 << 26
"""Targets up to this size are checked when data is opened; larger ones as batches are taken."""


class Dataset(ABC):
    """Rows by number. `gather` is called from several threads at once.

    Attributes:
        ports: the step's inputs that rows are for.
        classes: names of the classes of a port, where the data calls them by name.
    """

    ports: tuple[Port, ...]
    classes: Mapping[str, tuple[str, ...]] = {}

    @abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def gather(self, rows: Rows) -> dict[str, Array]:
        """Those rows, one array per port, of the port's type. Raises DataError naming file and row."""

    @abstractmethod
    def where(self, row: int) -> str:
        """The place of a row, for a person."""


class Columns(Dataset):
    """Whole columns as arrays, in memory or mapped files.

    Args:
        ports: the step's inputs.
        columns: an array per port; one axis more than a row has.
        origin: the file's name, for messages.
        row: how a row is called in messages, given its number and the column's name.
        classes: class names of a port.

    Raises:
        DataError: a column is missing, or its type, shape or length is wrong.
    """

    def __init__(
        self,
        ports: Sequence[Port],
        columns: Mapping[str, Array],
        origin: str,
        *,
        table: bool = False,
        classes: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        require(ports, list(columns), origin, "column" if table else "array")
        self.ports = tuple(ports)
        self.classes = dict(classes or {})
        self._origin, self._table = origin, table
        self._columns = {p.name: columns[p.name] for p in ports}
        for port in ports:
            column = self._columns[port.name]
            if not column.ndim:
                raise DataError(f"{origin}: `{port.name}` is a single number, not an array of rows")
            check_dtype(port, column.dtype, origin, exact=not table)
        lengths = {name: len(c) for name, c in self._columns.items()}
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"`{name}` has {n}" for name, n in lengths.items())
            raise DataError(f"{origin}: columns differ in length: {text} rows")
        self._length = next(iter(lengths.values()), 0)
        check_rows(ports, {name: c.shape[1:] for name, c in self._columns.items()}, origin)
        for port in ports:
            column = self._columns[port.name]
            if port.target and column.nbytes <= EAGER_BYTES:
                fit(port, column, lambda row, port=port: self._place(row, port.name))  # type: ignore[misc]

    def __len__(self) -> int:
        return self._length

    def gather(self, rows: Rows) -> dict[str, Array]:
        """Those rows."""
        taken = {}
        for port in self.ports:
            part = self._columns[port.name][rows]
            taken[port.name] = fit(port, part, lambda i, p=port: self._place(int(rows[i]), p.name))  # type: ignore[misc]
        return taken

    def where(self, row: int) -> str:
        """`digits.npz, row 17` in a table, where rows count from 1, or `digits.npz[16]` of arrays."""
        return f"{self._origin}, row {row + 1}" if self._table else f"{self._origin}[{row}]"

    def _place(self, row: int, name: str) -> str:
        return self.where(row) if self._table else f"{self._origin}, {name}[{row}]"


class Samples(Dataset):
    """A Python sequence of mappings `{input: value}`: anything with `len` and `[i]`."""

    def __init__(self, ports: Sequence[Port], samples: Sequence[Mapping[str, Any]]) -> None:
        self.ports = tuple(ports)
        self._samples = samples
        if len(samples):
            stack(self.ports, [samples[0]], lambda row: self.where(0))

    def __len__(self) -> int:
        return len(self._samples)

    def gather(self, rows: Rows) -> dict[str, Array]:
        """Those rows, stacked."""
        taken = [self._samples[int(row)] for row in rows]
        return stack(self.ports, taken, lambda i: self.where(int(rows[i])))

    def where(self, row: int) -> str:
        """`data[17]`."""
        return f"data[{row}]"


class Stream:
    """A Python iterable of mappings, read from its start in every epoch, in its own order.

    A generator can be read once only; a second epoch of one is an error.
    """

    def __init__(self, ports: Sequence[Port], rows: Iterable[Mapping[str, Any]]) -> None:
        self.ports = tuple(ports)
        self.classes: Mapping[str, tuple[str, ...]] = {}
        self._rows = rows
        self._used = False

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        fresh = iter(self._rows)
        if fresh is self._rows and self._used:
            raise DataError(
                "the data is a generator, which can be read once only: give an object whose __iter__ starts anew, "
                "or a list, to train for more than one epoch"
            )
        self._used = True
        return fresh

    def stack(self, rows: Sequence[Mapping[str, Any]], first: int) -> dict[str, Array]:
        """Rows that came one after the other, the first of them number `first`, as a batch."""
        return stack(self.ports, rows, lambda i: f"data, sample {first + i}")


def stack(ports: Sequence[Port], rows: Sequence[Any], where: Any) -> dict[str, Array]:
    """Samples as one array per port. Raises DataError for a missing or unfit value."""
    columns: dict[str, list[Array]] = {p.name: [] for p in ports}
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(
                f"{where(i)} is a {type(row).__name__}; a sample is a mapping from the model's inputs to values"
            )
        require(ports, [str(name) for name in row], where(i), "value")
        for port in ports:
            columns[port.name].append(_value(port, row[port.name], where(i)))
    check_rows(ports, {p.name: columns[p.name][0].shape for p in ports}, where(0))
    batch = {}
    for port in ports:
        shapes = [a.shape for a in columns[port.name]]
        odd = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
        if odd is not None:
            raise DataError(
                f"{where(odd)}: `{port.name}` has shape {list(shapes[odd])} and {where(0)} of the same batch has "
                f"{list(shapes[0])}: pad them to one shape"
            )
        batch[port.name] = fit(port, np.stack(columns[port.name]), where)
    return batch


def _value(port: Port, value: object, where: str) -> Array:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"{where}: `{port.name}` is no array of numbers: {error}") from error
    check_dtype(port, array.dtype, where, exact=isinstance(value, np.ndarray))
    return array


class Subset(Dataset):
    """Some rows of a dataset, under numbers of their own."""

    def __init__(self, whole: Dataset, rows: Rows) -> None:
        self.ports, self.classes = whole.ports, whole.classes
        self._whole, self._rows = whole, rows

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, rows: Rows) -> dict[str, Array]:
        """Those rows of the whole."""
        return self._whole.gather(self._rows[rows])

    def where(self, row: int) -> str:
        """The place in the whole."""
        return self._whole.where(int(self._rows[row]))


def split(data: Dataset, share: float, seed: int = 0) -> tuple[Subset, Subset]:
    """Rows to train on, and a `share` of them (at least one) held out, drawn at random by `seed`.

    Both keep the order of the data. Raises DataError when nothing would be left of either.
    """
    held = max(1, round(share * len(data))) if 0 < share < 1 else 0
    if not 0 < held < len(data):
        raise DataError(f"a share of {share:g} of {len(data)} rows cannot be held out")
    order = uniform_order(len(data), seed, SPLIT)
    return Subset(data, np.sort(order[held:])), Subset(data, np.sort(order[:held]))
