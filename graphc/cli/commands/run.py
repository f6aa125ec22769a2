"""`graphc run`: a compiled module on files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

import graphc
from graphc.cli import arrays, terminal
from graphc.cli.command import graphc_command
from graphc.cli.options import json_option

MAX_JSON_VALUES = 10_000


@graphc_command("graphc run lenet.module image=digits.npy -o logits.npz")
@click.argument("module", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the outputs to this .npz file, or a single one to a .npy file.",
)
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads that compute.")
@json_option
def command(
    module: Path,
    inputs: tuple[str, ...],
    output: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Run a compiled module on NAME=FILE.npy inputs, or on a .npz file that holds them by name.

    Prints a short table of the outputs. A module is code: run only what you trust.
    """
    with graphc.open(module, threads=threads) as opened:
        if output is not None:
            arrays.check_output_path(output, [o.name for o in opened.outputs])
        given = arrays.read_inputs(inputs, [i.name for i in opened.inputs])
        with terminal.progress() as stage:
            stage(f"running {opened.name}")
            results = opened.run(given)
    if output is not None:
        arrays.write_outputs(output, results)
    if as_json:
        terminal.print_json({"ok": True, "outputs": {n: _json(a) for n, a in results.items()}})
    else:
        terminal.console().print(_table(results))
        if output is not None:
            click.echo(f"wrote {output}", err=True)


def _table(results: dict[str, arrays.Array]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("Output", "Type"):
        table.add_column(name, no_wrap=True)
    for name in ("Min", "Mean", "Max"):
        table.add_column(name, justify="right")
    table.add_column("First values")
    for name, array in results.items():
        values = np.asarray(array, np.float64)
        stats = [f"{f(values):.4g}" for f in (np.min, np.mean, np.max)] if array.size else [""] * 3
        first = "  ".join(f"{v:.4g}" for v in values.reshape(-1)[:6])
        more = " …" if array.size > 6 else ""
        table.add_row(name, f"{array.dtype.name}{list(array.shape)}", *stats, first + more)
    return table


def _json(array: arrays.Array) -> dict[str, Any]:
    data: dict[str, Any] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    if array.size <= MAX_JSON_VALUES:
        plain = array.astype(np.float32) if array.dtype.name == "bfloat16" else array
        data["values"] = _finite(plain.tolist())
    return data


def _finite(value: Any) -> Any:
    """JSON has no infinities and no NaN: they become strings."""
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
