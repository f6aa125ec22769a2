"""The C source of a GPU module's host side: `program.c` queues the launches of one call, and holds the machine code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc.artifact.codegen import c_string, int64_c, size_c
from graphc.artifact.cuda.target import CudaTarget
from graphc.artifact.device import Address, Argument, DeviceProgram, Launch, Loop, Step, TensorMap
from graphc.artifact.header import identifiers
from graphc.artifact.spec import DTYPES, ModuleSpec
from graphc.ir.dim import DimLike

CUBIN, PTX = "kernels.cubin", "kernels.ptx"
"""Files that program.c takes in when it is compiled."""

_HEAD = """\
/* {name!a}: the launches of one call, and the machine code of its kernels. Generated. */
#include "cuda_internal.h"

#define INCLUDE(name, file)                                                  \\
    __asm__(".pushsection .rodata\\n.balign 64\\n.hidden " #name "\\n.globl " #name "\\n" #name ":\\n" \\
            ".incbin \\"" file "\\"\\n.popsection\\n");                          \\
    extern const char name[] __attribute__((visibility("hidden")))

INCLUDE(graphc_cubin, "{cubin}");
{ptx}
/* Rounds down, as sizes do everywhere. */
static inline int64_t quotient(int64_t a, int64_t b) {{ return a / b - (a % b != 0 && (a < 0) != (b < 0)); }}

static int launch_all(const graphc_work *w) {{
    int status;
    (void)quotient;
"""

_TAIL = """\
    return GRAPHC_OK;
}}

const graphc_program graphc_cuda_program = {{
    .arch = {arch},
    .major = {major},
    .minor = {minor},
    .specific = {specific},
    .cubin = graphc_cubin,
    .ptx = {ptx},
    .kernels = (const graphc_kernel_entry[]){{{kernels}}},
    .n_kernels = {n_kernels},
    .arena_bytes = {arena},
    .launch = launch_all,
}};
"""


def program_c(program: DeviceProgram, spec: ModuleSpec, target: CudaTarget, ptx: bool) -> str:
    """The text of program.c. With `ptx`, the file of that name is taken in beside the machine code."""
    shared: dict[str, int] = {}
    for launch in program.launches:
        shared[launch.kernel] = max(shared.get(launch.kernel, 0), launch.shared_bytes)
    dims = [d.name for d in spec.dims]
    variables = {n: f"dim_{word}" for n, word in zip(dims, identifiers(dims), strict=True)}
    writer = _Writer(spec, list(shared))
    lines = [f"    const int64_t {v} = w->dims[{i}];" for i, v in enumerate(variables.values())]
    lines += [f"    (void){v};" for v in variables.values()]
    lines.append("    if ((status = graphc_mark(w, 0))) return status;")
    for i, (call, info) in enumerate(zip(program.calls, spec.kernels, strict=True)):
        lines.append(f"    /* {i}: {_comment(info.label or info.name)} */")
        lines += writer.steps(call, variables, "    ")
        lines.append(f"    if ((status = graphc_mark(w, {i + 1}))) return status;")
    major, minor = target.capability
    entries = ", ".join(f"{{{c_string(k)}, {n}}}" for k, n in shared.items())
    head = _HEAD.format(
        name=spec.name, cubin=CUBIN, ptx=f'INCLUDE(graphc_ptx, "{PTX}");\n' if ptx else ""
    )
    tail = _TAIL.format(
        arch=c_string(target.arch),
        major=major,
        minor=minor,
        specific=int(target.specific),
        ptx="graphc_ptx" if ptx else "NULL",
        kernels=entries or "{0}",
        n_kernels=len(shared),
        arena=size_c(spec.arena_bytes, dims),
    )
    return head + "\n".join(lines) + "\n" + tail


class _Writer:
    """Steps as C statements."""

    def __init__(self, spec: ModuleSpec, kernels: list[str]) -> None:
        self.weights = [w.offset for w in spec.weights]
        self.kernels = kernels

    def steps(self, steps: Sequence[Step], dims: Mapping[str, str], indent: str) -> list[str]:
        lines: list[str] = []
        for step in steps:
            if isinstance(step, Loop):
                name = f"loop_{len(indent) // 4}_{identifiers([step.variable])[0]}"
                head = f"for (int64_t {name} = 0; {name} < {_c(step.length, dims)}; {name}++) {{"
                inside = self.steps(step.body, {**dims, step.variable: name}, indent + "    ")
                lines += [indent + head, *inside, indent + "}"]
            else:
                lines += [indent + line for line in self.launch(step, dims)]
        return lines

    def launch(self, launch: Launch, dims: Mapping[str, str]) -> list[str]:
        lines = ["{"]
        for i, argument in enumerate(launch.arguments):
            lines += ["    " + line for line in self.argument(i, argument, dims)]
        places = ", ".join(f"&a{i}" for i in range(len(launch.arguments)))
        grid = ", ".join(_c(g, dims) for g in launch.grid)
        block = ", ".join(map(str, launch.block))
        number = self.kernels.index(launch.kernel)
        call = f"graphc_launch(w, {number}, grid, block, {launch.shared_bytes}, arguments)"
        return [
            *lines,
            f"    void *arguments[] = {{{places or 'NULL'}}};",
            f"    const int64_t grid[3] = {{{grid}}};",
            f"    const unsigned block[3] = {{{block}}};",
            f"    if ((status = {call})) return status; /* {_comment(launch.kernel)} */",
            "}",
        ]

    def argument(self, i: int, argument: Argument, dims: Mapping[str, str]) -> list[str]:
        if isinstance(argument, Address):
            return [f"CUdeviceptr a{i} = {self.address(argument, dims)};"]
        if isinstance(argument, TensorMap):
            return self.tensor_map(i, argument, dims)
        return [f"int64_t a{i} = {_c(argument, dims)};"]

    def address(self, address: Address, dims: Mapping[str, str]) -> str:
        if address.space == "weight":
            base = f"w->weights + {self.weights[address.index]}u"
        elif address.space in ("input", "output"):
            base = f"w->{address.space}s[{address.index}]"
        else:
            base = f"w->{address.space}"
        if address.offset == 0:
            return base
        return f"{base} + (CUdeviceptr)({_c(address.offset, dims)})"

    def tensor_map(self, i: int, m: TensorMap, dims: Mapping[str, str]) -> list[str]:
        shape, strides = (", ".join(_c(d, dims) for d in part) for part in (m.shape, m.strides))
        box = ", ".join(map(str, m.box))
        call = (
            f"graphc_tensor_map(&a{i}, {self.address(m.base, dims)}, {DTYPES.index(m.dtype)}, "
            f"{len(m.shape)}, shape{i}, strides{i}, box{i}, {m.swizzle})"
        )
        return [
            f"CUtensorMap a{i};",
            f"const int64_t shape{i}[] = {{{shape}}}, strides{i}[] = {{{strides or '0'}}};",
            f"const uint32_t box{i}[] = {{{box}}};",
            f"if ((status = {call})) return status;",
        ]


def _c(dim: DimLike, variables: Mapping[str, str]) -> str:
    """A size as a C expression of int64_t."""
    if isinstance(dim, int):
        return int64_c(dim)
    return dim.fold(
        lambda name: variables[name],
        int64_c,
        lambda a, b: f"({a} + {b})",
        lambda a, b: f"{a} * {b}",
        lambda a, b: f"quotient({a}, {b})",
    )


def _comment(text: str) -> str:
    return text.replace("*/", "* /")
