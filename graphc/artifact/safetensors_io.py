"""Reading and writing safetensors files with NumPy only.

The format (github.com/huggingface/safetensors, "Format"): eight bytes with the header's length, a
JSON header `{name: {"dtype", "shape", "data_offsets"}}`, then the tensors without gaps. Files
written here are also padded: the header with spaces and the tensors with `__pad<n>__` entries, so
that each tensor starts at a multiple of 64 bytes and a program can use the mapped file as it is.
Nothing in a file is trusted: every size is checked before it is used.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeGuard, Union

import numpy as np
import numpy.typing as npt

from graphc.artifact.errors import SafetensorsError

ALIGNMENT = 64
"""Every tensor of a file written here starts at a multiple of this."""

MAX_HEADER = 100_000_000
"""Longest header, as in the reference implementation."""

MAX_RANK = 32
"""Most axes of a tensor that is read: what every NumPy can hold."""

Array = npt.NDArray[Any]
StrPath = Union[str, "os.PathLike[str]"]

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "C64": "<c8",
}  # fmt: skip
_ML_DTYPES = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_ML_NAMES = {attribute: name for name, attribute in _ML_DTYPES.items()}
_PADDING = re.compile(r"__pad\d+__")


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor lies: dtype as the format spells it, shape, and first and last byte + 1 in the
    file.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class WeightsInfo:
    """A written file: its size, the bytes before the first tensor, and SHA-256 of all of it and of
    its header.
    """

    size: int
    header_size: int
    sha256: bytes
    header_sha256: bytes


class SafetensorsFile(Mapping[str, Array]):
    """The tensors of a file, mapped: an array is a read-only view that the system pages in when it
    is used.

    bfloat16 and 8-bit floats need ml_dtypes, which is imported when such a tensor is read. Padding
    is not listed.

    Attributes:
        path: of the file.
        entries: dtype, shape and place of each tensor, in file order.
        metadata: the header's free text.
    """

    def __init__(self, path: StrPath) -> None:
        """Opens and checks a file. Raises SafetensorsError; see `read_safetensors`."""
        self.path = os.fspath(path)
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < 8:
                    raise self._error(f"it has {size} bytes, a safetensors file has at least 8")
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            if isinstance(error, SafetensorsError):
                raise
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SafetensorsError(f"cannot read the weights {self.path!r}: {reason}") from error
        length = int.from_bytes(self._map[:8], "little")
        if length > min(MAX_HEADER, size - 8):
            raise self._error(
                f"its header claims {length} bytes, but the file has {size}: it is truncated or no "
                "safetensors file"
            )
        header = self._parse(self._map[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise self._error("its __metadata__ is no table")
        self.metadata: dict[str, str] = {str(k): str(v) for k, v in metadata.items()}
        entries = [(name, self._entry(name, e, 8 + length, size)) for name, e in header.items()]
        entries.sort(key=lambda item: (item[1].start, item[1].end))
        for (name, a), (other, b) in itertools.pairwise(entries):
            if b.start < a.end:
                raise self._error(f"tensors {name!r} and {other!r} overlap")
        self.entries: dict[str, TensorEntry] = {
            name: entry for name, entry in entries if not _PADDING.fullmatch(name)
        }

    def __getitem__(self, name: str) -> Array:
        e = self.entries[name]
        dtype = self._dtype(name, e.dtype)
        flat = np.frombuffer(
            self._map, np.uint8, e.end - e.start, e.start if e.end > e.start else 0
        )
        if dtype == np.bool_:
            array: Array = flat != 0  # other bytes than 0 and 1 are no booleans for NumPy
        else:
            array = flat.view(dtype)
            if not array.flags.aligned:
                array = array.copy()
        array = array.reshape(e.shape)
        array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def _error(self, reason: str) -> SafetensorsError:
        return SafetensorsError(f"the weights {self.path!r} cannot be read: {reason}")

    def _parse(self, raw: bytes) -> dict[str, Any]:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            table = dict(pairs)
            if len(table) < len(pairs):
                names = [name for name, _ in pairs]
                double = next(n for n in names if names.count(n) > 1)
                raise self._error(f"its header lists {double!r} twice")
            return table

        try:
            header = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
        except SafetensorsError:
            raise
        except (ValueError, RecursionError) as error:
            raise self._error(f"its header is no JSON ({type(error).__name__})") from error
        if not isinstance(header, dict):
            raise self._error("its header is no table of tensors")
        return header

    def _entry(self, name: str, entry: object, base: int, size: int) -> TensorEntry:
        if not isinstance(entry, dict):
            raise self._error(f"the header's entry for {name!r} is no table")
        dtype, shape, offsets = (entry.get(k) for k in ("dtype", "shape", "data_offsets"))
        if not isinstance(dtype, str) or dtype not in {**_DTYPES, **_ML_DTYPES}:
            raise self._error(f"tensor {name!r} has unknown dtype {dtype!r}")
        if not _naturals(shape) or len(shape) > MAX_RANK:
            raise self._error(f"tensor {name!r} has no valid shape")
        if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise self._error(f"tensor {name!r} has no valid data_offsets")
        start, end = base + offsets[0], base + offsets[1]
        if end > size:
            raise self._error(
                f"tensor {name!r} ends at byte {end}, but the file has {size}: it is truncated"
            )
        need = _itemsize(dtype)
        for extent in shape:
            need *= extent
        if need != end - start:
            raise self._error(
                f"tensor {name!r} is {dtype} {shape} and needs {need} bytes, but has {end - start}"
            )
        return TensorEntry(dtype, tuple(shape), start, end)

    def _dtype(self, name: str, dtype: str) -> np.dtype[Any]:
        if dtype in _DTYPES:
            return np.dtype(_DTYPES[dtype])
        try:
            scalar: type = getattr(importlib.import_module("ml_dtypes"), _ML_DTYPES[dtype])
        except ImportError as error:
            raise self._error(f"tensor {name!r} is {dtype}: pip install ml_dtypes") from error
        return np.dtype(scalar)


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def _itemsize(dtype: str) -> int:
    if dtype in _ML_DTYPES:
        return 2 if dtype == "BF16" else 1
    return np.dtype(_DTYPES[dtype]).itemsize


def read_safetensors(path: StrPath) -> SafetensorsFile:
    """Maps a safetensors file: a read-only `Mapping` from names to arrays.

    Raises SafetensorsError when the file is missing, truncated or malformed: a header that is too
    long or no JSON, a name listed twice, an unknown dtype, a size that does not fit the shape,
    tensors that overlap or end past the file.
    """
    return SafetensorsFile(path)


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The format's name of a NumPy or ml_dtypes dtype. Raises SafetensorsError for one it does not
    have.
    """
    name = _NAMES.get(dtype.newbyteorder("<")) or _ML_NAMES.get(dtype.name)
    if name is None:
        raise SafetensorsError(f"safetensors has no dtype for {dtype}")
    return name


