"""Importing TVM in the time it needs: once, ahead of its first use, and without what graphc never asks of it.

The import takes one to two seconds of a compilation, half of it inside native code without the interpreter lock, so
that it runs beside the passes. Two things in it are avoided: `tvm_ffi` imports PyTorch where that is installed (two
to four seconds, for exchanging tensors, which graphc does not), and lists all 4,000 global functions once for each of
fifty modules that take their own from the list.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def preload() -> threading.Thread:
    """Starts importing TVM; whoever imports it meanwhile waits for its end. Returns the thread."""
    thread = threading.Thread(target=load, name="import tvm", daemon=True)
    thread.start()
    return thread


def load() -> None:
    """Imports TVM, unless it is there. Errors are left to the import that needs it."""
    if "tvm" in sys.modules:
        return
    with without("torch"), _one_list():
        try:
            importlib.import_module("tvm")
            importlib.import_module("tvm.script.ir_builder.tirx")
        except ImportError:
            return


class _Absent(MetaPathFinder):
    """Says that a package is not installed, to the imports of one thread."""

    def __init__(self, package: str) -> None:
        self._package, self._thread = package, threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """No module of that name, for this thread; for others, whatever the next finder says."""
        if fullname == self._package and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{fullname} is not wanted here", name=fullname)
        return None


@contextmanager
def without(package: str) -> Iterator[None]:
    """While it is open, this thread cannot import `package`, unless that has been imported already."""
    finder = _Absent(package)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def _one_list() -> Iterator[None]:
    """While it is open, `tvm_ffi` asks for the list of global functions once."""
    registry: Any = importlib.import_module("tvm_ffi.registry")
    ask, names = registry.list_global_func_names, list[str]()

    def listed() -> list[str]:
        if not names:
            importlib.import_module("tvm.base")  # loads the libraries that register them
            names.extend(ask())
        return names

    registry.list_global_func_names = listed
    try:
        yield
    finally:
        registry.list_global_func_names = ask
