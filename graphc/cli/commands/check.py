"""`graphc check`: every mistake of one or several files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import graphc
from graphc.cli import terminal
from graphc.cli.command import WRONG, graphc_command
from graphc.cli.options import json_option, set_option
from graphc.diagnostics import Diagnostic, DiagnosticError, to_json
from graphc.limits import MAX_SOURCE
from graphc.syntax import ast
from graphc.syntax.parser import decode, parse

_NO_MODEL = "E0309"


@graphc_command("graphc check lenet.nn resnet50.nn")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@set_option
@json_option
@click.pass_context
def command(
    ctx: click.Context, files: tuple[Path, ...], settings: dict[str, Any], as_json: bool
) -> None:
    """Check models: syntax, names and every shape.

    All models of a file are checked, and all independent mistakes are reported at once. A file of blocks without a
    model is checked for syntax and names. Exit code 1 if there is an error; warnings alone are fine.
    """
    found: dict[Diagnostic, None] = {}
    with terminal.progress(not as_json) as stage:
        for file in files:
            stage(f"checking {file}")
            found.update(dict.fromkeys(check(file, settings)))
    wrong = any(d.severity == "error" for d in found)
    if as_json:
        terminal.print_json({"ok": not wrong, "diagnostics": to_json(found)})
    else:
        terminal.show_diagnostics(tuple(found))
        click.echo(("\n" if found else "") + _verdict(len(files), tuple(found)), err=True)
    if wrong:
        ctx.exit(WRONG)


def check(file: Path, settings: dict[str, Any]) -> list[Diagnostic]:
    """What is wrong with a file. Raises OSError when it cannot be read."""
    models = _models(file)
    found: list[Diagnostic] = []
    wanted: list[str | None] = list(models) if models else [None]
    for model in wanted:
        try:
            found += graphc.load(file, model=model, **settings).warnings
        except DiagnosticError as error:
            found += error.diagnostics
    return found if models is None or models else [d for d in found if d.code != _NO_MODEL]


def _models(file: Path) -> list[str] | None:
    """The names of a file's models; None where it does not parse."""
    with open(file, "rb") as stream:
        data = stream.read(MAX_SOURCE + 1)
    try:
        items = parse(decode(str(file), data)).items
    except DiagnosticError:
        return None
    return list(dict.fromkeys(i.name.id for i in items if isinstance(i, ast.Model)))


def _verdict(files: int, found: tuple[Diagnostic, ...]) -> str:
    errors = sum(d.severity == "error" for d in found)
    counts = ((errors, "error"), (len(found) - errors, "warning"))
    parts = [f"{n} {word}{'s' if n > 1 else ''}" for n, word in counts if n]
    where = f"{files} file{'s' if files > 1 else ''}"
    return f"{', '.join(parts)} in {where}" if parts else f"{where} checked, no mistakes"
