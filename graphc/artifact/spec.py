"""What lowering hands over to make a module: plain, frozen data about a compiled model.

The contract with the object code. The objects together export one C function

    int32_t graphc_main(const void *in0, ..., const void *weights, void *arena, void *out0, ...,
                        int64_t dim0, ..., int64_t *fault, uint64_t *clock);

with inputs, outputs and dims in the order of `ModuleSpec`, and return 0.

- Inputs and outputs are dense and row major, aligned to their element and no more; no output
  and no state overlaps anything. Inputs are only read, but for those that are state.
- `weights` and `arena` are 64-byte aligned. What the arena holds at the start is arbitrary: zeroed
  halos must be zeroed.
- `fault` points to four zeros. A kernel that meets an index out of range clamps it and stores
  {fault id + 1, the index, its position, the limit}; the call then fails with that fault's message.
- `clock` is NULL, or has room for one cycle count at the start and one after each kernel; the program hands it to the
  runtime's `graphc_tick(clock, i)`.
- Parallel loops go through TVM's `__TVMBackendParallelLaunch`, which the runtime defines, and
  `graphc_tasks()` tells how many tasks it makes of one. Results must not depend on the number of
  tasks. Barriers inside a loop do not exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from graphc.artifact import expr
from graphc.artifact.errors import ModuleSpecError
from graphc.artifact.features import CPUID
from graphc.ir.dim import Dim, DimLike, Symbol, names_of

MAX_RANK = 8
"""Most axes of an input or output (GRAPHC_MAX_RANK of the C interface)."""

MAX_PORTS = 4096
"""Most inputs, outputs or dims of a module: the runtime keeps them on the stack."""

DTYPES = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool")
"""Element types, in the order of `graphc_dtype` in the C interface."""


@dataclass(frozen=True)
class Port:
    """An input or output: its name, dtype (`"f32"`, as in .nn files) and shape.

    An input that is `state` is also written: after the call its buffer holds the next value.
    """

    name: str
    dtype: str
    shape: tuple[DimLike, ...]
    state: bool = False

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class DimSpec:
    """A named dim with inclusive bounds; `high=None` is unbounded."""

    name: str
    low: int = 1
    high: int | None = None


@dataclass(frozen=True, eq=False)
class WeightSpec:
    """A tensor of the weights file.

    Attributes:
        name: its key in weights.safetensors.
        array: any dtype safetensors knows; kernels see these bytes.
        offset: bytes from the weights base, a multiple of 64.
    """

    name: str
    array: npt.NDArray[Any]
    offset: int


@dataclass(frozen=True)
class KernelInfo:
    """One kernel call, in the order of execution.

    Attributes:
        name: of the compiled function.
        label: what it computes, for people: `conv1 + tanh`.
        source: where that was written, `lenet.nn:5:17`, or empty.
        op: its root operation.
        flops, bytes: floating point operations, and bytes read and written, of one call.
    """

    name: str
    label: str = ""
    source: str = ""
    op: str = ""
    flops: DimLike = 0
    bytes: DimLike = 0


@dataclass(frozen=True)
class OpSource:
    """Where an operation of the graph came from: node id, op, block path, place in the source, and
    its kernel.
    """

    node: str
    op: str
    scope: str = ""
    source: str = ""
    kernel: str = ""


@dataclass(frozen=True)
class FaultInfo:
    """A fault that kernels may report: a message with `{value}`, `{position}` and `{limit}` where
    they go.
    """

    message: str


@dataclass(frozen=True, eq=False)
class ModuleSpec:
    """Everything about a module except its object code. Construction checks it (ModuleSpecError).

    Attributes:
        name: the model's name.
        inputs, outputs: in the order in which `graphc_main` takes them.
        dims: every named dim; each must be determined by the shapes of the inputs.
        weights: tensors, by ascending offset, not overlapping.
        initial: for inputs that are state, by name, the weight that holds what they start as; others start as zeros.
        arena_bytes: scratch memory of one call.
        kernels: in the order in which `graphc_main` calls them.
        faults: by id.
        target: what the objects were compiled for, such as `x86-64-v4`.
        precision: what products are computed in: `f32`, `bf16` or `high`.
        note: why it is not what was asked for, if so.
        cpu_features: features the objects need, named as in `/proc/cpuinfo`.
        graph_text: the printed graph.
        ops: the op-to-source table.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dims: tuple[DimSpec, ...] = ()
    weights: tuple[WeightSpec, ...] = ()
    initial: Mapping[str, str] = field(default_factory=dict)
    arena_bytes: DimLike = 0
    kernels: tuple[KernelInfo, ...] = ()
    faults: tuple[FaultInfo, ...] = ()
    target: str = "x86-64"
    precision: str = "f32"
    note: str = ""
    cpu_features: tuple[str, ...] = ()
    graph_text: str = ""
    ops: tuple[OpSource, ...] = ()
    steps: tuple[BindingStep, ...] = field(init=False)

    def __post_init__(self) -> None:
        _check_names("dim", (d.name for d in self.dims))
        for kind, ports in (("input", self.inputs), ("output", self.outputs)):
            _check_names(kind, (p.name for p in ports))
            for port in ports:
                _check_port(kind, port)
        known = {d.name for d in self.dims}
        sizes: list[DimLike] = [d for p in (*self.inputs, *self.outputs) for d in p.shape]
        sizes += [self.arena_bytes, *(k.flops for k in self.kernels)]
        sizes += [k.bytes for k in self.kernels]
        for size in sizes:
            if unknown := set(names_of(size)) - known:
                raise ModuleSpecError(
                    f"size `{size}` uses unknown dims: {', '.join(sorted(unknown))}"
                )
            size_expr = expr.from_dim(size)
            if expr.depth(size_expr) > expr.MAX_DEPTH or expr.stack(size_expr) > expr.MAX_STACK:
                raise ModuleSpecError(f"size `{size}` has too many terms")
            if expr.largest(size_expr) >= 1 << 63:
                raise ModuleSpecError(f"size `{size}` does not fit into 64 bits")
        for dim in self.dims:
            if not 0 <= dim.low <= (dim.low if dim.high is None else dim.high) < 1 << 63:
                raise ModuleSpecError(f"dim `{dim.name}` has bounds {dim.low} to {dim.high}")
        for feature in self.cpu_features:
            if feature not in CPUID:
                raise ModuleSpecError(f"CPU feature {feature!r} cannot be checked at run time")
        _check_weights(self.weights)
        _check_initial(self)
        object.__setattr__(self, "steps", binding_steps(self.inputs, self.dims))


