"""Trains an example and says how well it does on what it has not seen: `python examples/training/train.py NAME`.

NAME is a `.nn` file of this folder without its ending, or `all`. Weights, curves and sample pictures go to
`build/training/NAME`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import data
import numpy as np
from rich.console import Console
from samples import diffusion_samples, gan_samples, sheet

import graphc
from graphc.train import Trainer, fit
from graphc.train.progress import for_console

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "build" / "training"
Scores = dict[str, float]


def supervised(
    name: str, out: Path | None, weights: Mapping[str, Any] | None = None
) -> tuple[Trainer, Scores]:
    """Trains an example with held-out data; the scores are means over that."""
    trainer = Trainer(graphc.load(HERE / f"{name}.nn"), weights)
    train, held = getattr(data, name)()
    run = fit(
        trainer,
        train,
        val=held,
        epochs=trainer.epochs or 1,
        batch=trainer.batch or 32,
        out=out,
        title=name,
        reporter=for_console(Console(stderr=True)) if out else None,
    )
    last = run.history.rows[-1]
    return trainer, {k: float(v) for k, v in last.items() if k.startswith("val_")}


@functools.cache
def digits_resnet(out: Path | None) -> tuple[Trainer, Scores]:
    """The residual network; a process trains it once, also for `even_odd`."""
    return supervised("digits_resnet", out)


def even_odd(out: Path | None) -> Scores:
    """The backbone comes from `digits_resnet`, which is trained first, and stays as it is."""
    parent, _ = digits_resnet(None if out is None else out.with_name("digits_resnet"))
    backbone = {k: v for k, v in parent.weights().items() if k.startswith("backbone")}
    model = graphc.load(HERE / "even_odd.nn")
    return supervised("even_odd", out, weights={**model.initialise(), **backbone})[1]


def diabetes(out: Path | None) -> Scores:
    """R2 besides: the share of the variance that is explained."""
    trainer, scores = supervised("diabetes", out)
    _, held = data.diabetes()
    error = trainer.evaluate(held)["progress"] - held["target"]
    return {**scores, "r2": 1 - float((error**2).mean() / held["target"].var())}


def generative(
    name: str,
    out: Path | None,
    batches: Iterable[data.Arrays],
    sample: Callable[[Trainer], np.ndarray],
) -> Scores:
    """Trains a model that makes digits, draws some, and measures how far they are from real ones.

    Every epoch mixes new noise, so the steps are called one by one.
    """
    trainer = Trainer(graphc.load(HERE / f"{name}.nn"))
    for epoch in range(1, (trainer.epochs or 1) + 1):
        losses = [float(trainer.run(batch)["loss"]) for batch in batches]
        if out is not None and epoch % 10 == 0:
            print(f"epoch {epoch:3}  loss {np.mean(losses):.4f}", file=sys.stderr)
    drawn = sample(trainer)
    if out is not None:
        sheet(drawn, out / "samples.png")
    real = data.scans()[0].reshape(-1, 64)
    distance = np.sqrt(((drawn[:, None] - real[None]) ** 2).sum(-1))
    nearest = distance.argmin(1)
    return {
        "distance": float(distance.min(1).mean()),  # to the nearest real digit
        "different": float(
            len(set(data.scans()[1][nearest].tolist()))
        ),  # kinds of digits among them
    }


EXAMPLES: dict[str, Callable[[Path | None], Scores]] = {
    **{
        name: lambda out, name=name: supervised(name, out)[1]  # type: ignore[misc]
        for name in (
            "digits_mlp",
            "breast_cancer",
            "denoise",
            "signal_lstm",
            "char_transformer",
        )
    },
    "digits_resnet": lambda out: digits_resnet(out)[1],
    "even_odd": even_odd,
    "diabetes": diabetes,
    "gan": lambda out: generative("gan", out, data.Noise(), gan_samples),
    "diffusion": lambda out: generative("diffusion", out, data.Noisy(), diffusion_samples),
}


def main(names: list[str]) -> int:
    if names == ["all"]:
        names = list(EXAMPLES)
    if not names or any(name not in EXAMPLES for name in names):
        print(f"usage: train.py NAME..., one of: all {' '.join(EXAMPLES)}", file=sys.stderr)
        return 2
    for name in names:
        scores = EXAMPLES[name](OUT / name)
        print(f"{name:18}", "  ".join(f"{k} {v:.4g}" for k, v in scores.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
