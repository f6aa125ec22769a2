"""One module per command, each with a `command`; `graphc.cli.COMMANDS` is their table."""
