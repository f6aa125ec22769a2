"""DLPack, both ways, with ctypes alone: device arrays of other libraries as addresses, and memory of ours for them.

The layout is that of dlpack.h before version 1.0 (capsules named `dltensor`), which every library gives when it is not
asked for another.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.artifact.arrays import numpy_dtype

CUDA, MANAGED = 2, 13
"""kDLCUDA, kDLCUDAManaged."""

LEGACY_STREAM = 1
"""How DLPack calls the default stream."""

_KINDS = {
    **{f"i{bits}": (0, bits) for bits in (8, 16, 32, 64)},
    **{f"f{bits}": (2, bits) for bits in (16, 32, 64)},
    "u8": (1, 8),
    "bf16": (4, 16),
    "bool": (6, 8),
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_FRESH, _USED = b"dltensor", b"used_dltensor"  # capsules keep pointers to these


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)

_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_SetName", ctypes.pythonapi)
)
_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, _Destructor)(
    ("PyCapsule_New", ctypes.pythonapi)
)
# By address: a capsule that is being destroyed must not be referred to.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


@dataclass(frozen=True)
class Imported:
    """Another library's array: `owner` keeps its memory alive.

    Attributes:
        address: of its first element.
        shape: its extents.
        dtype: its element type as in .nn files; None for one that modules do not know.
        contiguous: whether it is dense and row major.
        device: the ordinal of its GPU.
    """

    address: int
    shape: tuple[int, ...]
    dtype: str | None
    contiguous: bool
    device: int
    owner: object


class _Owner:
    """Gives a managed tensor back when nobody refers to it any more."""

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer

    def __del__(self) -> None:
        deleter = _Managed.from_address(self.pointer).deleter
        if deleter:
            _Deleter(deleter)(self.pointer)


def is_on_gpu(value: object) -> bool:
    """Whether an object is an array in memory of a GPU."""
    ask = getattr(value, "__dlpack_device__", None)
    return ask is not None and ask()[0] in (CUDA, MANAGED)


def imported(value: Any, stream: int) -> Imported:
    """Takes an array by its `__dlpack__`, ready for work in a stream. Raises what the library raises."""
    capsule = value.__dlpack__(stream=stream or LEGACY_STREAM)
    pointer = _pointer_of(capsule, _FRESH)
    _rename(capsule, _USED)
    owner = _Owner(pointer)
    t = _Managed.from_address(pointer).tensor
    shape = tuple(t.shape[: t.ndim])
    dense = not t.strides or _is_dense(shape, t.strides[: t.ndim])
    name = _NAMES.get((t.code, t.bits)) if t.lanes == 1 else None
    return Imported((t.data or 0) + t.byte_offset, shape, name, dense, t.device_id, owner)


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return 0 in shape
        step *= size
    return True


_exported: dict[int, tuple[Any, ...]] = {}  # what capsules refer to, by address


def _delete(pointer: int) -> None:
    _exported.pop(pointer, None)


def _destroy(capsule: int) -> None:
    if _is_valid(capsule, _FRESH):  # nobody has taken it
        _delete(_pointer_at(capsule, _FRESH))


_deleter, _destructor = _Deleter(_delete), _Destructor(_destroy)


def exported(
    address: int, shape: tuple[int, ...], dtype: str, device: int, owner: object
) -> object:
    """A capsule over dense memory on a GPU; `owner` lives until its taker gives it back."""
    rank = len(shape)
    extents = (ctypes.c_int64 * max(rank, 1))(*shape)
    strides = (ctypes.c_int64 * max(rank, 1))()
    step = 1
    for i in reversed(range(rank)):
        strides[i] = step
        step *= shape[i]
    managed = _Managed()
    t = managed.tensor
    t.data, t.device_type, t.device_id, t.ndim = address, CUDA, device, rank
    (t.code, t.bits), t.lanes = _KINDS[dtype], 1
    pointer = ctypes.POINTER(ctypes.c_int64)
    t.shape, t.strides = ctypes.cast(extents, pointer), ctypes.cast(strides, pointer)
    managed.deleter = ctypes.cast(_deleter, ctypes.c_void_p)
    at = ctypes.addressof(managed)
    _exported[at] = (managed, extents, strides, owner)
    return _new_capsule(at, _FRESH, _destructor)


def itemsize(dtype: str) -> int:
    """Bytes of an element."""
    return numpy_dtype(dtype).itemsize


def size_of(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a dense array."""
    return itemsize(dtype) * int(np.prod(shape, dtype=np.int64))
