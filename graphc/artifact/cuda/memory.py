"""Device memory of outputs: blocks that are used again, and the arrays over them that users get."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.artifact.arrays import Array, numpy_dtype
from graphc.artifact.cuda import dlpack
from graphc.artifact.cuda.capi import CudaHandle

_GRAIN = 512  # bytes: blocks of nearly equal sizes are interchangeable


class Block:
    """Device memory that goes back to its pool when nobody refers to it.

    Attributes:
        address: its first byte.
        streams: where work on it was put.
    """

    def __init__(self, pool: Pool, address: int, size: int) -> None:
        self.pool, self.address, self.size = pool, address, size
        self.streams: set[int] = set()

    def __del__(self) -> None:
        self.pool.give(self.address, self.size, self.streams)


class Pool:
    """Free blocks of one model, by size."""

    def __init__(self, handle: CudaHandle) -> None:
        self.handle = handle
        self.free: dict[int, list[tuple[int, set[int]]]] = {}

    def take(self, size: int, stream: int) -> Block:
        """A block for work in a stream, which waits for what other streams still do with it."""
        size = -(-size // _GRAIN) * _GRAIN
        spare = self.free.get(size)
        if not spare:
            return Block(self, self.handle.allocate(size), size)
        address, streams = spare.pop()
        for other in sorted(streams - {stream}):
            self.handle.stream_wait(stream, other)
        return Block(self, address, size)

    def give(self, address: int, size: int, streams: set[int]) -> None:
        """Takes a block back."""
        if address:
            self.free.setdefault(size, []).append((address, streams))

    def __del__(self) -> None:
        for spare in self.free.values():
            for address, _ in spare:
                self.handle.free(address)


class DeviceArray:
    """A dense array in memory of a GPU: what a module returns when it is called on device arrays.

    `from_dlpack` of PyTorch, CuPy and JAX uses it in place; `x.numpy()` copies it.

    Attributes:
        shape, dtype: its extents, and its element type as NumPy knows it.
        device: the ordinal of its GPU.
    """

    def __init__(
        self, block: Block, shape: tuple[int, ...], code: str, stream: int, device: int
    ) -> None:
        self.shape, self.device = shape, device
        self._block, self._code, self._stream = block, code, stream
        block.streams.add(stream)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type; for bf16 see `arrays.numpy_dtype`."""
        return numpy_dtype(self._code)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return dlpack.size_of(self.shape, self._code)

    @property
    def address(self) -> int:
        """Where it lies on the device."""
        return self._block.address

    def numpy(self) -> Array:
        """A copy in host memory, once the call that makes it is done. Raises what went wrong in it."""
        handle = self._block.pool.handle
        array = np.empty(self.shape, self.dtype)
        if array.size:
            handle.copy(array.ctypes.data, self.address, array.nbytes, self._stream)
        handle.synchronize()
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("an array on a GPU cannot be a NumPy array without a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (dlpack.CUDA, self.device)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A capsule for work in `stream`, which waits for the call that makes the array (-1: does not)."""
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("graphc gives arrays where they are, and does not copy them")
        if stream != -1:
            waiting = 0 if stream in (None, dlpack.LEGACY_STREAM) else int(stream or 0)
            if waiting != self._stream:
                self._block.pool.handle.stream_wait(waiting, self._stream)
            self._block.streams.add(waiting)
        return dlpack.exported(self.address, self.shape, self._code, self.device, self._block)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self._code == "bf16":
            raise AttributeError("bf16 has no typestr: use DLPack")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self._stream or dlpack.LEGACY_STREAM,
            "version": 3,
        }

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without axes has no length")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<{self._code}[{', '.join(map(str, self.shape))}] on GPU {self.device}>"
