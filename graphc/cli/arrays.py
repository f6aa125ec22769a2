"""Arrays in and out of the command line: `.npy` and `.npz` files.

Never pickles; and sizes are checked before memory is taken.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MAX_BYTES = 1 << 34
"""Largest array that is read, 16 GiB."""
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class ArrayFileError(Exception):
    """A file of arrays is missing, damaged, too large, or holds what is no plain array."""


def read_inputs(sources: Sequence[str], names: Sequence[str]) -> dict[str, Array]:
    """Inputs by name from `name=file.npy`, `file.npz`, or one bare `file.npy` for a module with one input.

    Raises:
        ArrayFileError: a file cannot be read, or an input is given twice.
    """
    found: dict[str, Array] = {}

    def add(name: str, array: Array) -> None:
        if name in found:
            raise ArrayFileError(f"input `{name}` is given twice")
        found[name] = array

    for source in sources:
        name, equals, file = source.partition("=")
        if equals and name in names:
            add(name, _single(Path(file)))
        elif Path(source).suffix.lower() == ".npz":
            for key, array in read_npz(Path(source)).items():
                add(key, array)
        elif equals and not Path(source).exists():
            add(name, _single(Path(file)))
        elif len(names) == 1:
            add(names[0], read_npy(Path(source)))
        else:
            wanted = " ".join(f"{n}=..." for n in names)
            raise ArrayFileError(f"{source}: say which input it is, as in `{wanted}`")
    return found


def _single(path: Path) -> Array:
    if path.suffix.lower() != ".npz":
        return read_npy(path)
    arrays = read_npz(path)
    if len(arrays) != 1:
        raise ArrayFileError(f"{path} holds {len(arrays)} arrays; give the file without `name=`")
    return next(iter(arrays.values()))


def read_npy(path: Path) -> Array:
    """The array of a `.npy` file. Raises ArrayFileError."""
    try:
        with open(path, "rb") as file:
            return _read(file, path.stat().st_size, str(path))
    except OSError as e:
        raise ArrayFileError(f"{path}: {e.strerror or e}") from e


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of a `.npz` file, by name. Raises ArrayFileError."""
    found: dict[str, Array] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    array = _read(cast(BinaryIO, file), entry.file_size, f"{path}:{entry.filename}")
                found[entry.filename.removesuffix(".npy")] = array
    except OSError as e:
        raise ArrayFileError(f"{path}: {e.strerror or e}") from e
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as e:
        raise ArrayFileError(f"{path} is no .npz file: {e}") from e
    return found


def _read(file: BinaryIO, size: int, name: str) -> Array:
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"format version {version}")
        shape, fortran, dtype = _HEADERS[version](file)
    except ValueError as e:
        raise ArrayFileError(f"{name} is no .npy file: {e}") from e
    if dtype.hasobject or dtype.fields is not None:
        raise ArrayFileError(f"{name} holds Python objects or records, not a plain array")
    if any(dim < 0 for dim in shape):
        raise ArrayFileError(f"{name} is no .npy file: a negative size")
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > MAX_BYTES:
        raise ArrayFileError(f"{name} is larger than {MAX_BYTES >> 30} GiB")
    if nbytes > size:
        raise ArrayFileError(f"{name} is truncated: its header promises {nbytes} bytes")
    data = bytearray(nbytes)
    view, filled = memoryview(data), 0
    while filled < nbytes:
        chunk = file.read(min(1 << 24, nbytes - filled))
        if not chunk:
            raise ArrayFileError(f"{name} is truncated: {nbytes - filled} bytes are missing")
        view[filled : filled + len(chunk)] = chunk
        filled += len(chunk)
    array = np.frombuffer(data, dtype)
    array = array.reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array.astype(dtype.newbyteorder("="), copy=False))


def write_outputs(path: Path, outputs: Mapping[str, Array]) -> None:
    """Writes outputs as `.npz`, or a single one as `.npy`. bf16, which NumPy's format lacks, is written as f32.

    Raises:
        ArrayFileError: the suffix is neither, there are several outputs for a `.npy`, or it cannot be written.
    """
    plain = {
        n: a.astype(np.float32) if a.dtype.name == "bfloat16" else a for n, a in outputs.items()
    }
    try:
        if path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path, "w") as archive:
                for name, array in plain.items():
                    entry = zipfile.ZipInfo(
                        f"{name}.npy"
                    )  # without a date: same outputs, same bytes
                    with archive.open(entry, "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        else:
            (only,) = plain.values()
            with open(path, "wb") as file:
                np.save(file, only, allow_pickle=False)
    except OSError as e:
        raise ArrayFileError(f"cannot write {path}: {e.strerror or e}") from e


def check_output_path(path: Path, outputs: Sequence[str]) -> None:
    """Raises ArrayFileError for a name that `write_outputs` would refuse, before anything is computed."""
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".npy"):
        raise ArrayFileError(f"{path}: outputs are written to a .npz or .npy file")
    if suffix == ".npy" and len(outputs) != 1:
        raise ArrayFileError(
            f"{path}: the module has {len(outputs)} outputs; write them to a .npz file"
        )
