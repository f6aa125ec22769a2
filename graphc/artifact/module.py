"""Opening and running compiled modules, with NumPy and the standard library only.

Longer than most, because `Module` is all that a user of a module sees, and its methods share one state.
"""

from __future__ import annotations

import difflib
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np

from graphc.artifact import capi, expr, manifest, quick
from graphc.artifact.arrays import Array, address, as_input, check_output, numpy_dtype
from graphc.artifact.errors import (
    ModuleClosedError,
    ModuleFileError,
    ModuleInputError,
    ModuleTargetError,
)
from graphc.artifact.folder import copy_file, replacing
from graphc.artifact.plan import Frame, Maker, Plan

_MAX_PLANS = 64  # remembered combinations of input shapes
_BRIEF = 2_000_000  # operations, and bytes, up to which other Python threads wait for a call


@dataclass(frozen=True)
class KernelTime:
    """One kernel's share of a profiled call.

    Attributes:
        name, label, op, source: of the kernel, see `Module.manifest`.
        seconds: wall time.
        flops, bytes: its work for these input shapes.
    """

    name: str
    label: str
    op: str
    source: str
    seconds: float
    flops: int
    bytes: int

    @property
    def gflops(self) -> float:
        """10^9 floating point operations per second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0


@dataclass(frozen=True)
class Profile:
    """What `Module.profile` measured: the outputs, and the kernels in the order they ran in."""

    outputs: dict[str, Array]
    kernels: tuple[KernelTime, ...]

    @property
    def seconds(self) -> float:
        """All kernels together."""
        return sum(k.seconds for k in self.kernels)


class Module:
    """A compiled model, ready to run. `open` makes one.

    >>> module = graphc.open("lenet")
    >>> module.inputs
    (TensorInfo(name='image', dtype='f32', shape=('N', 1, 28, 28)),)
    >>> logits = module(image=images)["logits"]

    Calls may come from several threads at once. As a context manager it is closed at the end.

    Attributes:
        path: the folder.
        name: the model's name.
        inputs, outputs: names, dtypes and shapes, in order.
        dims: the named dims with their bounds.
        manifest: everything manifest.json says, such as the op-to-source table (`["ops"]`).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        verify: bool = True,
        debug: bool = False,
        info: manifest.Manifest | None = None,
        elsewhere: bool = False,
    ) -> None:
        """Opens a folder; see `open`. `info` is its manifest where it was read before.

        With `elsewhere` it may be for other machines than this: then the first call says what is missing here.
        """
        self._unfit: ModuleTargetError | None = None
        self._elsewhere = elsewhere
        self.path = Path(os.path.abspath(path))
        self._manifest = info or manifest.read_manifest(self.path)
        info = self._manifest
        self.name = info.name
        self.inputs = info.inputs
        self.outputs = info.outputs
        self.dims = info.dims
        self.manifest: Mapping[str, Any] = MappingProxyType(dict(info.data))
        library, weights = self.path / manifest.LIBRARY, self.path / manifest.WEIGHTS
        needed = (manifest.LIBRARY, manifest.WEIGHTS)
        if verify:
            present = [n for n in info.files if n in needed or (self.path / n).exists()]
            manifest.verify_files(self.path, info, present)
        else:
            manifest.check_size(
                self.path, info, manifest.LIBRARY
            )  # the runtime checks that of the weights
        for file in (library, weights):
            manifest.check_inside(self.path, file)
            if not file.is_file():
                raise ModuleFileError(f"{str(file)!r} is missing")
        try:
            self._codes = [capi.DTYPES.index(p.dtype) for p in self.inputs]
            self._in_dtypes = [numpy_dtype(p.dtype) for p in self.inputs]
            self._out_dtypes = [numpy_dtype(p.dtype) for p in self.outputs]
        except (KeyError, ValueError) as error:
            raise ModuleFileError(
                f"the manifest of {str(self.path)!r} has unknown dtypes"
            ) from error
        self._names = [p.name for p in self.inputs]
        self._positions = list(zip(self._names, self._in_dtypes, self.inputs, strict=True))
        self._plans: dict[tuple[tuple[int, ...], ...], Plan] = {}
        self._recent: list[Plan] = []  # those that take the short way
        self._used: dict[str, Array] = {}  # memory of the latest large outputs
        self._handle: capi.Handle | None = self._make_handle(
            library, weights, info.interface, threads or 0, debug
        )
        self._quick = None if debug or self._handle is None else self._find_quick(self._handle)
        if self._quick is not None:
            # A class of its own, since Python looks for `__call__` there: one of the instance would be a Python
            # function's detour for every call.
            self.__class__ = type(
                type(self).__name__,
                (type(self),),
                {
                    "__slots__": (),
                    "__module__": __name__,
                    "__doc__": self.__doc__,
                    "__call__": self._quick.call,
                },
            )

    def __call__(
        self, /, *args: object, out: Mapping[str, Array] | None = None, **inputs: object
    ) -> dict[str, Array]:
        """Runs the model; see `run`. Inputs go by name or, in order, by position."""
        return self._execute(self._gather(args, inputs), out)

    def run(
        self,
        inputs: Mapping[str, object] | Sequence[object],
        out: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """Runs the model on inputs by name or in order, and returns its outputs by name.

        Args:
            inputs: arrays of the declared dtype and shape: NumPy arrays, anything with DLPack or
                the buffer protocol (used in place when contiguous), or numbers and nested lists.
            out: arrays to write outputs to; the others are made.

        Raises:
            ModuleInputError: an input is missing, unknown, or no array.
            ModuleDTypeError, ModuleShapeError: it does not fit its declaration.
            ModuleIndexError: an index is out of range.
            ModuleMemoryError: no memory for these sizes.
            ModuleClosedError: after `close`.
        """
        values = tuple(inputs) if not isinstance(inputs, Mapping) else self._in_order(inputs)
        return self(*values) if out is None else self._execute(self._gather(values, {}), out)

    def _in_order(self, inputs: Mapping[str, object]) -> tuple[object, ...]:
        """Inputs by position, for the short way. Raises ModuleInputError."""
        try:
            if len(inputs) == len(self._names):
                return tuple([inputs[name] for name in self._names])
        except KeyError:
            pass
        return tuple(self._by_name((), inputs)[name] for name in self._names)

    def profile(self, /, *args: object, **inputs: object) -> Profile:
        """Runs once, with inputs as in a call, and measures each kernel. Raises what `run` does."""
        handle, arrays = self._open_handle(), self._gather(args, inputs)
        plan = self._plan(handle, arrays)
        frame = Frame(handle, plan)
        results = self._point(frame, plan, arrays, None)
        seconds = handle.profile(frame.inputs, frame.outputs, len(self._manifest.kernels))
        dims = handle.dim_sizes(frame.inputs, [d.name for d in self.dims])
        kernels = (
            KernelTime(
                k.name,
                k.label,
                k.op,
                k.source,
                s,
                expr.evaluate(k.flops, dims),
                expr.evaluate(k.bytes, dims),
            )
            for k, s in zip(self._manifest.kernels, seconds, strict=True)
        )
        return Profile(results, tuple(kernels))

    def initial_state(self) -> dict[str, Array]:
        """New arrays for the inputs that are state, with what they start as.

        >>> state = step.initial_state()
        >>> step(**batch, **state)["loss"]  # and `state` is one step further
        """
        handle = self._open_handle()
        found: dict[str, Array] = {}
        structs = []
        for port, dtype, code in zip(self.inputs, self._in_dtypes, self._codes, strict=True):
            lows = {d.name: max(d.low, 1) for d in self.dims}
            shape = tuple(expr.evaluate(d, lows) for d in port.shape)
            struct = capi.Tensor(dtype=code, rank=len(shape))
            struct.shape[: len(shape)] = shape
            if port.state:
                found[port.name] = np.empty(shape, dtype)
                struct.data = address(found[port.name])
            structs.append(struct)
        handle.initial_state((capi.Tensor * len(structs))(*structs))
        return found

    @property
    def threads(self) -> int:
        """The threads that compute."""
        return self._open_handle().threads

    @property
    def graph_text(self) -> str:
        """The printed graph that the module was compiled from."""
        return (self.path / manifest.GRAPH).read_text(encoding="utf-8")

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Copies the module to another folder, in one step, and returns that folder.

        Raises ModuleFileError when it cannot be written or something that is no module is there.
        """
        target = Path(os.path.abspath(directory))
        if target == self.path:
            return target
        with replacing(target) as folder:
            for name in (*self._manifest.files, manifest.NAME):
                if (self.path / name).exists():
                    copy_file(self.path / name, folder / name)
        return target

    def close(self) -> None:
        """Gives threads and memory back, as soon as calls that still run have ended."""
        if self._quick is not None:
            self._quick.forget()
        self._handle = None
        self._recent = []
        self._plans.clear()
        self._used.clear()

    def __del__(self) -> None:
        short: quick.Quick | None = getattr(self, "_quick", None)
        if short is not None:
            short.forget()  # what it remembers keeps the model open

    def __enter__(self) -> Module:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        inputs, outputs = (
            ", ".join(f"{p.name}: {p}" for p in group) for group in (self.inputs, self.outputs)
        )
        return f"<graphc module {self.name}({inputs}) -> {outputs}>"

    def _find_quick(self, handle: capi.Handle) -> quick.Quick | None:
        weak = weakref.ref(self)

        def slow(*args: Any, **inputs: Any) -> dict[str, Array]:
            module = weak()
            if module is None:
                raise ModuleClosedError("the module was closed")
            return Module.__call__(module, *args, **inputs)

        outputs = [p.name for p in self.outputs]
        return quick.find(handle, slow, self._names, self._in_dtypes, outputs)

    def _make_handle(
        self, library: Path, weights: Path, interface: str, threads: int, debug: bool
    ) -> capi.Handle | None:
        """The open model; None for one that opens later, or on other machines only."""
        try:
            return capi.Handle(str(library), str(weights), interface, threads, debug)
        except ModuleTargetError as error:
            if not self._elsewhere:
                raise
            self._unfit = error
            return None

    def _open_handle(self) -> capi.Handle:
        handle = self._handle
        if handle is None and self._unfit is not None:
            raise self._unfit
        if handle is None:
            raise ModuleClosedError(f"the module {self.name!r} was closed")
        return handle

    def _gather(self, args: tuple[object, ...], inputs: Mapping[str, object]) -> list[Array]:
        """The inputs in order, as contiguous arrays of the right dtype."""
        if args or len(inputs) != len(self._names):
            inputs = self._by_name(args, inputs)
        arrays = []
        for name, dtype, port in self._positions:
            try:
                value = inputs[name]
            except KeyError:
                value = self._by_name(args, inputs)[name]
            if (
                type(value) is not np.ndarray
                or value.dtype != dtype
                or not value.flags.c_contiguous
                or (port.state and not value.flags.writeable)
            ):
                value = as_input(value, port, dtype)
            arrays.append(value)
        return arrays

    def _by_name(self, args: tuple[object, ...], inputs: Mapping[str, object]) -> dict[str, object]:
        """Inputs by name, complete. Raises ModuleInputError, with the nearest name for unknown
        ones.
        """
        if len(args) > len(self._names):
            raise ModuleInputError(
                f"`{self.name}` has {len(self._names)} inputs, {len(args)} were given"
            )
        given = dict(zip(self._names, args, strict=False))
        for name, value in inputs.items():
            if name in given:
                raise ModuleInputError(f"input `{name}` was given by position and by name")
            if name not in self._names:
                near = difflib.get_close_matches(name, self._names, n=1)
                hint = f"did you mean `{near[0]}`?" if near else f"it has: {self._listing()}"
                raise ModuleInputError(f"`{self.name}` has no input `{name}`; {hint}")
            given[name] = value
        if missing := [f"`{name}`: {p}" for name, _, p in self._positions if name not in given]:
            noun = "input is" if len(missing) == 1 else "inputs are"
            raise ModuleInputError(f"{noun} missing: {', '.join(missing)}")
        return given

    def _listing(self) -> str:
        return ", ".join(f"`{name}`" for name in self._names) or "none"

    def _plan(self, handle: capi.Handle, arrays: list[Array]) -> Plan:
        key = tuple([a.shape for a in arrays])
        plan = self._plans.get(key)
        if plan is None:
            plan = self._make_plan(handle, key)
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        if self._quick is not None and plan not in self._recent:
            self._recent = [*self._recent[1 - quick.PLANS :], plan]
            self._remember(self._quick, handle, plan)
        return plan

    def _make_plan(self, handle: capi.Handle, shapes: tuple[tuple[int, ...], ...]) -> Plan:
        structs = []
        for code, shape in zip(self._codes, shapes, strict=True):
            struct = capi.Tensor(dtype=code, rank=len(shape))
            if len(shape) <= capi.MAX_RANK:  # else the runtime reports the rank and reads no shape
                struct.shape[: len(shape)] = shape
            structs.append(struct)
        inputs = (capi.Tensor * len(structs))(*structs)
        outputs = (capi.Tensor * len(self.outputs))()
        handle.output_shapes(inputs, outputs)
        makers = [
            Maker(port.name, tuple(struct.shape[: struct.rank]), dtype, self._used)
            for port, struct, dtype in zip(self.outputs, outputs, self._out_dtypes, strict=True)
        ]
        return Plan(structs, makers)

    def _remember(self, short: quick.Quick, handle: capi.Handle, plan: Plan) -> None:
        frame = Frame(handle, plan)
        dims = handle.dim_sizes(frame.inputs, [d.name for d in self.dims])
        work = [
            [expr.evaluate(e, dims) for e in (k.flops, k.bytes)] for k in self._manifest.kernels
        ]
        brief = all(sum(column) <= _BRIEF for column in zip(*work, strict=True))
        refills = [m.several for m in plan.makers]
        short.remember(handle, frame.inputs, frame.outputs, refills, brief)
        if self._handle is None:  # another thread has closed it meanwhile
            short.forget()

    def _point(
        self, frame: Frame, plan: Plan, arrays: list[Array], out: Mapping[str, Array] | None
    ) -> dict[str, Array]:
        """Points the frame at inputs and outputs, and returns the outputs."""
        for struct, array in zip(frame.ins, arrays, strict=True):
            struct.data = address(array)
        results: dict[str, Array] = {}
        for struct, maker in zip(frame.outs, plan.makers, strict=True):
            name = maker.name
            if out is not None and name in out:
                array = check_output(out[name], name, maker.shape, maker.dtype)
                struct.data = address(array)
            else:
                array = maker.make()
                struct.data = address(array)
            results[name] = array
        if out is not None and (unknown := [n for n in out if n not in results]):
            raise ModuleInputError(f"`{self.name}` has no output `{unknown[0]}` to write to out=")
        return results

    def _execute(self, arrays: list[Array], out: Mapping[str, Array] | None) -> dict[str, Array]:
        handle = self._open_handle()  # this reference keeps the model open until the call is over
        plan = self._plan(handle, arrays)
        try:
            frame = plan.free.pop()
        except IndexError:
            frame = Frame(handle, plan)
        results = self._point(frame, plan, arrays, out)
        status = handle.run(*frame.arguments)
        plan.free.append(frame)
        if status:
            handle.check(status)
        return results
