"""The C interface of `native/cuda_api.h`, as ctypes sees it."""

from __future__ import annotations

import ctypes

from graphc.artifact import capi


class CudaHandle(capi.Handle):
    """An open model on a GPU.

    Attributes:
        run_on_stream: `graphc_run_on_stream`, to be called with C types like `run`.
        device: the ordinal of its GPU.
        own_stream: the address of a stream of its own.
    """

    def __init__(
        self, library: str, weights: str, interface: str, *, debug: bool, device: int
    ) -> None:
        """Loads the library and opens the model. Raises what `capi.Handle` does."""
        self._allocated: set[int] = set()
        super().__init__(library, weights, interface, 0, debug, device)
        lib, address, size = self._lib, ctypes.c_void_p, ctypes.c_size_t
        for name, arguments in (
            ("graphc_synchronize", [address]),
            ("graphc_device_allocate", [address, size, ctypes.POINTER(address)]),
            ("graphc_device_free", [address, address]),
            ("graphc_copy", [address, address, address, size, address]),
            ("graphc_stream_wait", [address, address, address]),
        ):
            getattr(lib, name).argtypes = arguments
        lib.graphc_stream.argtypes, lib.graphc_stream.restype = [address], address
        self.own_stream = int(lib.graphc_stream(self.pointer))
        self.run_on_stream = lib.graphc_run_on_stream
        self.device = device

    def synchronize(self) -> None:
        """Waits for all calls. Raises what went wrong in them."""
        self.check(self._lib.graphc_synchronize(self.pointer))

    def allocate(self, size: int) -> int:
        """Device memory; 0 for no bytes. Raises ModuleMemoryError."""
        at = ctypes.c_void_p()
        self.check(self._lib.graphc_device_allocate(self.pointer, size, ctypes.byref(at)))
        address = at.value or 0
        self._allocated.add(address)
        return address

    def free(self, address: int) -> None:
        """Gives device memory back."""
        if (
            self.pointer is not None
        ):  # else it went with the model, both being part of one cycle of garbage
            self._allocated.discard(address)
            self._lib.graphc_device_free(self.pointer, address)

    def __del__(self) -> None:
        if self.pointer is not None:
            for address in sorted(self._allocated - {0}):
                self.free(address)
        super().__del__()

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """Copies between host and device behind what is in a stream, and waits for it."""
        self.check(self._lib.graphc_copy(self.pointer, to, source, size, stream))

    def stream_wait(self, waiting: int, stream: int) -> None:
        """Makes one stream wait for what is in another now."""
        self.check(self._lib.graphc_stream_wait(self.pointer, waiting, stream))
