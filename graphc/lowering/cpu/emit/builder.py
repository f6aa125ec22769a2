"""TVM's statement builder, and the few of its functions that are called most."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

Expr = Any
"""A TVM primitive expression (TVM ships no types)."""

Extent = int | Any
"""A number of iterations or elements: a Python int, or an int64 :data:`Expr`."""


@cache
def builder() -> Any:
    """TVM's statement builder, imported when the first kernel is emitted."""
    from tvm.script.ir_builder import tirx

    return tirx


@dataclass(frozen=True)
class _Memory:
    """The builder's functions for memory. TVM's own wrappers around them, which take arguments in more forms, would
    take most of the time of emitting a kernel.
    """

    load: Callable[[Any, list[Expr], None], Expr]
    store: Callable[[Any, Expr, list[Expr]], None]
    allocate: Callable[[list[Expr], Any, str, None], Any]


@cache
def _memory() -> _Memory:
    import tvm

    names = ("ir.SubscriptExprRealize", *(f"script.ir_builder.tirx.{n}" for n in _STATEMENTS))
    return _Memory(*map(tvm.get_global_func, names))


_STATEMENTS = ("BufferStore", "AllocBuffer")


def load(buffer: Any, index: Expr) -> Expr:
    """The elements of a flat buffer at an index, as many as it has lanes."""
    return _memory().load(buffer, [index], None)


def store(buffer: Any, value: Expr, index: Expr) -> None:
    """Stores the lanes of a value at those of an index."""
    _memory().store(buffer, value, [index])
    _emitted.stores += 1


def local(width: int, dtype: str) -> Any:
    """A flat TVM buffer of ``width`` elements on the stack of the function."""
    # A layout, which only GPU kernels need, would take half the time of emitting a kernel.
    extent = builder().int64(width)
    return _memory().allocate([extent], _type_named(dtype), "global", None)


@cache
def _type_named(dtype: str) -> Any:
    import tvm

    return tvm.ir.PrimType(dtype)


class _Emitted(threading.local):
    """What a thread has emitted."""

    stores = 0


_emitted = _Emitted()


def stores() -> int:
    """How many stores this thread has emitted: what is between two calls tells how long it takes to compile."""
    return _emitted.stores
