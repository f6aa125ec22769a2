"""What all commands share: help, laziness, completion, exit codes, errors, colours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import graphc as package
from graphc.cli import COMMANDS, cli
from graphc.cli.command import UserError, graphc_command
from graphc.cli.options import literal
from graphc.diagnostics import Diagnostic, DiagnosticError
from tests.cli.shell import graphc

ROOT = Path(__file__).parents[2]


def python(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_help_lists_every_command_and_loads_none() -> None:
    shown = graphc("--help").output
    assert all(f"  {name} " in shown and help in shown for name, help in COMMANDS.items())
    loaded = python(
        "import sys\n"
        "from graphc.cli import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "print([m for m in ('numpy', 'networkx', 'lark', 'rich', 'tvm', 'graphviz') if m in sys.modules])"
    )
    assert loaded.strip().endswith("[]")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_help_ends_with_an_example(name: str) -> None:
    shown = graphc(name, "--help").output
    assert COMMANDS[name].rstrip(".").split(":")[0].split()[0] in shown
    *_, head, example = (line for line in shown.splitlines() if line.strip())
    assert head.strip() == "Example:"
    assert "graphc " in example


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_module_holds_the_command_of_its_name(name: str) -> None:
    context = click.Context(cli)
    found = cli.get_command(context, name)
    assert found is not None
    assert found.help


def test_version() -> None:
    assert graphc("--version").output == f"graphc {package.__version__}\n"


def test_wrong_usage_is_2() -> None:
    assert "No such command" in graphc("compil", code=2).output
    assert "Missing argument" in graphc("check", code=2).output
    assert "No such option" in graphc("explain", "--wrong", code=2).output
    assert "is not of the form name=value" in graphc("summary", "x.nn", "--set", "1", code=2).output
    assert "a dim is an integer" in graphc("summary", "x.nn", "--dim", "N=-1", code=2).output
    twice = ("--dim", "N=1", "--dim", "N=2")
    assert "N is given twice" in graphc("summary", "x.nn", *twice, code=2).output


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("-1.5e-3", -0.0015),
        ("true", True),
        ("[64, 128]", [64, 128]),
        ('"same"', "same"),
        ("same", "same"),
        ("NaN", "NaN"),
        ("null", "null"),
        ("{}", "{}"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_settings_are_literals_or_strings(text: str, value: object) -> None:
    assert literal(text) == value


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    assert "_GRAPHC_COMPLETE" in graphc("completion", shell).output


def test_completion_answers() -> None:
    code = "from graphc.cli import main; main()"
    answer = {"COMP_WORDS": "graphc com", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **answer, "_GRAPHC_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["plain,compile", "plain,completion"]


@click.group()
@click.option("--debug", is_flag=True)
def shell(debug: bool) -> None:
    """A group of one command that fails."""


ERRORS: dict[str, Exception] = {
    "bug": KeyError("lost"),
    "user": UserError("that is wrong"),
    "file": FileNotFoundError(2, "No such file or directory", "gone.nn"),
    "diagnostic": DiagnosticError([Diagnostic("E0101", "something else was expected", None)]),
}


@shell.command("fail", cls=type(graphc_command("x")(lambda: None)))
@click.argument("which")
@click.option("--json", "as_json", is_flag=True)
def fail(which: str, as_json: bool) -> None:
    """Raises."""
    raise ERRORS[which]


def test_a_bug_is_reported_without_a_traceback() -> None:
    result = CliRunner().invoke(shell, ["fail", "bug"])
    assert result.exit_code == 70
    assert "internal error: KeyError: 'lost'" in result.stderr
    assert "please report" in result.stderr
    assert "Traceback" not in result.stderr


def test_debug_shows_where_a_bug_is() -> None:
    result = CliRunner().invoke(shell, ["--debug", "fail", "bug"])
    assert result.exit_code == 70
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("which", "text"),
    [
        ("user", "error: that is wrong\n"),
        ("file", "error: gone.nn: No such file or directory\n"),
        ("diagnostic", "error[E0101]: something else was expected\n"),
    ],
)
def test_what_the_user_can_mend_is_1(which: str, text: str) -> None:
    result = CliRunner().invoke(shell, ["fail", which])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", text)


@pytest.mark.parametrize("which", ["user", "file", "diagnostic"])
def test_json_failures_are_json_on_stdout(which: str) -> None:
    result = CliRunner().invoke(shell, ["fail", which, "--json"])
    assert result.exit_code == 1
    assert '"ok": false' in result.stdout
    assert result.stderr == ""


def test_colours_follow_the_usual_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown() -> str:
        return CliRunner().invoke(shell, ["fail", "diagnostic"], color=True).stderr

    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert "\x1b[" not in shown()  # not a terminal
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in shown()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in shown()
