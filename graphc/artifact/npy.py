"""NumPy's own files, read without trusting them: `.npy` arrays and the members of a `.npz` archive.

Nothing is ever unpickled, a size is checked before memory is taken for it, and what a header promises must be
there. The formats are `numpy.lib.format` (NEP 1) and, for archives, ZIP.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

MAX_BYTES = 1 << 34
"""Largest array that is read into memory, 16 GiB. Mapped arrays take none and may be larger."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # ZIP's local file header: signature, name and extra size


class ArrayFileError(Exception):
    """A file of arrays is missing, damaged, too large, or holds what is no plain array."""


@dataclass(frozen=True)
class Header:
    """What a `.npy` header says: shape, whether the bytes are in Fortran order, element type."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the array that follows."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: BinaryIO, name: str) -> Header:
    """Reads and checks a `.npy` header. Raises ArrayFileError, whose message starts with `name`."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"format version {version}")
        shape, fortran, dtype = _HEADERS[version](file)
    except Exception as e:  # the header is parsed as Python text, which may raise anything
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise ArrayFileError(f"{name} is no .npy file: {reason}") from e
    if dtype.hasobject or dtype.fields is not None:
        raise ArrayFileError(f"{name} holds Python objects or records, not a plain array")
    if any(dim < 0 for dim in shape):
        raise ArrayFileError(f"{name} is no .npy file: a negative size")
    return Header(shape, fortran, dtype)


def read_npy(path: Path) -> Array:
    """The array of a `.npy` file, in memory. Raises ArrayFileError."""
    try:
        with open(path, "rb") as file:
            return _read(file, path.stat().st_size, str(path), MAX_BYTES)
    except OSError as e:
        raise ArrayFileError(f"{path}: {e.strerror or e}") from e


def map_npy(path: Path) -> Array:
    """The array of a `.npy` file as a read-only view of the file, paged in as it is used.

    Raises ArrayFileError.
    """
    try:
        with open(path, "rb") as file:
            return _map(file, path.stat().st_size, str(path))
    except OSError as e:
        raise ArrayFileError(f"{path}: {e.strerror or e}") from e


def read_npz(path: Path, *, mapped: bool = False, limit: int = MAX_BYTES) -> dict[str, Array]:
    """The arrays of a `.npz` archive, by name.

    Args:
        path: the archive.
        mapped: members that are stored as they are (`np.savez`) become read-only views of the file; compressed
            ones are read.
        limit: most bytes that all arrays read into memory may take together, whatever the archive promises.

    Raises:
        ArrayFileError: no archive, a damaged member, one that holds objects, or more bytes than `limit`.
    """
    found: dict[str, Array] = {}
    left = limit
    try:
        with open(path, "rb") as raw, zipfile.ZipFile(raw) as archive:
            for entry in archive.infolist():
                name = f"{path}:{entry.filename}"
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ArrayFileError(f"{name} is compressed in a way that NumPy does not write")
                if mapped and _is_plain(entry):
                    start = _data_offset(raw, entry, name)
                    raw.seek(start)
                    array = _map(raw, start + entry.file_size, name)
                else:
                    with archive.open(entry) as file:
                        array = _read(cast(BinaryIO, file), entry.file_size, name, left)
                    left -= array.nbytes
                found[entry.filename.removesuffix(".npy")] = array
    except OSError as e:
        raise ArrayFileError(f"{path}: {e.strerror or e}") from e
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as e:
        raise ArrayFileError(f"{path} is no .npz file: {e}") from e
    return found


def _is_plain(entry: zipfile.ZipInfo) -> bool:
    encrypted = entry.flag_bits & 1
    return entry.compress_type == zipfile.ZIP_STORED and not encrypted


def _data_offset(file: BinaryIO, entry: zipfile.ZipInfo, name: str) -> int:
    file.seek(entry.header_offset)
    head = file.read(_LOCAL_HEADER.size)
    if len(head) < _LOCAL_HEADER.size or head[:4] != b"PK\x03\x04":
        raise ArrayFileError(f"{name} is damaged: it has no local header")
    _, name_size, extra_size = _LOCAL_HEADER.unpack(head)
    return int(entry.header_offset + _LOCAL_HEADER.size + name_size + extra_size)


def _map(file: BinaryIO, end: int, name: str) -> Array:
    """The array whose `.npy` header starts where the file stands; it ends before byte `end`."""
    header = read_header(file, name)
    start, end = file.tell(), min(end, os.fstat(file.fileno()).st_size)
    if start + header.nbytes > end:
        raise ArrayFileError(f"{name} is truncated: its header promises {header.nbytes} bytes")
    order = "F" if header.fortran else "C"
    if not header.nbytes:
        return np.empty(header.shape, header.dtype)
    whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    flat = np.frombuffer(whole, np.uint8, header.nbytes, start).view(header.dtype)
    return flat.reshape(header.shape, order=order)  # type: ignore[call-overload,no-any-return]


def _read(file: BinaryIO, size: int, name: str, limit: int) -> Array:
    header = read_header(file, name)
    nbytes = header.nbytes
    if nbytes > limit:
        raise ArrayFileError(f"{name} is larger than {limit / (1 << 30):.3g} GiB")
    if nbytes > size:
        raise ArrayFileError(f"{name} is truncated: its header promises {nbytes} bytes")
    data = bytearray(nbytes)
    for chunk, part in _chunks(file, nbytes, name):
        data[part] = chunk
    array = np.frombuffer(data, header.dtype)
    array = array.reshape(header.shape, order="F" if header.fortran else "C")
    return np.ascontiguousarray(array.astype(header.dtype.newbyteorder("="), copy=False))


def _chunks(file: BinaryIO, nbytes: int, name: str) -> Iterator[tuple[bytes, slice]]:
    filled = 0
    while filled < nbytes:
        chunk = file.read(min(1 << 24, nbytes - filled))
        if not chunk:
            raise ArrayFileError(f"{name} is truncated: {nbytes - filled} bytes are missing")
        yield chunk, slice(filled, filled + len(chunk))
        filled += len(chunk)
