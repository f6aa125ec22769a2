"""Calling a module on a GPU: NumPy in, NumPy out; or arrays that are on the GPU already, used and made in place."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from graphc.artifact import capi, manifest
from graphc.artifact.arrays import Array, address, as_input, numpy_dtype
from graphc.artifact.cuda import dlpack
from graphc.artifact.cuda.capi import CudaHandle
from graphc.artifact.cuda.memory import Block, DeviceArray, Pool
from graphc.artifact.errors import ModuleDTypeError, ModuleInputError
from graphc.artifact.manifest import TensorInfo
from graphc.artifact.module import Module

# Libraries whose memory goes on to other work in the order of streams, so that a call need not wait for its end.
_STREAM_ORDERED = ("torch", "cupy", "graphc")


class BoundCall:
    """A call of a module on fixed device memory, to be repeated: `call()` puts it into its stream and returns.

    After the second time it is one launch of a captured CUDA graph. Write new inputs into the arrays that it was bound
    to; results are in `outputs`. What goes wrong is reported by `Module.synchronize`, or by a later call.

    Attributes:
        outputs: the arrays that each call overwrites, by name.
    """

    def __init__(
        self, handle: CudaHandle, given: list[_Given], outputs: dict[str, _Given], stream: int
    ) -> None:
        self._handle, self._kept = handle, (given, outputs)
        self.outputs = {name: g.array for name, g in outputs.items()}
        inputs = (capi.Tensor * len(given))(*(g.struct() for g in given))
        results = (capi.Tensor * len(outputs))(*(g.struct() for g in outputs.values()))
        self._structs = (inputs, results)
        self._arguments = (
            ctypes.c_void_p(handle.pointer),
            ctypes.c_void_p(ctypes.addressof(inputs)),
            ctypes.c_size_t(len(given)),
            ctypes.c_void_p(ctypes.addressof(results)),
            ctypes.c_size_t(len(outputs)),
            ctypes.c_void_p(stream),
        )

    def __call__(self) -> None:
        """Puts the call into its stream."""
        if status := self._handle.run_on_stream(*self._arguments):
            self._handle.check(status)


class _Given:
    """Device memory of an input or output: what the C interface wants to know, and what keeps it alive."""

    def __init__(
        self,
        at: int,
        shape: tuple[int, ...],
        dtype: str,
        array: object,
        *,
        owner: object = None,
        ordered: bool = True,
    ) -> None:
        self.at, self.shape, self.dtype, self.array = at, shape, dtype, array
        self.owner, self.ordered = owner, ordered

    def struct(self) -> capi.Tensor:
        size = dlpack.size_of(self.shape, self.dtype)
        made = capi.Tensor(
            data=self.at,
            bytes=size,
            dtype=capi.DTYPES.index(self.dtype),
            rank=len(self.shape),
        )
        if len(self.shape) <= capi.MAX_RANK:  # else the runtime reports the rank
            made.shape[: len(self.shape)] = self.shape
        return made


class CudaModule(Module):
    """A compiled model on a GPU. `graphc.open` makes one; what it has beside a `Module`:

    - Called on arrays that lie on its GPU (anything with DLPack: PyTorch, CuPy, JAX), it uses them in place and returns
      `DeviceArray`s by name, for `from_dlpack` or `.numpy()`. The work is put into a stream, the default one unless
      `stream=` names another by its address, and the call does not wait for it.
    - Called on NumPy arrays it returns NumPy arrays, like any module.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        verify: bool = True,
        debug: bool = False,
        device: int = 0,
        info: manifest.Manifest | None = None,
    ) -> None:
        """Reads a folder; the GPU is asked for at the first use, or by `wake`. See `graphc.open`."""
        self._device = device
        self._lock = threading.Lock()
        self._opener: Callable[[], CudaHandle] | None = None
        self._pool: Pool | None = None
        super().__init__(path, verify=verify, debug=debug, info=info)

    def _make_handle(
        self, library: Path, weights: Path, interface: str, threads: int, debug: bool
    ) -> None:
        texts = (str(library), str(weights), interface)
        self._opener = partial(CudaHandle, *texts, debug=debug, device=self._device)

    def _open_handle(self) -> capi.Handle:
        with self._lock:
            if self._opener is not None:
                handle = self._opener()
                self._handle, self._pool, self._opener = handle, Pool(handle), None
        return super()._open_handle()

    def wake(self) -> None:
        """Opens the model on its GPU now. Raises what `graphc.open` does."""
        self._open_handle()

    @property
    def device(self) -> int:
        """The ordinal of its GPU."""
        return self._device

    def __call__(  # type: ignore[override]
        self,
        /,
        *args: object,
        out: Mapping[str, object] | None = None,
        stream: int | None = None,
        **inputs: object,
    ) -> dict[str, Array] | dict[str, DeviceArray]:
        """Runs the model; see `run`. Inputs go by name or, in order, by position."""
        if stream is None and not any(map(dlpack.is_on_gpu, (*args, *inputs.values()))):
            return super().__call__(*args, out=_numpy_only(out), **inputs)
        return self._on_device(self._by_name(args, inputs), out, stream or 0)

    def run(  # type: ignore[override]
        self,
        inputs: Mapping[str, object] | Sequence[object],
        out: Mapping[str, object] | None = None,
        stream: int | None = None,
    ) -> dict[str, Array] | dict[str, DeviceArray]:
        """Runs the model on inputs by name or in order, and returns its outputs by name.

        Args:
            inputs: arrays as `Module.run` takes them, or arrays on the GPU; with one of those, the rest is copied.
            out: arrays to write outputs to, of the same kind; the others are made.
            stream: the address of the CUDA stream to work in (`torch.cuda.current_stream().cuda_stream`).

        Raises what `Module.run` does; for work in a stream an index out of range is reported by `synchronize`, by
        `DeviceArray.numpy`, or by a later call.
        """
        values = inputs.values() if isinstance(inputs, Mapping) else inputs
        if stream is None and not any(map(dlpack.is_on_gpu, values)):
            return super().run(inputs, _numpy_only(out))
        named = inputs if isinstance(inputs, Mapping) else {}
        args = () if isinstance(inputs, Mapping) else tuple(inputs)
        return self._on_device(self._by_name(args, named), out, stream or 0)

    def bind(
        self,
        inputs: Mapping[str, object],
        out: Mapping[str, object] | None = None,
        stream: int = 0,
    ) -> BoundCall:
        """A call on these very arrays, all on the GPU, to be repeated with as little work as possible.

        Raises what `run` does.
        """
        handle = self._cuda_handle()
        for name, value in inputs.items():
            if not dlpack.is_on_gpu(value):
                raise ModuleInputError(f"input `{name}` is not on a GPU: only such can be bound")
        given = self._inputs(handle, self._by_name((), inputs), stream)
        return BoundCall(handle, given, self._outputs(handle, given, out, stream), stream)

    def upload(self, inputs: Mapping[str, object], stream: int = 0) -> dict[str, DeviceArray]:
        """Copies of inputs, or of some of them, in memory of the GPU. Raises what `run` does."""
        handle = self._cuda_handle()
        ports = {p.name: replace(p, state=False) for p in self.inputs}
        made: dict[str, DeviceArray] = {}
        for name, value in inputs.items():
            if name not in ports:
                raise ModuleInputError(f"`{self.name}` has no input `{name}`")
            given = self._uploaded(handle, value, ports[name], stream)
            assert isinstance(given.array, Block)
            made[name] = DeviceArray(given.array, given.shape, given.dtype, stream, handle.device)
        return made

    def synchronize(self) -> None:
        """Waits for all calls. Raises what went wrong in them, such as ModuleIndexError."""
        self._cuda_handle().synchronize()

    def close(self) -> None:
        """Gives the GPU's memory back, as soon as calls that still run have ended and outputs are gone."""
        super().close()
        self._pool = self._opener = None

    def _cuda_handle(self) -> CudaHandle:
        handle = self._open_handle()
        assert isinstance(handle, CudaHandle)
        return handle

    def _block(self, handle: CudaHandle, size: int, stream: int) -> Block:
        pool = self._pool or Pool(handle)  # closed by another thread: this call ends well
        return pool.take(size, stream)

    def _on_device(
        self, inputs: Mapping[str, object], out: Mapping[str, object] | None, stream: int
    ) -> dict[str, DeviceArray]:
        handle = self._cuda_handle()
        given = self._inputs(handle, inputs, stream)
        outputs = self._outputs(handle, given, out, stream)
        call = BoundCall(handle, given, outputs, stream)
        call()
        if not all(g.ordered for g in (*given, *outputs.values())):
            handle.synchronize()
        return call.outputs  # type: ignore[return-value]

    def _inputs(
        self, handle: CudaHandle, inputs: Mapping[str, object], stream: int
    ) -> list[_Given]:
        return [
            self._taken(handle, inputs[port.name], port, stream)
            if dlpack.is_on_gpu(inputs[port.name])
            else self._uploaded(handle, inputs[port.name], port, stream)
            for port in self.inputs
        ]

    def _taken(self, handle: CudaHandle, value: object, port: TensorInfo, stream: int) -> _Given:
        """An array that is on the GPU, as it is."""
        try:
            x = dlpack.imported(value, stream)
        except Exception as error:  # anything may come out of foreign objects
            raise ModuleInputError(
                f"`{port.name}` (expected {port}): this {type(value).__name__} cannot be taken "
                f"through DLPack: {error}"
            ) from error
        kind = f"{x.dtype}[{', '.join(map(str, x.shape))}]"
        if x.dtype != port.dtype:
            raise ModuleDTypeError(f"`{port.name}` is {kind}, expected {port}: cast it first")
        if x.device != handle.device:
            raise ModuleInputError(
                f"`{port.name}` lies on GPU {x.device}, the model is on GPU {handle.device}"
            )
        if not x.contiguous:
            raise ModuleInputError(
                f"`{port.name}` is no dense, row-major array: pass {port.name}.contiguous()"
            )
        ordered = type(value).__module__.split(".")[0] in _STREAM_ORDERED
        return _Given(x.address, x.shape, x.dtype, value, owner=x.owner, ordered=ordered)

    def _uploaded(self, handle: CudaHandle, value: object, port: TensorInfo, stream: int) -> _Given:
        """An array of the host, copied to the GPU."""
        if port.state:
            raise ModuleInputError(
                f"state `{port.name}` has to be on the GPU as well, where the call overwrites it"
            )
        array = as_input(value, port, numpy_dtype(port.dtype))
        block = self._block(handle, array.nbytes, stream)
        block.streams.add(stream)
        if array.size:
            handle.copy(block.address, address(array), array.nbytes, stream)
        return _Given(block.address, array.shape, port.dtype, block)

    def _outputs(
        self,
        handle: CudaHandle,
        given: list[_Given],
        out: Mapping[str, object] | None,
        stream: int,
    ) -> dict[str, _Given]:
        made: dict[str, _Given] = {}
        shapes = self._output_shapes(handle, given)
        for port, shape in zip(self.outputs, shapes, strict=True):
            if out is not None and port.name in out:
                target = self._taken(handle, out[port.name], port, stream)
                if target.shape != shape:
                    raise ModuleInputError(
                        f"out[{port.name!r}] is {list(target.shape)}, the output is {list(shape)}"
                    )
                made[port.name] = target
                continue
            block = self._block(handle, dlpack.size_of(shape, port.dtype), stream)
            array = DeviceArray(block, shape, port.dtype, stream, handle.device)
            made[port.name] = _Given(block.address, shape, port.dtype, array)
        if out is not None and (unknown := [n for n in out if n not in made]):
            raise ModuleInputError(f"`{self.name}` has no output `{unknown[0]}` to write to out=")
        return made

    def _output_shapes(self, handle: CudaHandle, given: list[_Given]) -> list[tuple[int, ...]]:
        inputs = (capi.Tensor * len(given))(*(g.struct() for g in given))
        outputs = (capi.Tensor * len(self.outputs))()
        handle.output_shapes(inputs, outputs)
        return [tuple(struct.shape[: struct.rank]) for struct in outputs]


def _numpy_only(out: Mapping[str, object] | None) -> Mapping[str, Array] | None:
    """`out=` of a call on arrays of the host. Raises ModuleInputError for arrays on a GPU."""
    arrays: dict[str, Array] = {}
    for name, array in (out or {}).items():
        if not isinstance(array, np.ndarray):
            raise ModuleInputError(
                f"out[{name!r}] must be a NumPy array, like the inputs; or give all on the GPU"
            )
        arrays[name] = array
    return None if out is None else arrays
