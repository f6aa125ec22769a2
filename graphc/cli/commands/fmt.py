"""`graphc fmt`: the canonical form of `.nn` files."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from graphc.cli import terminal
from graphc.cli.command import WRONG, graphc_command
from graphc.diagnostics import DiagnosticError
from graphc.limits import MAX_SOURCE
from graphc.source import Source
from graphc.syntax.formatter import format_source
from graphc.syntax.parser import decode


@graphc_command("graphc fmt --check *.nn")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if a file would change.")
@click.option("--diff", is_flag=True, help="Change nothing; print what would change.")
@click.pass_context
def command(ctx: click.Context, files: tuple[Path, ...], check: bool, diff: bool) -> None:
    """Format .nn files in place; `-` formats stdin to stdout. Comments stay where they are."""
    changed, wrong = 0, False
    for file in files:
        try:
            changed += _format(file, check=check, diff=diff)
        except (DiagnosticError, OSError) as error:
            terminal.report(error, False)
            wrong = True
    if check and changed:
        click.echo(f"{changed} file{'s' if changed > 1 else ''} would change", err=True)
    if wrong or (check and changed):
        ctx.exit(WRONG)


def _format(file: Path, *, check: bool, diff: bool) -> bool:
    """Formats one file; True if that changes it."""
    stdin = str(file) == "-"
    name = "<stdin>" if stdin else str(file)
    if stdin:
        terminal.say_if_reading_a_terminal()
    with sys.stdin.buffer if stdin else open(file, "rb") as stream:
        source = decode(name, stream.read(MAX_SOURCE + 1))
    text = format_source(source)
    changed = text != source.text
    if diff:
        click.echo("".join(_difference(source, text)), nl=False)
    elif check:
        if changed:
            click.echo(name, err=True)
    elif stdin:
        click.echo(text, nl=False)
    elif changed:
        _replace(file, text)
        click.echo(f"formatted {name}", err=True)
    return changed


def _difference(source: Source, text: str) -> Iterator[str]:
    old, new = (t.splitlines(keepends=True) for t in (source.text, text))
    for line in difflib.unified_diff(old, new, source.name, f"{source.name} (formatted)"):
        yield line if line.endswith("\n") else line + "\n"


def _replace(file: Path, text: str) -> None:
    """Writes a file whole or not at all, with the permissions it had; a link keeps pointing at it."""
    target = file.resolve()
    mode = target.stat().st_mode & 0o7777
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        os.chmod(name, mode)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
