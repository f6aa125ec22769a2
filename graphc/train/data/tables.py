"""Tables: CSV, TSV and Parquet files, read by pyarrow.

An input of single values takes the column of its name. An input of rows `[N, D]` takes a Parquet column of lists, the
columns `<name>0` to `<name>{D-1}`, or all columns that no other input takes, in the file's order, if they are D.
Text in a column of classes is numbered in alphabetical order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from graphc.artifact.npy import MAX_BYTES
from graphc.ir.dim import DimLike
from graphc.train.data.dataset import Array, Columns
from graphc.train.errors import DataError
from graphc.train.ports import Port

SUFFIXES = (".csv", ".tsv", ".parquet")


def read_table(
    path: Path,
    ports: Sequence[Port],
    columns: Mapping[str, str] | None = None,
    classes: Mapping[str, tuple[str, ...]] | None = None,
) -> Columns:
    """The columns of a table that the ports take.

    Args:
        path: a `.csv`, `.tsv` or `.parquet` file with column names.
        ports: the step's inputs.
        columns: the column of an input, where it has another name.
        classes: names of classes in their order, where other data has fixed them.

    Raises:
        DataError: an unreadable file, a missing column, an empty cell, text where numbers are needed, a class that
            is not among `classes`, or more classes than the model has.
    """
    try:
        arrays, found = _read(path, ports, columns or {}, classes or {})
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise DataError(_reason(path, error)) from error
    return Columns(ports, arrays, str(path), table=True, classes=found)


def _read(
    path: Path,
    ports: Sequence[Port],
    columns: Mapping[str, str],
    classes: Mapping[str, tuple[str, ...]],
) -> tuple[dict[str, Array], dict[str, tuple[str, ...]]]:
    """Arrays by input, and names of classes."""
    names, read = _open(path)
    wanted = _assign(path, ports, names, columns)
    table = read(sorted({name for group in wanted.values() for name in group}, key=names.index))
    arrays: dict[str, Array] = {}
    found: dict[str, tuple[str, ...]] = {}
    for port in ports:
        group = [(name, _column(path, name, table[name])) for name in wanted[port.name]]
        name, column = group[0]
        if _is_text(column.type) and not port.type.dtype.is_float and not port.row:
            known = classes.get(port.name)
            arrays[port.name], found[port.name] = _classes(path, port, name, column, known)
        elif not port.row:
            arrays[port.name] = _numbers(path, name, column)
        elif len(group) == 1 and _is_list(column.type):
            arrays[port.name] = _lists(path, port, name, column)
        else:
            arrays[port.name] = np.stack([_numbers(path, n, c) for n, c in group], axis=1)
    return arrays, found


def _open(path: Path) -> tuple[list[str], Any]:
    """The names of a table's columns, and a function that reads some of them."""
    if path.suffix.lower() == ".parquet":
        file = pyarrow.parquet.ParquetFile(path, memory_map=True)
        groups = range(file.metadata.num_row_groups)
        if sum(file.metadata.row_group(i).total_byte_size for i in groups) > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 30} GiB when unpacked")
        return list(file.schema_arrow.names), lambda names: file.read(columns=names)
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path} is larger than {MAX_BYTES >> 30} GiB")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    options = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    table = pyarrow.csv.read_csv(path, parse_options=options)
    return list(table.column_names), table.select


def _reason(path: Path, error: Exception) -> str:
    first = str(error).strip().split("\n")[0]
    text = (error.strerror if isinstance(error, OSError) else None) or first
    return f"{path} cannot be read: {text}"


