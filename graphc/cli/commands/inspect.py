"""`graphc inspect`: what a compiled module is, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from graphc.artifact import ModuleFileError, expr, manifest
from graphc.artifact.cuda.target import CudaTarget, is_cuda, parse_cuda_target
from graphc.cli import terminal
from graphc.cli.command import WRONG, graphc_command
from graphc.cli.options import json_option
from graphc.diagram import text


@graphc_command("graphc inspect lenet.module")
@click.argument("module", type=click.Path(path_type=Path))
@click.option("--kernels", is_flag=True, help="List the kernels with their source lines and work.")
@json_option
@click.pass_context
def command(ctx: click.Context, module: Path, kernels: bool, as_json: bool) -> None:
    """Show what a compiled module is: inputs, outputs, target, files; and verify its checksums.

    Nothing of the module is executed. Exit code 1 if a file is missing or altered.
    """
    found = manifest.read_manifest(module)
    problems = _problems(module, found)
    if as_json:
        terminal.print_json(
            {"ok": not problems, "problems": problems, "manifest": dict(found.data)}
        )
    else:
        terminal.console().print(_report(module, found, problems, kernels))
    if problems:
        ctx.exit(WRONG)


def _problems(module: Path, found: manifest.Manifest) -> list[str]:
    problems = []
    for name in found.files:
        try:
            manifest.verify_files(module, found, [name])
        except ModuleFileError as error:
            problems.append(str(error))
    return problems


def _report(module: Path, found: manifest.Manifest, problems: list[str], kernels: bool) -> Group:
    data = found.data
    target = data.get("target", {})
    facts = Table.grid(padding=(0, 2))
    rows: list[tuple[str, str]] = [
        ("Module", f"{found.name}  ({module})"),
        ("Written by", f"graphc {data.get('graphc_version')}, format {data.get('format_version')}"),
        ("Target", f"{target.get('name')} on {target.get('machine')}"),
        ("Precision", _precision(data)),
        _needs(target),
        *(("Input", f"{i.name}: {i}") for i in found.inputs),
        *(("Output", f"{o.name}: {o}") for o in found.outputs),
        *(("Dim", str(d)) for d in found.dims),
        ("Weights", _weights(data)),
        ("Scratch memory", _scratch(found)),
        ("Kernels", str(len(found.kernels))),
    ]
    for name, value in rows:
        facts.add_row(Text(name, style="bold"), Text(value))
    files = Table(box=SIMPLE_HEAD, pad_edge=False)
    files.add_column("File")
    files.add_column("Size", justify="right")
    files.add_column("SHA-256", style="dim")
    for name, entry in found.files.items():
        files.add_row(Text(name), text.size(entry.bytes), Text(entry.sha256[:16]))
    verdict = (
        Text("\n".join(problems), style="red")
        if problems
        else Text("all files verified: sizes and checksums match", style="green")
    )
    parts: list[Any] = [facts, files, verdict]
    if kernels:
        parts.insert(2, _kernels(found))
    return Group(*parts)


def _needs(target: Any) -> tuple[str, str]:
    """What a machine must have to run the module."""
    name = str(target.get("name"))
    if is_cuda(name):
        return "GPU", _gpu(parse_cuda_target(name))
    return "CPU features", " ".join(map(str, target.get("features", []))) or "none beyond the base"


def _gpu(target: CudaTarget) -> str:
    major, minor = target.capability
    if target.specific:
        return f"compute capability {major}.{minor}, and no other"
    return f"compute capability {major}.{minor} or later; driver 580 or later"


def _precision(data: Any) -> str:
    precision = data.get("precision", {})
    name, note = precision.get("name", "f32"), precision.get("note")
    return f"{name}  ({note})" if note else str(name)


def _weights(data: Any) -> str:
    weights = data.get("weights", {})
    return f"{weights.get('tensors', 0)} tensors, {text.size(int(weights.get('bytes', 0)))}"


def _smallest(found: manifest.Manifest) -> dict[str, int]:
    return {d.name: d.low for d in found.dims}


def _where(found: manifest.Manifest) -> str:
    return ", ".join(f"{d.name} = {d.low}" for d in found.dims)


def _scratch(found: manifest.Manifest) -> str:
    size = expr.from_json(found.data.get("arena_bytes", 0))
    shown = text.size(expr.evaluate(size, _smallest(found)))
    return shown if isinstance(size, int) else f"{shown} for {_where(found)}"


def _kernels(found: manifest.Manifest) -> Table:
    dims = _smallest(found)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Kernel")
    table.add_column("Source", style="dim")
    table.add_column("FLOP", justify="right")
    table.add_column("Bytes", justify="right")
    for kernel in found.kernels:
        table.add_row(
            Text(kernel.label or kernel.name),
            Text(kernel.source),
            text.count(expr.evaluate(kernel.flops, dims)),
            text.size(expr.evaluate(kernel.bytes, dims)),
        )
    return table
