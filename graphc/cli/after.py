"""`--after PASS`, for the commands that show the graph in the middle of the pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from graphc.diagnostics import nearest
from graphc.passes import pipeline

F = TypeVar("F", bound=Callable[..., Any])


def _pass(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None or value in pipeline.names():
        return value
    near = nearest(value, pipeline.names())
    hint = f"did you mean {near!r}?" if near else f"there are: {', '.join(pipeline.names())}"
    raise click.BadParameter(f"there is no pass {value!r}; {hint}")


def _complete_pass(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    return [CompletionItem(n) for n in pipeline.names() if n.startswith(incomplete)]


def after_option(function: F) -> F:
    """`--after PASS`."""
    return click.option(
        "--after",
        metavar="PASS",
        callback=_pass,
        shell_complete=_complete_pass,
        help=f"The graph after this pass; before any without it. Passes: {', '.join(pipeline.names())}.",
    )(function)
