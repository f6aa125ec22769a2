"""The command line: a thin shell over the Python API.

`graphc --help` loads nothing but click. Each command is one module of `commands/`, loaded when it is called; the table
below is all that help and completion need. Exit codes: 0 done, 1 the model or an input is wrong, 2 wrong usage, 70 a
bug in graphc, 130 interrupted.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

import graphc

COMMANDS = {
    "check": "Check models: syntax, names and every shape.",
    "fmt": "Format .nn files.",
    "explain": "Explain an error code.",
    "layers": "List layers and functions, or show one.",
    "summary": "Show the layer table: shapes, parameters, multiply-adds, memory.",
    "draw": "Draw a model as SVG, PNG, PDF or DOT.",
    "dump": "Print the graph after a pass.",
    "augment": "Draw pictures before and after augmentation.",
    "train": "Train a model on data.",
    "compile": "Compile a model to a module folder.",
    "run": "Run a compiled module on .npy or .npz files.",
    "inspect": "Show what a compiled module is.",
    "bench": "Time a compiled module.",
    "profile": "Time every kernel of a module, beside the machine's peaks.",
    "completion": "Print the shell completion script.",
}
"""Command -> one line of help; `commands/<name>.py` holds the command as `command`."""


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for by name, and lists commands without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of a model's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"graphc.cli.commands.{cmd_name}")
        found: click.Command = module.command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Command names, from the table."""
        names = [
            click.shell_completion.CompletionItem(name, help=help)
            for name, help in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example:  graphc check lenet.nn && graphc draw lenet.nn -o lenet.svg",
)
@click.version_option(graphc.__version__, message="graphc %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an internal error.")
def cli(debug: bool) -> None:
    """graphc compiles neural networks from .nn files to modules that need neither Python nor graphc.

    `graphc COMMAND --help` ends with an example of each command.
    """


def main() -> None:
    """The `graphc` program."""
    cli(prog_name="graphc")
