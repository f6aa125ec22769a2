"""The short way from CPython into a module (`native/python.c`): a call with NumPy arrays of shapes that were there
before reaches the compiled program without any Python code in between.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import sysconfig
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.artifact import capi

PLANS = 16
"""How many combinations of input shapes are remembered; each further one replaces the oldest."""

_POINTER, _OBJECT = ctypes.c_void_p, ctypes.py_object
_Call = Callable[..., dict[str, Any]]


class _Table(ctypes.Structure):
    """What `graphc_python` returns. All of it runs with the GIL held, hence PYFUNCTYPE."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("prepare", ctypes.PYFUNCTYPE(_OBJECT, _POINTER, _OBJECT, _OBJECT, _OBJECT, _OBJECT)),
        ("function", ctypes.PYFUNCTYPE(_OBJECT, _OBJECT)),
        ("remember", ctypes.PYFUNCTYPE(None, _OBJECT, _POINTER, _POINTER, _POINTER, _OBJECT, _OBJECT, _OBJECT,
                                       ctypes.c_int)),
        ("forget", ctypes.PYFUNCTYPE(None, _OBJECT)),
        ("look", ctypes.PYFUNCTYPE(None, _OBJECT, _POINTER)),
    )  # fmt: skip


class Quick:
    """The short way into one open module. `find` makes one.

    Attributes:
        call: a built-in function that takes what a module's call takes, and gives its result.
    """

    def __init__(
        self,
        table: Any,
        slow: _Call,
        names: Sequence[str],
        dtypes: Sequence[np.dtype[Any]],
        out_names: Sequence[str],
    ) -> None:
        self._table = table
        self._capsule = table.prepare(
            id(np.ndarray), slow, tuple(names), tuple(dtypes), tuple(out_names)
        )
        self.call: _Call = table.function(self._capsule)

    def remember(
        self,
        handle: capi.Handle,
        inputs: ctypes.Array[capi.Tensor],
        outputs: ctypes.Array[capi.Tensor],
        refills: Sequence[Callable[[], list[Any]]],
        brief: bool,
    ) -> None:
        """Takes calls with these input shapes from now on.

        Args:
            handle: the model, which stays open until `forget`.
            inputs, outputs: as for `graphc_run`, without data.
            refills: for each output, makes new arrays for it.
            brief: the run is so short that other Python threads can wait for it.
        """
        self._table.remember(
            self._capsule,
            handle.pointer,
            ctypes.addressof(inputs),
            ctypes.addressof(outputs),
            handle,
            handle.check,
            tuple(refills),
            brief,
        )

    def forget(self) -> None:
        """Sends all calls the slow way again; those that run end as they would have."""
        self._table.forget(self._capsule)


def find(
    handle: capi.Handle,
    slow: _Call,
    names: Sequence[str],
    dtypes: Sequence[np.dtype[Any]],
    out_names: Sequence[str],
) -> Quick | None:
    """The short way, which leaves all that it does not take to `slow`; None where there is none: in another Python, in
    a subinterpreter, without a GIL, or for a module of before.
    """
    table = handle.python_table
    if not table or "out" in names or not _main_interpreter():
        return None
    found = _Table.from_address(table)
    if found.size != ctypes.sizeof(_Table) or not _layout_is_known(found):
        return None
    try:
        return Quick(found, slow, names, dtypes, out_names)
    except ValueError:  # NULL without an exception: the interpreter lacks a function
        return None


def _main_interpreter() -> bool:
    """Whether this is CPython with a GIL and 64-bit pointers, in its first interpreter."""
    if sys.implementation.name != "cpython" or struct.calcsize("P") != 8:
        return False
    if sysconfig.get_config_var("Py_GIL_DISABLED") or hasattr(sys, "gettotalrefcount"):
        return False  # objects have another layout
    api = ctypes.pythonapi
    current = ctypes.PYFUNCTYPE(_POINTER)(("PyInterpreterState_Get", api))
    number = ctypes.PYFUNCTYPE(ctypes.c_int64, _POINTER)(("PyInterpreterState_GetID", api))
    return bool(number(current()) == 0)


_known: list[bool] = []


def _layout_is_known(table: Any) -> bool:
    """Whether what the library reads of arrays is what NumPy says about them; found out once."""
    if not _known:
        _known.append(_compare(table.look))
    return _known[0]


def _compare(look: Callable[[object, int], None]) -> bool:
    frozen = np.zeros((3, 5), np.int64)
    frozen.flags.writeable = False
    samples: list[np.ndarray[Any, Any]] = [
        np.zeros((2, 3, 5), np.float32)[:, 1:],
        np.zeros(7, np.uint8)[3:4],
        np.zeros((), np.bool_),
        np.asfortranarray(frozen + 1),
        frozen,
    ]
    for array in samples:
        seen = (ctypes.c_int64 * 6)()
        look(array, ctypes.addressof(seen))
        kind, data, rank, dimensions, dtype, flags = seen
        said = (id(np.ndarray), array.ctypes.data, array.ndim, id(array.dtype), array.flags.num)
        if (kind, data, rank, dtype, flags) != said:
            return False
        if array.ndim and tuple((ctypes.c_ssize_t * rank).from_address(dimensions)) != array.shape:
            return False
    return True
