"""What a training step takes: its data inputs by name, and the check that data has such rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.ir.dim import DimLike, Shape, evaluate, names_of
from graphc.ir.types import TensorType
from graphc.train.errors import DataError


@dataclass(frozen=True)
class Port:
    """A data input of the step.

    Attributes:
        name: as in the `.nn` file; columns of the data are matched by it.
        type: element type and shape; the first dim counts the rows of a batch.
        target: it is declared in the `train` block (a label) and must not be NaN.
        classes: for class indices, how many classes the model tells apart.
        ignore: an index outside of the classes that the loss leaves out (`ignore_index`).
    """

    name: str
    type: TensorType
    target: bool = False
    classes: int | None = None
    ignore: int | None = None

    @property
    def row(self) -> Shape:
        """The shape of one row: everything after the batch dim."""
        return self.type.shape[1:]

    def __str__(self) -> str:
        return f"`{self.name}: {self.type}`"


def check_ports(ports: Sequence[Port]) -> int | None:
    """The batch size that the ports fix, or None when the batch dim is open.

    Raises DataError for an input without a batch dim, or two that fix different sizes.
    """
    fixed: dict[int, Port] = {}
    for port in ports:
        if not port.type.rank:
            raise DataError(f"input {port} has no batch dim, so no data can be cut into batches")
        first = port.type.shape[0]
        if isinstance(first, int):
            fixed[first] = port
    if len(fixed) > 1:
        a, b = (str(p) for p in list(fixed.values())[:2])
        raise DataError(f"inputs {a} and {b} take different numbers of rows in a batch")
    return next(iter(fixed), None)


def check_rows(
    ports: Sequence[Port], shapes: Mapping[str, tuple[int, ...]], origin: str
) -> dict[str, int]:
    """Checks the shapes of rows, given by name, against the ports; returns the named dims they fix.

    Raises DataError naming `origin`, the column, and both shapes.
    """
    env: dict[str, int] = {}
    # Plain names first, so that `T` of one input is known when another says `2 * T`.
    for port, dim, size in sorted(
        ((p, d, n) for p in ports for d, n in _pairs(p, shapes[p.name], origin)),
        key=lambda item: not _is_name(item[1]),
    ):
        if _is_name(dim):
            known = env.setdefault(str(dim), size)
        elif set(names_of(dim)) <= set(env):
            known = evaluate(dim, env)
        else:
            continue  # the step checks it when it runs
        if known != size:
            raise DataError(_mismatch(port, shapes[port.name], origin, f"{dim} is {known}"))
    return env


def _pairs(port: Port, shape: tuple[int, ...], origin: str) -> list[tuple[DimLike, int]]:
    if len(shape) != len(port.row):
        raise DataError(_mismatch(port, shape, origin, ""))
    for want, have in zip(port.row, shape, strict=True):
        if isinstance(want, int) and want != have:
            raise DataError(_mismatch(port, shape, origin, ""))
    return list(zip(port.row, shape, strict=True))


def _is_name(dim: DimLike) -> bool:
    return not isinstance(dim, int) and str(dim) in names_of(dim)


def _mismatch(port: Port, shape: tuple[int, ...], origin: str, why: str) -> str:
    rows = f"rows of shape {_text(shape)}" if shape else "single values"
    wanted = f"rows of shape {_text(port.row)}" if port.row else "single values"
    because = f" where {why}" if why else ""
    return f"{origin}: `{port.name}` has {rows}, the model takes {wanted}{because} ({port})"


def _text(shape: Sequence[DimLike]) -> str:
    return f"[{', '.join(map(str, shape))}]"
