"""The C source of one module: `module.c`, tables that the runtime reads, and for CPUs the call into `graphc_main`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence

from graphc import __version__
from graphc.artifact import expr
from graphc.artifact.features import CPUID
from graphc.artifact.safetensors_io import WeightsInfo
from graphc.artifact.spec import DTYPES, MAX_RANK, ModuleSpec, Port
from graphc.ir.dim import DimLike


def c_string(text: str) -> str:
    """A C string literal for any text: UTF-8, everything unusual as octal escapes."""
    plain = "".join(
        chr(b) if 32 <= b < 127 and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode()
    )
    return f'"{plain}"'


def interface_digest(spec: ModuleSpec) -> str:
    """SHA-256 of names, types, shapes and bounds: module.so and manifest.json both hold it, so that
    they cannot be of two different modules unnoticed.
    """
    ports = [[[p.name, str(p), p.state] for p in group] for group in (spec.inputs, spec.outputs)]
    dims = [[d.name, d.low, d.high] for d in spec.dims]
    text = json.dumps([spec.name, *ports, dims, [k.name for k in spec.kernels]])
    return hashlib.sha256(text.encode()).hexdigest()


def module_c(spec: ModuleSpec, weights: WeightsInfo) -> str:
    """The text of module.c for a CPU: the tables, and the call into `graphc_main`."""
    return tables_c(spec, weights, f"{_prototype(spec)}\n\n{_trampoline(spec)}\n\n", "call")


def tables_c(spec: ModuleSpec, weights: WeightsInfo, before: str = "", call: str = "NULL") -> str:
    """The text of module.c with nothing but the tables, text before them, and the name of the C function to call."""
    dims = [d.name for d in spec.dims]

    def code(size: DimLike) -> str:
        return size_c(size, dims)

    def axes(ports: Sequence[Port]) -> str:
        rows = ("(const graphc_expr[])" + _braces(code(d) for d in p.shape) for p in ports)
        return "(const graphc_expr *const[])" + _braces(rows, lines=True)

    steps = (
        _braces((str(s.input), str(s.axis), dim, code(s.coefficient), code(s.rest)))
        for s in spec.steps
        for dim in [str(dims.index(s.dim)) if s.dim else "-1"]
    )
    features = (
        _braces((c_string(name), *(f"{v:#x}" for v in dataclasses.astuple(CPUID[name]))))
        for name in spec.cpu_features
    )
    dim_rows = (
        f"{{{c_string(d.name)}, {int64_c(d.low)}, {int64_c(-1 if d.high is None else d.high)}}}"
        for d in spec.dims
    )
    kernels = (
        f"{{{c_string(k.name)}, {c_string(k.label)}, {c_string(k.source)}}}" for k in spec.kernels
    )
    faults = (c_string(f.message) for f in spec.faults)
    places = {w.name: w.offset for w in spec.weights}
    initial = [places[spec.initial[p.name]] if p.name in spec.initial else -1 for p in spec.inputs]
    return f"""\
/* {spec.name!a}: tables for the runtime, and the call into the compiled program. Generated. */
#include "internal.h"

{before}const graphc_tables graphc_module_tables = {{
    .info = {{
        .abi_version = GRAPHC_ABI_VERSION,
        .struct_size = sizeof(graphc_info),
        .name = {c_string(spec.name)},
        .graphc_version = {c_string(__version__)},
        .target = {c_string(spec.target)},
        .interface = {c_string(interface_digest(spec))},
        .n_inputs = {len(spec.inputs)},
        .n_outputs = {len(spec.outputs)},
        .n_dims = {len(spec.dims)},
        .n_kernels = {len(spec.kernels)},
        .inputs = (const graphc_port[]){_braces(map(_port, spec.inputs), lines=True)},
        .outputs = (const graphc_port[]){_braces(map(_port, spec.outputs), lines=True)},
        .dims = (const graphc_dim[]){_braces(dim_rows, lines=True)},
        .kernels = (const graphc_kernel[]){_braces(kernels, lines=True)},
    }},
    .output_axes = {axes(spec.outputs)},
    .initial = (const int64_t[]){_braces(map(int64_c, initial))},
    .steps = (const graphc_step[]){_braces(steps, lines=True)},
    .n_steps = {len(spec.steps)},
    .arena_bytes = {code(spec.arena_bytes)},
    .features = (const graphc_cpu_feature[]){_braces(features, lines=True)},
    .n_features = {len(spec.cpu_features)},
    .uses_amx = {int("amx_tile" in spec.cpu_features)},
    .faults = (const char *const[]){_braces(faults, lines=True)},
    .n_faults = {len(spec.faults)},
    .weights_bytes = {weights.size}u,
    .weights_header = {weights.header_size}u,
    .weights_sha256 = {_braces(map(str, weights.sha256))},
    .header_sha256 = {_braces(map(str, weights.header_sha256))},
    .call = {call},
}};
"""


def size_c(size: DimLike, dims: Sequence[str]) -> str:
    """A size as a `graphc_expr`: the program that the runtime evaluates."""
    program = expr.postfix(expr.from_dim(size), dims)
    return "(const int64_t[]){" + ", ".join(int64_c(v) for v in program) + "}"


def _prototype(spec: ModuleSpec) -> str:
    arguments = [
        *("const void *" for _ in spec.inputs),
        "const void *",
        "void *",
        *("void *" for _ in spec.outputs),
        *("int64_t" for _ in spec.dims),
        "int64_t *",
        "uint64_t *",
    ]
    return f"extern int32_t graphc_main({', '.join(arguments)});"


def _trampoline(spec: ModuleSpec) -> str:
    arguments = [
        *(f"inputs[{i}]" for i in range(len(spec.inputs))),
        "weights",
        "arena",
        *(f"outputs[{i}]" for i in range(len(spec.outputs))),
        *(f"dims[{i}]" for i in range(len(spec.dims))),
        "fault",
        "clock",
    ]
    return f"""\
static int32_t call(void *const *inputs, const void *weights, void *arena, void *const *outputs,
                    const int64_t *dims, int64_t *fault, uint64_t *clock) {{
    (void)inputs, (void)outputs, (void)dims;
    return graphc_main({", ".join(arguments)});
}}"""


def _port(port: Port) -> str:
    rank = len(port.shape)
    fixed = [int64_c(d if isinstance(d, int) else -1) for d in port.shape] + ["-1"] * (
        MAX_RANK - rank
    )
    axes = _braces(c_string(str(d)) for d in port.shape)
    dtype = DTYPES.index(port.dtype)
    return (
        f"{{{c_string(port.name)}, {dtype}, {rank}, {_braces(fixed)}, {axes}, {int(port.state)}}}"
    )


def int64_c(value: int) -> str:
    """A 64-bit literal. The smallest has no literal of its own in C."""
    if value == -(2**63):
        return "INT64_MIN"
    return f"INT64_C({value})" if abs(value) > 2**31 - 1 else str(value)


def _braces(items: Iterable[str], *, lines: bool = False) -> str:
    """An initialiser; `{0}` for an empty one, which C11 does not have."""
    texts = list(items)
    if not texts:
        return "{0}"
    return (
        "{\n        " + ",\n        ".join(texts) + "}" if lines else "{" + ", ".join(texts) + "}"
    )
