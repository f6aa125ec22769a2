"""`graphc summary`: the layer table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import graphc
from graphc.cli import terminal
from graphc.cli.command import graphc_command
from graphc.cli.options import json_option, model_options
from graphc.diagram import table


@graphc_command("graphc summary resnet50.nn --dim N=1 --depth 2")
@model_options
@click.option("--depth", type=click.IntRange(min=0), help="How many levels of the tree to show.")
@click.option("--all", "unfold", is_flag=True, help="List repeated blocks one by one.")
@json_option
def command(
    file: Path,
    model: str | None,
    settings: dict[str, Any],
    dims: dict[str, int],
    depth: int | None,
    unfold: bool,
    as_json: bool,
) -> None:
    """Show the layer table: source lines, output shapes, parameters, multiply-adds, peak memory.

    Named dims count with their upper bound, or 1; --dim gives another value.
    """
    with terminal.progress(not as_json) as stage:
        stage(f"reading {file}")
        summary = graphc.load(file, model=model, dims=dims, **settings).summary()
    if as_json:
        terminal.print_json(summary.to_json())
    else:
        terminal.console().print(table.render(summary, depth=depth, unfold=unfold))
