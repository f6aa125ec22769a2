"""`graphc bench`: how fast a compiled module is, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

import graphc
from graphc.artifact import Module
from graphc.cli import arrays, terminal
from graphc.cli.command import graphc_command
from graphc.cli.feeds import made_up, repeated, runs_on
from graphc.cli.options import json_option, measured_module
from graphc.cli.terminal import duration

SHOWN = 10
"""Kernels in the table."""
PROFILES = 5
"""Profiled calls; each kernel counts with its median."""
WARM_UP = 0.3
"""Seconds of calls before the measured ones."""


@dataclass(frozen=True)
class Measured:
    """Call times in seconds, sorted, and kernels as (label, source, median seconds, FLOPs)."""

    seconds: Sequence[float]
    kernels: Sequence[tuple[str, str, float, int]]

    def at(self, quantile: float) -> float:
        """A quantile of the call times."""
        return float(np.quantile(np.asarray(self.seconds), quantile))

    @property
    def flops(self) -> int:
        """FLOPs of one call."""
        return sum(k[3] for k in self.kernels)


@graphc_command("graphc bench resnet50.module --dim N=1 --threads 1")
@measured_module
@click.option(
    "--seconds",
    type=click.FloatRange(0.01, 3600),
    default=2.0,
    show_default=True,
    help="How long to measure.",
)
@json_option
def command(
    module: Path,
    inputs: tuple[str, ...],
    dims: dict[str, int],
    threads: int | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Time a compiled module: median and spread of a call, GFLOP/s, and the slowest kernels.

    Inputs that are not given as NAME=FILE.npy are made up: normally distributed floats, zeros for the rest.
    """
    with graphc.open(module, threads=threads) as opened:
        given = arrays.read_inputs(inputs, [i.name for i in opened.inputs])
        feeds = made_up(opened, dims, given)
        with terminal.progress() as stage:
            measured = measure(opened, feeds, seconds, stage)
        used, where = opened.threads, runs_on(opened)
        shapes = {name: list(a.shape) for name, a in feeds.items()}
    if as_json:
        terminal.print_json(_json(module, used, shapes, measured))
    else:
        terminal.console().print(_report(opened.name, where, shapes, measured))


def measure(
    module: Module, feeds: dict[str, arrays.Array], seconds: float, stage: Any = lambda name: None
) -> Measured:
    """Calls a module for about `seconds` (three times at least) after warming up, then profiles it."""
    stage("warming up")
    end = time.perf_counter() + min(WARM_UP, seconds)
    call = repeated(module, feeds)
    call()
    while time.perf_counter() < end:
        call()
    stage("measuring")
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    stage("profiling kernels")
    profiles = [module.profile(**feeds).kernels for _ in range(PROFILES)]
    kernels = [
        (
            same[0].label or same[0].name,
            same[0].source,
            float(np.median([k.seconds for k in same])),
            same[0].flops,
        )
        for same in zip(*profiles, strict=True)
    ]
    return Measured(sorted(times), kernels)


def _json(
    module: Path, threads: int, shapes: dict[str, list[int]], measured: Measured
) -> dict[str, Any]:
    median = measured.at(0.5)
    return {
        "module": str(module),
        "threads": threads,
        "inputs": shapes,
        "calls": len(measured.seconds),
        "seconds": {
            "min": measured.at(0),
            "p10": measured.at(0.1),
            "median": median,
            "p90": measured.at(0.9),
            "max": measured.at(1),
        },
        "flops": measured.flops,
        "gflops_per_second": measured.flops / median / 1e9,
        "kernels": [
            {"label": label, "source": source, "seconds": seconds, "flops": flops}
            for label, source, seconds, flops in measured.kernels
        ],
    }


def _report(name: str, where: str, shapes: dict[str, list[int]], measured: Measured) -> Group:
    median = measured.at(0.5)
    what = ", ".join(f"{n} {s}" for n, s in shapes.items())
    spread = f"{duration(measured.at(0.1))} to {duration(measured.at(0.9))} for 80 % of {len(measured.seconds):,} calls"
    head = Table.grid(padding=(0, 2))
    for label, value in (
        ("Module", f"{name} on {what}, {where}"),
        ("Median", duration(median)),
        ("Spread", spread),
        ("Speed", f"{measured.flops / median / 1e9:.3g} GFLOP/s"),
    ):
        head.add_row(Text(label, style="bold"), Text(value))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Slowest kernels")
    table.add_column("Source", style="dim")
    for column in ("Time", "Share", "GFLOP/s"):
        table.add_column(column, justify="right")
    total = sum(k[2] for k in measured.kernels) or 1.0
    slowest = sorted(measured.kernels, key=lambda k: -k[2])[:SHOWN]
    for label, source, seconds, flops in slowest:
        rate = f"{flops / seconds / 1e9:.3g}" if seconds and flops else ""
        table.add_row(
            Text(label), Text(source), duration(seconds), f"{100 * seconds / total:.0f} %", rate
        )
    return Group(head, table)