@dataclass(frozen=True)
class BindingStep:
    """One check of an input axis: with `dim`, `size = coefficient * dim + rest` binds it; else
    `size = rest`.
    """

    input: int
    axis: int
    dim: str | None
    coefficient: DimLike
    rest: DimLike


def binding_steps(inputs: tuple[Port, ...], dims: tuple[DimSpec, ...]) -> tuple[BindingStep, ...]:
    """The order in which axes bind dims and are checked: each step uses only what came before.

    Axes that bind come as early as they can, plain names first, so that a message names the obvious
    place. Raises ModuleSpecError for a dim that no input determines.
    """
    todo = [(i, a, d) for i, port in enumerate(inputs) for a, d in enumerate(port.shape)]
    todo.sort(key=lambda item: not (isinstance(item[2], Dim) and str(item[2]) == item[2].names[0]))
    bound: set[str] = set()
    steps: list[BindingStep] = []
    while todo:
        left = []
        for i, axis, dim in todo:
            unbound = set(names_of(dim)) - bound
            if not unbound:
                steps.append(BindingStep(i, axis, None, 0, dim))
            elif len(unbound) == 1 and (parts := linear(dim, name := unbound.pop())):
                steps.append(BindingStep(i, axis, name, *parts))
                bound.add(name)
            else:
                left.append((i, axis, dim))
        if len(left) == len(todo):
            break
        todo = left
    if missing := [d.name for d in dims if d.name not in bound]:
        raise ModuleSpecError(
            f"dim `{missing[0]}` cannot be found from the shapes of the inputs: give an input an "
            f"axis that is `{missing[0]}` itself, or fix it with --dim {missing[0]}=..."
        )
    return tuple(steps)