def _assign(
    path: Path, ports: Sequence[Port], names: list[str], columns: Mapping[str, str]
) -> dict[str, list[str]]:
    """The columns of each port."""
    twice = next((n for i, n in enumerate(names) if n in names[:i]), None)
    if twice is not None:
        raise DataError(f"{path} has two columns `{twice}`")
    wanted: dict[str, list[str]] = {}
    for port in ports:
        name = columns.get(port.name, port.name)
        numbered = _numbered(name, names)
        if name in names:
            wanted[port.name] = [name]
        elif len(port.row) == 1 and numbered and _may_be(port.row[0], len(numbered)):
            wanted[port.name] = numbered
    left = [p for p in ports if p.name not in wanted]
    if len(left) == 1 and len(left[0].row) == 1 and left[0].name not in columns:
        (port,) = left
        taken = {name for group in wanted.values() for name in group}
        rest = [n for n in names if n not in taken]
        if isinstance(port.row[0], int) and len(rest) != port.row[0]:
            raise DataError(
                f"{path} has {len(rest)} columns besides those of other inputs, the model takes {port.row[0]} ({port})"
            )
        if rest:
            wanted[port.name] = rest
            left = []
    if left:
        first = min(left, key=lambda p: len(p.row))  # a missing label leaves the features open too
        name = columns.get(first.name, first.name)
        have = ", ".join(f"`{n}`" for n in names)
        raise DataError(
            f"{path} has no column `{name}` for the model's input {first}; it has {have}"
        )
    return wanted


def _numbered(name: str, names: list[str]) -> list[str]:
    """`x0 x1 x2` or `x_0 x_1 x_2`, if the file has them without gaps."""
    pattern = re.compile(rf"{re.escape(name)}_?(\d{{1,9}})")
    found = {int(m[1]): n for n in names if (m := pattern.fullmatch(n))}
    return [found[i] for i in range(len(found))] if set(found) == set(range(len(found))) else []


def _may_be(dim: DimLike, size: int) -> bool:
    return not isinstance(dim, int) or dim == size


def _column(path: Path, name: str, column: Any) -> Any:
    """A column without gaps, in one piece."""
    if column.null_count:
        row = pc.index(column.is_null(), pa.scalar(True)).as_py()
        raise DataError(
            f"{path}, row {row + 1}: column `{name}` is empty; fill it in or drop the row"
        )
    return column.combine_chunks() if not isinstance(column, pa.Array) else column


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or (pa.types.is_dictionary(kind) and _is_text(kind.value_type))
    )


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _numbers(path: Path, name: str, column: Any) -> Array:
    kind = column.type
    if _is_text(kind):
        for row, text in enumerate(column.to_pylist()):
            if not _is_number(text):
                raise DataError(
                    f"{path}, row {row + 1}: column `{name}` holds {text!r}, which is no number"
                )
        return np.array([float(text) for text in column.to_pylist()])
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{path}: column `{name}` holds {kind}, which is no number")
    array: Array = column.to_numpy(zero_copy_only=False)
    return array


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _classes(
    path: Path, port: Port, name: str, column: Any, known: tuple[str, ...] | None
) -> tuple[Array, tuple[str, ...]]:
    texts = column.to_pylist()
    names = known if known is not None else tuple(sorted(set(texts)))
    if port.classes is not None and len(names) > port.classes:
        raise DataError(
            f"{path}: column `{name}` holds {len(names)} classes, the model tells {port.classes} apart"
        )
    numbers = {text: i for i, text in enumerate(names)}
    for row, text in enumerate(texts):
        if text not in numbers:
            raise DataError(
                f"{path}, row {row + 1}: the training data has no class {text!r} (`{name}`)"
            )
    return np.array([numbers[text] for text in texts], np.int64), names


def _lists(path: Path, port: Port, name: str, column: Any) -> Array:
    """Lists of one length each as rows; deeper shapes come from flat lists of the right length."""
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    odd = np.flatnonzero(lengths != lengths[0]) if len(lengths) else lengths
    if len(odd):
        raise DataError(
            f"{path}, row {odd[0] + 1}: column `{name}` has {lengths[odd[0]]} values, the rows before it {lengths[0]}"
        )
    values = _numbers(path, name, _column(path, name, column.flatten()))
    row = [d for d in port.row if isinstance(d, int)]
    if len(row) == len(port.row) and len(lengths) and int(np.prod(row)) == lengths[0]:
        return values.reshape(len(lengths), *row)
    return values.reshape(len(lengths), -1)
