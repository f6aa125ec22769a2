"""`graphc draw`: pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import graphc
from graphc import driver
from graphc.cli import terminal
from graphc.cli.after import after_option
from graphc.cli.command import graphc_command
from graphc.cli.options import model_options
from graphc.cli.view import graph_of, view_options
from graphc.diagram import render
from graphc.diagram.dot import Failure, draw
from graphc.diagram.failures import mark
from graphc.frontend.elaborate import ElaborationError


@graphc_command("graphc draw resnet50.nn -o resnet50.svg --depth 1 --open layer2")
@model_options
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .svg, .png, .pdf or .dot file. Default: DOT text on stdout.",
)
@view_options
@after_option
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    help="Levels of blocks to show: 1 is the outermost blocks as boxes. Default: what fits.",
)
@click.option(
    "--open", "opened", multiple=True, metavar="BLOCK", help="Open one more block, such as layer2."
)
@click.option("--ops", is_flag=True, help="Open layers too, down to single ops.")
@click.option("--right", is_flag=True, help="Draw from left to right instead of downwards.")
def command(
    file: Path,
    model: str | None,
    settings: dict[str, Any],
    dims: dict[str, int],
    output: Path | None,
    gradient: str | None,
    train: bool,
    after: str | None,
    depth: int | None,
    opened: tuple[str, ...],
    ops: bool,
    right: bool,
) -> None:
    """Draw a model as SVG, PNG, PDF or DOT.

    A model that fails its shape check is drawn up to there, with the failing layer marked (and exit code 1).
    """
    if output is not None:
        render.format_of(output)
    error: ElaborationError | None = None
    failures: list[Failure] = []
    with terminal.progress(output is not None) as stage:
        stage(f"reading {file}")
        try:
            loaded = graphc.load(file, model=model, dims=dims, **settings)
            graph, title = graph_of(loaded, gradient, train)
            if after is not None:
                graph, title = driver.optimise(graph, until=after)[0], f"{title} after {after}"
        except ElaborationError as caught:
            if caught.partial is None:
                raise
            error, title = caught, caught.partial.name
            graph, failures = mark(caught.partial, caught.diagnostics)
        stage("drawing")
        dot = draw(
            graph,
            depth=depth,
            opened=opened,
            ops=ops,
            failures=failures,
            dims=dims,
            direction="right" if right else "down",
            title=title,
        )
        if output is not None:
            render.save(dot, output)
    if output is None:
        click.echo(dot, nl=False)
    else:
        click.echo(f"wrote {output}", err=True)
    if error is not None:
        raise error
