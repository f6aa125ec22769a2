"""`graphc augment`: what a train block's augmentation makes of the data, as a sheet of pictures."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

import graphc
from graphc.cli import terminal
from graphc.cli.command import UserError, graphc_command
from graphc.cli.options import model_options
from graphc.train.data import open_data
from graphc.train.data.dataset import Dataset
from graphc.train.labels import data_ports


@graphc_command("graphc augment lenet.nn --data train.npz -o sheet.png")
@model_options
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    help="A .npz file, a folder of .npy files or of pictures by class.",
)
@click.option("--resize", is_flag=True, help="Scale and cut pictures to the model's size.")
@click.option(
    "--rows", type=click.IntRange(1, 64), default=6, show_default=True, help="Pictures to show."
)
@click.option(
    "--columns",
    type=click.IntRange(1, 32),
    default=7,
    show_default=True,
    help="Steps to show each of them in.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, (1 << 63) - 1),
    default=0,
    show_default=True,
    help="Of the augmentation, as of `graphc train`, and of which pictures are shown.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The PNG file.",
)
def command(
    file: Path,
    model: str | None,
    settings: dict[str, Any],
    dims: dict[str, int],
    data: str,
    resize: bool,
    rows: int,
    columns: int,
    seed: int,
    output: Path,
) -> None:
    """Draw pictures of the data before and after the augmentation of a train block."""
    try:
        sheet = importlib.import_module("graphc.train.sheet")
    except ImportError as error:
        raise UserError("a sheet needs Pillow: pip install 'graphc[train]' installs it") from error
    if output.suffix.lower() != ".png":
        raise click.UsageError("the sheet is a PNG: name it sheet.png")
    loaded = graphc.load(file, model=model, dims=dims, **settings)
    terminal.show_diagnostics(loaded.warnings)
    forward = loaded.for_training("train")
    augmentation, said = forward.augmentation, forward.training
    assert said is not None
    if augmentation is None:
        raise UserError(
            f"the train block of `{loaded.name}` has no `augment` statement, so there is nothing to show"
        )
    name = sheet.pictures(augmentation)
    opened = open_data(data, data_ports(forward.graph, said.inputs), resize=resize)
    assert isinstance(opened, Dataset)  # every file is
    batch = opened.gather(sheet.sample(len(opened), rows, seed))
    results = sheet.augmented(augmentation, batch, columns, seed)
    label = next((n for n in said.inputs if n in batch and batch[n].ndim == 1), None)
    classes = opened.classes.get(label, ()) if label is not None else ()
    captions = [
        [sheet.caption(row, values, label, classes) for row in range(len(batch[name]))]
        for values in (batch, *results)
    ]
    image = sheet.draw(
        batch[name],
        [values[name] for values in results],
        captions,
        f"{loaded.name}: augmentation",
        augmentation.written[name],
    )
    sheet.save(image, output)
    click.echo(output)
