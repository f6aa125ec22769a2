"""`graphc explain`: what a diagnostic code means."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from graphc.cli import terminal
from graphc.cli.command import UserError, graphc_command
from graphc.cli.options import json_option
from graphc.codes import CODES
from graphc.diagnostics import nearest


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    typed = incomplete.upper()
    return [CompletionItem(c, help=i.title) for c, i in CODES.items() if c.startswith(typed)]


@graphc_command("graphc explain E0204")
@click.argument("code", required=False, shell_complete=_complete)
@json_option
def command(code: str | None, as_json: bool) -> None:
    """Explain an error code, with an example and its correction. Without CODE: list all codes."""
    if code is None:
        if as_json:
            terminal.print_json([{"code": c, "title": i.title} for c, i in sorted(CODES.items())])
        else:
            for name, info in sorted(CODES.items()):
                click.echo(f"{name}  {info.title}")
        return
    wanted = code.strip().strip("[]").upper()
    if wanted not in CODES:
        near = nearest(wanted, CODES)
        raise UserError(
            f"there is no code {code!r}"
            + (f"; did you mean {near}?" if near else "")
            + "\n`graphc explain` lists them all"
        )
    info = CODES[wanted]
    if as_json:
        terminal.print_json({"code": wanted, "title": info.title, "explanation": info.explanation})
        return
    terminal.write(terminal.emphasised(f"{wanted}: {info.title}", bold=True))
    click.echo()
    click.echo(info.explanation.strip())
