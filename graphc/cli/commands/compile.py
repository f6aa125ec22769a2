"""`graphc compile`: from a `.nn` file to a module folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import click

import graphc
from graphc.artifact import open_compiled
from graphc.cli import terminal
from graphc.cli.command import graphc_command
from graphc.cli.options import check_training, json_option, model_options, precision_option
from graphc.diagram import text
from graphc.train.trainer import Trainer


@graphc_command("graphc compile lenet.nn -o lenet.module --weights lenet.safetensors --dim N=1")
@model_options
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The module's folder; it is replaced if it holds a module.",
)
@click.option(
    "--weights",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A .safetensors file with PyTorch's parameter names. Default: fresh random weights.",
)
@click.option(
    "--target",
    default="native",
    show_default=True,
    help="native (this machine), x86-64-v3, x86-64-v4, cuda (an NVIDIA GPU, sm_90), or another: cuda:sm_80.",
)
@precision_option
@click.option(
    "--train",
    is_flag=True,
    help="Compile the training step of the train block instead: weights are state that each call improves.",
)
@json_option
def command(
    file: Path,
    model: str | None,
    settings: dict[str, Any],
    dims: dict[str, int],
    output: Path,
    weights: Path | None,
    target: str,
    precision: Literal["f32", "bf16", "high", "f16", "tf32"],
    train: bool,
    as_json: bool,
) -> None:
    """Compile a model to a module folder that runs without Python, graphc or a compiler.

    Named dims stay open unless --dim fixes them: one module serves any batch size.
    """
    start = time.perf_counter()
    if train:
        check_training(target, precision)
    with terminal.progress(not as_json) as stage:
        stage("reading the model")
        loaded = graphc.load(file, model=model, dims=dims, **settings)
        terminal.show_diagnostics(() if as_json else loaded.warnings)
        if train:
            step = Trainer(
                loaded,
                weights,
                target=target,
                precision=precision,
                evaluation=False,
                progress=stage,
            )
            folder = step.save(output)
            module = open_compiled(folder)
        else:
            module = loaded.compile(
                weights, output, target=target, precision=precision, progress=stage
            )
            folder = module.path
    seconds = time.perf_counter() - start
    sizes = {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.is_file()}
    if as_json:
        terminal.print_json(
            {
                "ok": True,
                "module": str(output),
                "name": module.name,
                "target": dict(module.manifest["target"]),
                "precision": dict(module.manifest["precision"]),
                "seconds": round(seconds, 3),
                "files": sizes,
            }
        )
        return
    click.echo(f"compiled {module.name} in {seconds:.1f} s")
    if note := module.manifest["precision"].get("note"):
        click.echo(f"note: {note}", err=True)
    if weights is None and loaded.parameters:
        click.echo("no --weights given: the parameters are fresh random ones", err=True)
    width = max(map(len, sizes))
    for name, size in sizes.items():
        click.echo(f"  {output / name!s:{len(str(output)) + 1 + width}}  {text.size(size):>9}")