def linear(dim: DimLike, name: str) -> tuple[DimLike, DimLike] | None:
    """(a, b) with `dim == a * name + b` and neither mentioning `name`; None when there are none."""
    if isinstance(dim, int):
        return None
    a: DimLike = 0
    b: DimLike = 0
    for mono, coefficient in dim.terms:
        power = sum(p for atom, p in mono if atom == Symbol(name))
        rest = tuple((atom, p) for atom, p in mono if atom != Symbol(name))
        term: DimLike = Dim(((rest, coefficient),)) if rest else coefficient
        if power > 1 or name in names_of(term):
            return None
        if power:
            a = a + term
        else:
            b = b + term
    return (a, b)


def _check_names(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not re.fullmatch(r"\w[\w.]*", name):
            raise ModuleSpecError(
                f"{name!r} is no name for {kind}: letters, digits, `_` and `.` only"
            )
        if name in seen:
            raise ModuleSpecError(f"two {kind}s are called `{name}`")
        seen.add(name)
    if len(seen) > MAX_PORTS:
        raise ModuleSpecError(f"{len(seen)} {kind}s are too many: a module has at most {MAX_PORTS}")


def _check_port(kind: str, port: Port) -> None:
    if port.dtype not in DTYPES:
        raise ModuleSpecError(
            f"{kind} `{port.name}` has dtype {port.dtype!r}; known: {', '.join(DTYPES)}"
        )
    if len(port.shape) > MAX_RANK:
        raise ModuleSpecError(
            f"{kind} `{port.name}` is {port}: it has {len(port.shape)} axes, "
            f"a module's {kind}s at most {MAX_RANK}"
        )
    if any(isinstance(d, int) and d < 0 for d in port.shape):
        raise ModuleSpecError(f"{kind} `{port.name}` is {port}: a size is negative")


def with_initial(spec: ModuleSpec, state: Mapping[str, npt.NDArray[Any]]) -> ModuleSpec:
    """The spec of a module whose state, by name, starts as these arrays; zeros are not stored."""
    added = initial_weights(spec.weights, state)
    names = {w.name.removeprefix(_INITIAL): w.name for w in added}
    return replace(spec, weights=(*spec.weights, *added), initial=names)


def initial_weights(
    weights: Sequence[WeightSpec], state: Mapping[str, npt.NDArray[Any]]
) -> tuple[WeightSpec, ...]:
    """What a state begins with, where that is not zero, as weights after `weights`."""
    end = max((w.offset + int(np.asarray(w.array).nbytes) for w in weights), default=0)
    added = []
    for name, array in state.items():
        if array.any():
            offset = -(-end // 64) * 64
            added.append(WeightSpec(_INITIAL + name, array, offset))
            end = offset + array.nbytes
    return tuple(added)


_INITIAL = "initial/"


def _check_initial(spec: ModuleSpec) -> None:
    ports = {p.name: p for p in spec.inputs if p.state}
    weights = {w.name: w for w in spec.weights}
    for name, weight in spec.initial.items():
        if name not in ports or weight not in weights:
            raise ModuleSpecError(
                f"`{name}` starts as `{weight}`: no such state, or no such weight"
            )
        shape = tuple(np.asarray(weights[weight].array).shape)
        if shape != ports[name].shape:
            raise ModuleSpecError(f"state `{name}` is {ports[name]} and starts as {list(shape)}")


def _check_weights(weights: tuple[WeightSpec, ...]) -> None:
    end = 0
    names: set[str] = set()
    for w in weights:
        if w.name in names or w.name == "__metadata__":
            raise ModuleSpecError(f"two weights are called {w.name!r}, or the name is reserved")
        if w.offset % 64 or w.offset < end:
            raise ModuleSpecError(
                f"weight `{w.name}` lies at {w.offset}: offsets are multiples of 64, ascend, "
                "and do not overlap"
            )
        names.add(w.name)
        end = w.offset + int(np.asarray(w.array).nbytes)
