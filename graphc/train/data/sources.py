"""From what a person names to data that batches are taken from."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np

from graphc.artifact.npy import Array, ArrayFileError, map_npy, read_npz
from graphc.train.data.dataset import Columns, Dataset, Samples, Stream
from graphc.train.errors import DataError
from graphc.train.ports import Port, check_ports

Data = Dataset | Stream
Given = Dataset | Stream | str | Path | Mapping[str, Any] | Iterable[Any]

_TABLES = (".csv", ".tsv", ".parquet")


def open_data(
    given: Given,
    ports: Sequence[Port],
    *,
    columns: Mapping[str, str] | None = None,
    resize: bool = False,
    like: Data | None = None,
) -> Data:
    """Data for a step, matched to its inputs by name and checked against their types.

    Args:
        given: a `.npz` archive; a `.npy` file, for a step with one input; a folder of `.npy` files; a folder of
            pictures by class; a `.csv`, `.tsv` or `.parquet` table; a mapping from inputs to arrays or `.npy` files;
            a sequence of samples `{input: value}`; or any iterable of them, which is read in its own order.
        ports: the step's data inputs.
        columns: what an input is called in the data, where that is another name.
        resize: make pictures of any size fit.
        like: the training data, when this is for validation: classes get the same numbers.

    Raises:
        DataError: what is wrong, in one sentence with the file and, where there is one, the row.
    """
    if isinstance(given, (Dataset, Stream)):
        return given
    check_ports(ports)
    _check_renaming(ports, columns or {})
    classes = dict(like.classes) if like is not None else {}
    if isinstance(given, (str, Path)):
        return _open_path(Path(given), ports, columns or {}, classes, resize)
    if isinstance(given, Mapping):
        named = _renamed({str(k): v for k, v in given.items()}, ports, columns or {})
        wanted = {p.name for p in ports}
        arrays = {k: _array(k, v) for k, v in named.items() if k in wanted}
        return Columns(ports, arrays, "data")
    if columns:
        raise DataError("samples are mappings from the model's inputs; columns cannot be renamed")
    if hasattr(given, "__len__") and hasattr(given, "__getitem__"):
        return Samples(ports, cast(Sequence[Mapping[str, Any]], given))
    if isinstance(given, Iterable):
        return Stream(ports, cast(Iterable[Mapping[str, Any]], given))
    raise DataError(f"no data can be read from a {type(given).__name__}")


def _open_path(
    path: Path,
    ports: Sequence[Port],
    columns: Mapping[str, str],
    classes: dict[str, tuple[str, ...]],
    resize: bool,
) -> Dataset:
    suffix = path.suffix.lower()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir():
        arrays = sorted(p for p in path.iterdir() if p.suffix.lower() == ".npy")
        if not arrays:
            return _open_images(path, ports, classes, resize)
        found = {p.stem: _mapped(p) for p in arrays}
        return Columns(ports, _renamed(found, ports, columns), str(path))
    if suffix == ".npz":
        try:
            found = read_npz(path, mapped=True)
        except ArrayFileError as error:
            raise DataError(str(error)) from error
        return Columns(ports, _renamed(found, ports, columns), str(path))
    if suffix == ".npy":
        if len(ports) != 1:
            names = ", ".join(f"`{p.name}`" for p in ports)
            raise DataError(
                f"{path} is one array, the model takes {names}: give a .npz file, or a folder of .npy files named so"
            )
        return Columns(ports, {ports[0].name: _mapped(path)}, str(path))
    if suffix in _TABLES:
        tables = _extra("graphc.train.data.tables", f"{path}: tables need pyarrow")
        opened: Dataset = tables.read_table(path, ports, columns, classes)
        return opened
    raise DataError(
        f"{path}: data is read from .npz, .npy, .csv, .tsv and .parquet files and from folders of pictures by class"
    )


def _open_images(
    path: Path, ports: Sequence[Port], classes: dict[str, tuple[str, ...]], resize: bool
) -> Dataset:
    images = _extra("graphc.train.data.images", f"{path}: pictures need Pillow")
    known = next(iter(classes.values()), None)
    folder: Dataset = images.ImageFolder(path, ports, resize=resize, classes=known)
    return folder


def _extra(module: str, need: str) -> ModuleType:
    """A module that needs a library of the extra `train`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise DataError(f"{need}: pip install 'graphc[train]'") from error


def _mapped(path: Path) -> Array:
    try:
        return map_npy(path)
    except ArrayFileError as error:
        raise DataError(str(error)) from error


def _array(name: str, value: object) -> Array:
    if isinstance(value, (str, Path)):
        path = Path(value)
        if path.suffix.lower() != ".npy":
            raise DataError(f"{path}: the input `{name}` alone is read from a .npy file")
        return _mapped(path)
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise DataError(f"`{name}` is no array: {error}") from error


def _check_renaming(ports: Sequence[Port], columns: Mapping[str, str]) -> None:
    names = [p.name for p in ports]
    for name in columns:
        if name not in names:
            raise DataError(f"the model has no input `{name}`; it has {', '.join(names)}")


def _renamed(
    found: Mapping[str, Any], ports: Sequence[Port], columns: Mapping[str, str]
) -> dict[str, Any]:
    """Arrays under the names of the ports; one array for one port needs no name."""
    if len(found) == len(ports) == 1:
        return {ports[0].name: next(iter(found.values()))}
    for name, column in columns.items():
        if column not in found:
            raise DataError(f"the data has no `{column}` for `{name}`; it has {', '.join(found)}")
    return {**found, **{name: found[column] for name, column in columns.items()}}
