"""`graphc layers`: what a `.nn` file can use without an import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from graphc.cli import terminal
from graphc.cli.command import UserError, graphc_command
from graphc.cli.options import json_option
from graphc.diagnostics import nearest
from graphc.frontend.functions import FUNCTIONS
from graphc.frontend.layers import LAYERS


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    known: Mapping[str, Any] = {**LAYERS, **FUNCTIONS}
    return [CompletionItem(n, help=e.summary) for n, e in known.items() if n.startswith(incomplete)]


@graphc_command("graphc layers Conv2d")
@click.argument("name", required=False, shell_complete=_complete)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List all layers and functions, or show the arguments and documentation of one."""
    known: dict[str, Any] = {**LAYERS, **FUNCTIONS}
    if name is None:
        if as_json:
            terminal.print_json([_json(n, e) for n, e in known.items()])
        else:
            terminal.console().print(_table("Layer", LAYERS))
            terminal.console().print(_table("Function", FUNCTIONS))
        return
    if name not in known:
        near = nearest(name, known)
        hint = f"; did you mean `{near}`?" if near else ""
        raise UserError(f"there is no layer or function `{name}`{hint}\n`graphc layers` lists them")
    entry = known[name]
    if as_json:
        terminal.print_json({**_json(name, entry), "doc": entry.doc})
        return
    terminal.write(terminal.emphasised(_signature(name, entry), bold=True))
    if entry.doc:
        click.echo(f"\n{entry.doc}")


def _signature(name: str, entry: Any) -> str:
    return f"{name}{entry.signature}"


def _json(name: str, entry: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "layer" if name in LAYERS else "function",
        "group": getattr(entry, "group", ""),
        "signature": _signature(name, entry),
        "summary": entry.summary,
    }


def _table(title: str, entries: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, style="cyan", no_wrap=True)
    table.add_column("What it does")
    for name, entry in entries.items():
        table.add_row(Text(name), Text(entry.summary))
    return table
