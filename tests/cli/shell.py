"""Running the command line inside the test process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from graphc.cli import cli


def graphc(*args: object, stdin: str | bytes | None = None, code: int = 0) -> Result:
    """Runs `graphc args...` and checks its exit code."""
    result = CliRunner().invoke(cli, [str(a) for a in args], input=stdin, prog_name="graphc")
    shown = f"{result.output}\n{result.exception!r}"
    assert result.exit_code == code, f"exit code {result.exit_code}:\n{shown}"
    assert "Traceback" not in result.output
    return result


def graphc_json(*args: object, code: int = 0) -> Any:
    """Runs a command with `--json` and reads what it wrote to stdout."""
    return json.loads(graphc(*args, "--json", code=code).stdout)
