"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from graphc.artifact.cuda.target import is_cuda

F = TypeVar("F", bound=Callable[..., Any])

_NAME = re.compile(r"[^\W\d]\w*")
MAX_DIM = 1 << 40


def pair(text: str, what: str) -> tuple[str, str]:
    """`name=value` in two. Raises click.BadParameter."""
    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name.strip()):
        raise click.BadParameter(f"{text!r} is not of the form {what}")
    return name.strip(), value.strip()


def literal(text: str) -> Any:
    """A setting's value: `10`, `0.5`, `true`, `[64, 128]`, `"text"`; anything else is a string as it stands."""

    def refuse(word: str) -> Any:
        raise ValueError(word)

    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text
    return text if value is None or isinstance(value, dict) else value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise click.BadParameter(f"{name} is given twice")
        found[name] = value
    return found


def _settings(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    return _unique([(n, literal(v)) for n, v in (pair(t, "name=value") for t in values)])


def _dims(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, int]:
    found = []
    for name, value in (pair(t, "name=integer") for t in values):
        if not re.fullmatch(r"\d{1,13}", value) or int(value) > MAX_DIM:
            raise click.BadParameter(f"{name}={value}: a dim is an integer from 0 to 2^40")
        found.append((name, int(value)))
    return _unique(found)


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")(function)


def set_option(function: F) -> F:
    """`--set`: arguments of the model."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_settings,
        help="Give a value to an argument of the model. Repeatable.",
    )(function)


def precision_option(function: F) -> F:
    """`--precision`."""
    return click.option(
        "--precision",
        type=click.Choice(["f32", "bf16", "high", "f16", "tf32"]),
        default="f32",
        show_default=True,
        help="bf16: fast and rough. high: products in 16 of f32's 24 bits; both need AMX on a CPU. "
        "GPUs: bf16, f16, tf32.",
    )(function)


def check_training(target: str, precision: str) -> None:
    """Raises click.UsageError for a precision that no training step of the target has."""
    if precision != "f32" and not is_cuda(target):
        raise click.UsageError("a training step is computed in f32: leave --precision out")


def model_options(function: F) -> F:
    """FILE, `--model`, `--set` and `--dim`: which model, with what."""
    for decorate in (
        click.option(
            "--dim",
            "dims",
            multiple=True,
            metavar="NAME=SIZE",
            callback=_dims,
            help="Fix a named dim, such as N=1; others stay open. Repeatable.",
        ),
        set_option,
        click.option("--model", metavar="NAME", help="Which model of the file; needed if several."),
        click.argument("file", type=click.Path(path_type=Path)),
    ):
        function = decorate(function)
    return function


def dims_option(help: str) -> Callable[[F], F]:
    """`--dim` alone."""
    return click.option(
        "--dim", "dims", multiple=True, metavar="NAME=SIZE", callback=_dims, help=help
    )


def measured_module(function: F) -> F:
    """MODULE, inputs, `--dim` and `--threads`: what a command that measures a module takes."""
    sizes = "Size of a named dim, such as N=8; the smallest allowed one otherwise. Repeatable."
    for decorate in (
        click.option("--threads", type=click.IntRange(1, 1024), help="Threads that compute."),
        dims_option(sizes),
        click.argument("inputs", nargs=-1),
        click.argument("module", type=click.Path(path_type=Path)),
    ):
        function = decorate(function)
    return function
