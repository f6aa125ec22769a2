"""`graphc dump`: the graph as text, and what each pass did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

import graphc
from graphc import driver
from graphc.cli import terminal
from graphc.cli.after import after_option
from graphc.cli.command import graphc_command
from graphc.cli.options import json_option, model_options
from graphc.cli.view import graph_of, view_options
from graphc.ir.printer import print_graph
from graphc.passes.pipeline import Report


@graphc_command("graphc dump lenet.nn --after fuse")
@model_options
@view_options
@after_option
@click.option("--passes", is_flag=True, help="Show time and node counts of the passes instead.")
@json_option
def command(
    file: Path,
    model: str | None,
    settings: dict[str, Any],
    dims: dict[str, int],
    gradient: str | None,
    train: bool,
    after: str | None,
    passes: bool,
    as_json: bool,
) -> None:
    """Print the graph as text, as it is after a pass. The text parses back."""
    with terminal.progress(not as_json) as stage:
        stage(f"reading {file}")
        loaded = graphc.load(file, model=model, dims=dims, **settings)
        graph, _ = graph_of(loaded, gradient, train)
        stage("running the passes")
        report = Report()
        if after is not None or passes:
            graph, report = driver.optimise(graph, until=after)
        text = print_graph(graph)
    if passes and as_json:
        terminal.print_json([_step(s) for s in report.steps])
    elif passes:
        terminal.console().print(_table(report))
    elif as_json:
        terminal.print_json({"model": loaded.name, "after": after, "graph": text})
    else:
        click.echo(text, nl=False)


def _step(step: Any) -> dict[str, Any]:
    return {
        "pass": step.name,
        "seconds": round(step.seconds, 6),
        "nodes_before": step.nodes_before,
        "nodes_after": step.nodes_after,
        "changed": step.changed,
    }


def _table(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_footer=True)
    table.add_column("Pass", footer="all")
    table.add_column("Time", justify="right", footer=f"{report.seconds * 1e3:.1f} ms")
    table.add_column("Nodes", justify="right")
    table.add_column("")
    for step in report.steps:
        nodes = f"{step.nodes_before} → {step.nodes_after}"
        same = "" if step.changed else "no change"
        table.add_row(step.name, f"{step.seconds * 1e3:.1f} ms", nodes, same)
    return table
