"""`graphc check`: every mistake of one or several files."""

from __future__ import annotations

from pathlib import Path

import click

import graphc
from graphc.cli import terminal
from graphc.cli.command import WRONG, graphc_command
from graphc.cli.options import json_option
from graphc.diagnostics import Diagnostic, to_json


@graphc_command("graphc check lenet.nn resnet50.nn")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@json_option
@click.pass_context
def command(ctx: click.Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Check models: syntax, names and every shape.

    All independent mistakes are reported at once. Exit code 1 if there is an error; warnings alone are fine.
    """
    found: dict[Diagnostic, None] = {}
    for file in files:
        found.update(dict.fromkeys(_check(file)))
    wrong = any(d.severity == "error" for d in found)
    if as_json:
        terminal.print_json({"ok": not wrong, "diagnostics": to_json(found)})
    else:
        terminal.show_diagnostics(tuple(found))
        click.echo(_verdict(len(files), tuple(found)), err=True)
    if wrong:
        ctx.exit(WRONG)


def _check(file: Path) -> tuple[Diagnostic, ...]:
    try:
        return graphc.load(file).warnings
    except graphc.DiagnosticError as error:
        return error.diagnostics


def _verdict(files: int, found: tuple[Diagnostic, ...]) -> str:
    errors = sum(d.severity == "error" for d in found)
    warnings = len(found) - errors
    parts = [
        f"{n} {word}{'s' if n > 1 else ''}"
        for n, word in ((errors, "error"), (warnings, "warning"))
        if n
    ]
    where = f"{files} file{'s' if files > 1 else ''}"
    return f"\n{', '.join(parts)} in {where}" if parts else f"{where} checked, no mistakes"
