"""What all commands share: how failures end, and `--json`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

from graphc.cli import terminal

WRONG = 1
INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a program that the signal ends."""
INTERNAL = 70
"""Exit code of a bug, `EX_SOFTWARE` of BSD's sysexits."""

_EXPECTED = {
    "graphc.diagnostics": ("DiagnosticError",),
    "graphc.artifact.errors": ("ModuleError", "TargetError"),
    "graphc.diagram.scene": ("DiagramError",),
    "graphc.diagram.render": ("RenderError",),
    "graphc.artifact.npy": ("ArrayFileError",),
    "graphc.ir.op": ("OpError",),
    "graphc.optim.base": ("ArgumentError",),
    "graphc.train.errors": ("TrainError",),
}
"""Exceptions that tell the user something. A module that is not loaded cannot have raised one."""


class UserError(Exception):
    """The model or an input is wrong; the message is for the user."""


def is_expected(error: BaseException) -> bool:
    """True for exceptions whose text is an answer to the user, not a bug."""
    for module, names in _EXPECTED.items():
        if module in sys.modules:
            for name in names:
                kind = getattr(sys.modules[module], name, None)
                if kind is not None and isinstance(error, kind):
                    return True
    return isinstance(error, (UserError, OSError))


class Command(click.Command):
    """A command whose failures end in a message and an exit code, never in a traceback.

    With `--json` the failure is JSON on stdout: diagnostics in full, other errors as `{"message": ...}`.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. Raises what click handles itself."""
        as_json = bool(ctx.params.get("as_json"))
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # The reader went away (`graphc dump ... | head`): nothing is wrong, and nobody to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except Exception as error:
            if is_expected(error):
                terminal.report(error, as_json)
                ctx.exit(WRONG)
            _report_bug(error, debug=bool(ctx.find_root().params.get("debug")))
            ctx.exit(INTERNAL)


def _report_bug(error: Exception, *, debug: bool) -> None:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    first = str(error).strip().split("\n")[0]
    what = f"{type(error).__name__}: {first}" if first else type(error).__name__
    head = terminal.emphasised("internal error", err=True, fg="red", bold=True)
    terminal.write(f"{head}: {what}", err=True)
    hint = "" if debug else "; `graphc --debug ...` shows where it happened"
    click.echo(f"This is a bug in graphc: please report it with the model{hint}.", err=True)


def graphc_command(example: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """`click.command` with the shared failure handling, and an example at the end of the help."""
    return click.command(cls=Command, epilog=f"\b\nExample:\n  {example}", **settings)
