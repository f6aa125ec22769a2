"""Where output goes: results to stdout, errors and progress to stderr; colours by rich's rules (NO_COLOR, no tty)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from graphc import diagnostics


def console(*, err: bool = False) -> Console:
    """A console for stdout or stderr; text is printed as it is, without markup or highlighting."""
    return Console(stderr=err, highlight=False, markup=False, soft_wrap=False)


def use_color(*, err: bool = False) -> bool:
    """Whether ANSI colours are wanted there."""
    c = console(err=err)
    return c.is_terminal and not c.no_color and c.color_system is not None


def emphasised(text: str, *, err: bool = False, **style: Any) -> str:
    """Text in click's styles where colours are wanted on that stream, plain elsewhere."""
    return click.style(text, **style) if use_color(err=err) else text


def write(text: str, *, err: bool = False) -> None:
    """A line that has its colours already, or none."""
    click.echo(text, err=err, color=True)


def print_json(data: Any) -> None:
    """Data on stdout, as JSON; keys stay in the order they have."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def show_diagnostics(found: tuple[diagnostics.Diagnostic, ...]) -> None:
    """Diagnostics on stderr, with carets."""
    if found:
        write(diagnostics.render(found, color=use_color(err=True)), err=True)


def report(error: BaseException, as_json: bool) -> None:
    """An expected failure, for a person on stderr or for a program on stdout."""
    if isinstance(error, diagnostics.DiagnosticError):
        if as_json:
            print_json({"ok": False, "diagnostics": diagnostics.to_json(error.diagnostics)})
            return
        show_diagnostics(error.diagnostics)
        return
    message = _text(error)
    if as_json:
        print_json({"ok": False, "error": {"type": type(error).__name__, "message": message}})
    else:
        write(f"{emphasised('error', err=True, fg='red', bold=True)}: {message}", err=True)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and type(error).__module__ == "builtins":
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    return str(error) or type(error).__name__


@contextmanager
def progress(enabled: bool = True) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr with the current stage and the time, on a terminal only; `stage(name)` moves on."""
    c = console(err=True)
    if not enabled or not c.is_terminal:
        yield lambda stage: None
        return
    start = time.monotonic()
    spinner = Spinner("dots", text="")
    with Live(spinner, console=c, transient=True, refresh_per_second=10):

        def move(stage: str) -> None:
            spinner.update(text=Text(f"{stage} ({time.monotonic() - start:.1f} s)"))

        yield move


def say_if_reading_a_terminal() -> None:
    """Tells somebody who is about to wait for `-` that the text comes from the keyboard."""
    if sys.stdin.isatty():
        click.echo("reading from the terminal; end with Ctrl-D", err=True)


def duration(seconds: float) -> str:
    """A time with three digits: `16.2 µs`."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
