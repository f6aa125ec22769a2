"""`graphc completion`: completion for bash, zsh and fish."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from graphc.cli.command import UserError, graphc_command


@graphc_command('eval "$(graphc completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands, options and files of graphc.

    \b
    bash:  eval "$(graphc completion bash)"     in ~/.bashrc
    zsh:   eval "$(graphc completion zsh)"      in ~/.zshrc
    fish:  graphc completion fish | source      in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise UserError(f"this version of click knows no completion for {shell}")
    root = ctx.find_root().command
    click.echo(kind(root, {}, "graphc", "_GRAPHC_COMPLETE").source())
