"""`graphc profile`: every kernel of a module against what the machine can do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

import graphc
from graphc.artifact import Module, ModuleError
from graphc.artifact.cuda.module import CudaModule
from graphc.artifact.peaks import Peaks, measure_peaks
from graphc.cli import arrays, terminal
from graphc.cli.command import graphc_command
from graphc.cli.feeds import made_up, runs_on
from graphc.cli.options import json_option, measured_module
from graphc.cli.terminal import duration

WARM_UP = 3
"""Calls before the profiled ones."""


class Kernel(NamedTuple):
    """One kernel call: where from, the median of its times, and its work."""

    label: str
    source: str
    op: str
    seconds: float
    flops: int
    bytes: int

    @property
    def gflops(self) -> float:
        """10^9 operations a second."""
        return self.flops / self.seconds / 1e9 if self.seconds else 0.0

    @property
    def gbytes(self) -> float:
        """10^9 bytes of operands and results a second; from caches they can be more than memory gives."""
        return self.bytes / self.seconds / 1e9 if self.seconds else 0.0


@graphc_command("graphc profile resnet50.module --dim N=1 --threads 2")
@measured_module
@click.option(
    "--calls",
    type=click.IntRange(1, 100_000),
    default=15,
    show_default=True,
    help="Profiled calls; each kernel counts with its median.",
)
@click.option(
    "--sort", is_flag=True, help="Slowest first, instead of in the order in which they run."
)
@json_option
def command(
    module: Path,
    inputs: tuple[str, ...],
    dims: dict[str, int],
    threads: int | None,
    calls: int,
    sort: bool,
    as_json: bool,
) -> None:
    """Time every kernel of a module, with its source line, beside the machine's measured peaks.

    A kernel near neither peak is where there is something to gain.
    """
    with graphc.open(module, threads=threads) as opened:
        given = arrays.read_inputs(inputs, [i.name for i in opened.inputs])
        feeds = made_up(opened, dims, given)
        with terminal.progress(not as_json) as stage:
            stage("profiling kernels")
            kernels = _measured(opened, feeds, calls)
            stage("measuring the machine")
            peaks, missing = _peaks(opened)
        name, used, where = opened.name, opened.threads, runs_on(opened)
    if sort:
        kernels = sorted(kernels, key=lambda k: -k.seconds)
    if as_json:
        terminal.print_json(_json(module, used, kernels, peaks))
        return
    terminal.console().print(_report(name, where, kernels, peaks))
    if missing:
        click.echo(f"no peaks: {missing}", err=True)


def _peaks(module: Module) -> tuple[Peaks | None, str]:
    """What the machine can do, or why that is not known."""
    if isinstance(module, CudaModule):
        return None, "those of a GPU are not measured"
    try:
        return measure_peaks(module.threads), ""
    except ModuleError as error:
        return None, str(error)


def _measured(module: Module, feeds: dict[str, arrays.Array], calls: int) -> list[Kernel]:
    for _ in range(WARM_UP):
        module.run(feeds)
    profiles = [module.profile(**feeds).kernels for _ in range(calls)]
    return [
        Kernel(
            same[0].label or same[0].name,
            same[0].source,
            same[0].op,
            float(np.median([k.seconds for k in same])),
            same[0].flops,
            same[0].bytes,
        )
        for same in zip(*profiles, strict=True)
    ]


def _json(
    module: Path, threads: int, kernels: Sequence[Kernel], peaks: Peaks | None
) -> dict[str, Any]:
    return {
        "module": str(module),
        "threads": threads,
        "peaks": None if peaks is None else {"gflops": peaks.gflops, "gbytes": peaks.gbytes},
        "seconds": sum(k.seconds for k in kernels),
        "kernels": [
            {**k._asdict(), "gflops": round(k.gflops, 3), "gbytes": round(k.gbytes, 3)}
            for k in kernels
        ],
    }


def _report(name: str, where: str, kernels: Sequence[Kernel], peaks: Peaks | None) -> Group:
    total = sum(k.seconds for k in kernels) or 1e-12
    flops = sum(k.flops for k in kernels)
    head = Table.grid(padding=(0, 2))
    rows = [
        ("Module", f"{name}, {where}, {len(kernels)} kernels"),
        ("Time", f"{duration(total)}, {flops / total / 1e9:.3g} GFLOP/s"),
    ]
    if peaks is not None:
        rows.append(
            ("Machine", f"{peaks.gflops:.4g} GFLOP/s (f32), {peaks.gbytes:.3g} GB/s from memory")
        )
    for label, value in rows:
        head.add_row(Text(label, style="bold"), Text(value))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Kernel")
    table.add_column("Source", style="dim")
    for column in ("Time", "Share", "GFLOP/s", "of peak", "GB/s", "of peak"):
        table.add_column(column, justify="right")
    for k in kernels:
        table.add_row(
            Text(k.label, no_wrap=True, overflow="ellipsis"),
            Text(k.source, no_wrap=True),
            duration(k.seconds),
            f"{100 * k.seconds / total:.1f} %",
            f"{k.gflops:.3g}" if k.flops else "",
            f"{100 * k.gflops / peaks.gflops:.0f} %" if peaks and k.flops else "",
            f"{k.gbytes:.3g}",
            f"{100 * k.gbytes / peaks.gbytes:.0f} %" if peaks else "",
        )
    return Group(head, table)
