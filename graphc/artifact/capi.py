"""The C interface of `native/api.h`, as ctypes sees it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from graphc.artifact import errors

ABI_VERSION = 2
"""GRAPHC_ABI_VERSION of the modules that this loader understands."""

MAX_RANK = 8
"""GRAPHC_MAX_RANK."""

DTYPES = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool")
"""Element types, in the order of `graphc_dtype`."""

_ERRORS: dict[int, type[errors.ModuleError]] = {
    1: errors.ModuleMemoryError,
    2: errors.ModuleFileError,
    3: errors.ModuleTargetError,
    4: errors.ModuleInputError,
    5: errors.ModuleDTypeError,
    6: errors.ModuleShapeError,
    7: errors.ModuleIndexError,
}


class Tensor(ctypes.Structure):
    """`graphc_tensor`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * MAX_RANK),
    )


class Options(ctypes.Structure):
    """`graphc_options`."""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("threads", ctypes.c_int32),
        ("verify", ctypes.c_int32),
        ("debug", ctypes.c_int32),
        ("device", ctypes.c_int32),
    )


class _Info(ctypes.Structure):
    """The beginning of `graphc_info`: the rest is in the manifest."""

    _fields_ = (
        ("abi_version", ctypes.c_uint32),
        ("struct_size", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        ("graphc_version", ctypes.c_char_p),
        ("target", ctypes.c_char_p),
        ("interface", ctypes.c_char_p),
    )


_loaded: dict[str, tuple[int, int]] = {}
"""Names that libraries were loaded under in this process, with their device and inode."""


def _name_for(library: str) -> str:
    """A name to load a library by.

    The dynamic linker goes by names first: under one that it knows it would hand out the library that was there before,
    so a replaced file gets another spelling of its path.

    Raises OSError where there is no such file.
    """
    about = os.stat(library)
    folder, file = os.path.split(library)
    name = library
    while _loaded.setdefault(name, (about.st_dev, about.st_ino)) != (about.st_dev, about.st_ino):
        folder = os.path.join(folder, ".")
        name = os.path.join(folder, file)
    return name


class Handle:
    """An open model. It is closed when the last reference goes, so never while a call holds one.

    Attributes:
        pointer: the `graphc_model *`.
        python_table: what `graphc_python` returns; None for a module that does not have it.
        run: `graphc_run`, to be called as run(pointer, inputs, n_inputs, outputs, n_outputs) with C types: Python's
            numbers would have to be converted at each call.
    """

    def __init__(
        self,
        library: str,
        weights: str,
        interface: str,
        threads: int,
        debug: bool,
        device: int = 0,
    ) -> None:
        """Loads the library and opens the model.

        Raises ModuleFileError, ModuleVersionError, ModuleTargetError.
        """
        self.pointer: int | None = None
        try:
            lib = ctypes.CDLL(_name_for(library), mode=os.RTLD_NOW | os.RTLD_LOCAL)
            address, size = ctypes.c_void_p, ctypes.c_size_t
            lib.graphc_module_info.restype = ctypes.POINTER(_Info)
            info: _Info = lib.graphc_module_info().contents
        except (OSError, AttributeError) as error:
            raise errors.ModuleFileError(f"{library!r} cannot be loaded: {error}") from error
        if info.abi_version != ABI_VERSION:
            raise errors.ModuleVersionError(
                f"{library!r} has C interface {info.abi_version}, this graphc uses {ABI_VERSION}"
            )
        if info.interface != interface.encode():
            raise errors.ModuleFileError(
                f"{library!r} is not the library that the manifest describes"
            )
        self._lib = lib
        lib.graphc_error.restype = ctypes.c_char_p
        for name, arguments in (
            ("graphc_open", [ctypes.c_char_p, ctypes.POINTER(Options), ctypes.POINTER(address)]),
            ("graphc_output_shapes", [address, address, size, address, size]),
            ("graphc_dim_sizes", [address, address, size, address, size]),
            ("graphc_initial_state", [address, address, size]),
            ("graphc_profile", [address, address, size, address, size, address, size]),
            ("graphc_threads", [address]),
            ("graphc_close", [address]),
        ):
            getattr(lib, name).argtypes = arguments
        self._close = lib.graphc_close
        self._close.restype = None
        self.run = lib.graphc_run
        self.python_table: int | None = None
        if hasattr(lib, "graphc_python"):
            lib.graphc_python.restype = address
            self.python_table = lib.graphc_python()
        model = address()
        options = Options(ctypes.sizeof(Options), threads, 0, debug, device)
        self.check(lib.graphc_open(os.fsencode(weights), options, model))
        self.pointer = model.value

    def __del__(self) -> None:
        if self.pointer is not None:
            self._close(self.pointer)
            self.pointer = None

    @property
    def threads(self) -> int:
        """The threads that compute."""
        return int(self._lib.graphc_threads(self.pointer))

    def check(self, status: int) -> None:
        """Raises the error of a call that did not return 0; from the thread that made the call."""
        if status:
            kind = _ERRORS.get(status, errors.ModuleError)
            raise kind(self._lib.graphc_error().decode("utf-8", "replace"))

    def output_shapes(self, inputs: ctypes.Array[Tensor], outputs: ctypes.Array[Tensor]) -> None:
        """Fills in the types, shapes and sizes of `outputs` for the shapes of `inputs`."""
        self.check(
            self._lib.graphc_output_shapes(
                self.pointer,
                ctypes.addressof(inputs),
                len(inputs),
                ctypes.addressof(outputs),
                len(outputs),
            )
        )

    def initial_state(self, inputs: ctypes.Array[Tensor]) -> None:
        """Fills the buffers of the state among `inputs` with what it starts as."""
        self.check(
            self._lib.graphc_initial_state(self.pointer, ctypes.addressof(inputs), len(inputs))
        )

    def dim_sizes(self, inputs: ctypes.Array[Tensor], names: Sequence[str]) -> dict[str, int]:
        """The named dims for the shapes of `inputs`."""
        sizes = (ctypes.c_int64 * len(names))()
        self.check(
            self._lib.graphc_dim_sizes(
                self.pointer,
                ctypes.addressof(inputs),
                len(inputs),
                ctypes.addressof(sizes),
                len(names),
            )
        )
        return dict(zip(names, sizes, strict=True))

    def profile(
        self, inputs: ctypes.Array[Tensor], outputs: ctypes.Array[Tensor], kernels: int
    ) -> list[float]:
        """Runs once; the seconds of each kernel."""
        seconds = (ctypes.c_double * kernels)()
        self.check(
            self._lib.graphc_profile(
                self.pointer,
                ctypes.addressof(inputs),
                len(inputs),
                ctypes.addressof(outputs),
                len(outputs),
                ctypes.addressof(seconds),
                kernels,
            )
        )
        return list(seconds)