def write_safetensors(
    path: StrPath, tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> WeightsInfo:
    """Writes arrays to a file, in their order, each at a multiple of 64 bytes. Big-endian arrays
    are converted.

    Raises SafetensorsError for a dtype that the format does not have, OSError when the file cannot
    be written.
    """
    placed: list[tuple[str, Array, int]] = []
    end = 0
    for name, value in tensors.items():
        array = np.asarray(value)
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        placed.append((name, array, offset))
        end = offset + array.nbytes
    with open(path, "wb") as file:
        return write_placed(file, placed, metadata)


def write_placed(
    file: BinaryIO,
    tensors: Sequence[tuple[str, Array, int]],
    metadata: Mapping[str, str] | None = None,
) -> WeightsInfo:
    """Writes (name, array, offset from the first tensor) in ascending order of offsets; gaps become
    padding entries.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    pieces: list[Array] = []
    end = 0
    for name, array, offset in tensors:
        if offset > end:
            header[f"__pad{len(pieces)}__"] = _header_entry("U8", (offset - end,), end, offset)
            pieces.append(np.zeros(offset - end, np.uint8))
        header[name] = _header_entry(
            dtype_name(array.dtype), array.shape, offset, offset + array.nbytes
        )
        pieces.append(array)
        end = offset + array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    start = len(text).to_bytes(8, "little") + text
    digest = hashlib.sha256(start)
    file.write(start)
    with ThreadPoolExecutor(1) as pool:
        for chunk in _chunks(pieces):
            hashed = pool.submit(digest.update, chunk)
            file.write(chunk)
            hashed.result()
    return WeightsInfo(
        len(start) + end, len(start), digest.digest(), hashlib.sha256(start).digest()
    )


def _header_entry(dtype: str, shape: Iterable[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def _chunks(arrays: Iterable[Array], size: int = 1 << 24) -> Iterator[memoryview]:
    """The little-endian bytes of arrays, without copying those that are contiguous."""
    for array in arrays:
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        flat: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        raw = memoryview(flat)
        for i in range(0, len(raw), size):
            yield raw[i : i + size]
