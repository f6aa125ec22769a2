"""What a C programmer reads: `module.h`, the interface with this model's inputs and outputs, and
`example.c`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from graphc.artifact.codegen import c_string
from graphc.artifact.cuda.target import is_cuda
from graphc.artifact.spec import ModuleSpec, Port
from graphc.ir.dim import DimLike

NATIVE = Path(__file__).parent / "native"
"""The C sources that ship with graphc."""

BUILD_COMMAND = "cc -O2 example.c module.so -Wl,-rpath,'$ORIGIN' -o example"
"""Builds example.c in the module's folder."""


def identifiers(names: Iterable[str]) -> list[str]:
    """A distinct C identifier part for each name: ASCII letters, digits and `_`."""
    out: list[str] = []
    for name in names:
        base = word = re.sub(r"[^0-9A-Za-z]", "_", name)
        number = 2
        while word in out:
            word, number = f"{base}_{number}", number + 1
        out.append(word)
    return out


def module_h(spec: ModuleSpec) -> str:
    """The text of module.h."""
    model = identifiers([spec.name])[0].upper()
    lines = [
        f"/* {spec.name}: a module compiled by graphc for {spec.target.replace('*/', '')}.",
        " *",
        *_table("inputs", spec.inputs),
        *_table("outputs", spec.outputs),
    ]
    if spec.dims:
        lines.append(" * dims, found from the shapes of the inputs at every call")
        for dim in spec.dims:
            high = "any" if dim.high is None else str(dim.high)
            lines.append(f" *   {dim.name:<12} {dim.low} to {high}")
    lines += [
        " *",
        " * example.c uses it; in this folder:",
        f" *     {BUILD_COMMAND} && ./example",
        " * Link any program so, or open module.so with dlopen. This file is C99 and C++.",
        " */",
    ]
    constants = [
        f"#ifndef GRAPHC_MODULE_{model}_H",
        f"#define GRAPHC_MODULE_{model}_H",
        "",
        f"/* Positions in the lists of tensors that graphc_run takes for {spec.name}. */",
    ]
    for kind, ports in (("INPUT", spec.inputs), ("OUTPUT", spec.outputs)):
        words = identifiers(p.name.upper() for p in ports)
        items = [f"    {model}_{kind}_{word} = {i}," for i, word in enumerate(words)]
        items.append(f"    {model}_{kind}S = {len(ports)}")
        constants += ["enum {", *items, "};"]
    api = (NATIVE / "api.h").read_text(encoding="utf-8")
    if is_cuda(spec.target):
        api += "\n" + (NATIVE / "cuda_api.h").read_text(encoding="utf-8")
    return "\n".join([*lines, "", api, *constants, "", f"#endif /* GRAPHC_MODULE_{model}_H */", ""])


def _table(title: str, ports: tuple[Port, ...]) -> list[str]:
    return [f" * {title}", *(f" *   {i} {p.name:<12} {p}" for i, p in enumerate(ports))]


def example_c(spec: ModuleSpec) -> str:
    """The text of example.c: runs the model once on files or a fixed pattern, and prints what comes
    out.
    """
    names = [d.name for d in spec.dims]
    variables = dict(zip(names, identifiers(names), strict=True))
    usage = [f"[{d.name}={max(d.low, 1)}]" for d in spec.dims]
    usage += [f"[{p.name}={p.name}.bin]" for p in (*spec.inputs, *spec.outputs)]
    usage += ["[steps=1]"] * any(p.state for p in spec.inputs)
    dims = [
        f"    const int64_t dim_{variables[d.name]} = "
        f"number(argc, argv, {c_string(d.name)}, {max(d.low, 1)});"
        for d in spec.dims
    ]
    inputs = [
        f"        {{.name = {c_string(p.name)}, .dtype = GRAPHC_{p.dtype.upper()}, "
        f".rank = {len(p.shape)}, .shape = {{{shape or '0'}}}}},"
        for p in spec.inputs
        for shape in [", ".join(_c(d, variables) for d in p.shape)]
    ]
    body = (NATIVE / "example.c").read_text(encoding="utf-8")
    replacements = {
        "@MODEL@": spec.name,
        "@COMMAND@": BUILD_COMMAND,
        "@USAGE@": " ".join(usage),
        "@N_INPUTS@": str(len(spec.inputs)),
        "@N_OUTPUTS@": str(len(spec.outputs)),
        "    /* @DIMS@ */": "\n".join(dims) if dims else "    /* This model has no named dims. */",
        "        /* @INPUTS@ */": "\n".join(inputs) if inputs else "        {0},",
    }
    for mark, text in replacements.items():
        body = body.replace(mark, text)
    return body


def _c(dim: DimLike, variables: dict[str, str]) -> str:
    """A size as C text; sizes are not negative, so C's division is the floor."""
    if isinstance(dim, int):
        return str(dim)
    return dim.fold(
        lambda name: f"dim_{variables[name]}",
        str,
        lambda a, b: f"{a} + {b}",
        lambda a, b: f"({a}) * ({b})",
        lambda a, b: f"({a}) / ({b})",
    )
