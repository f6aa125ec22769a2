"""`make demo`: train LeNet on real handwritten digits, compile it, classify digits it has never seen, draw it all."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from digits import digits
from rich.console import Console

import graphc
from graphc.train import Trainer, fit
from graphc.train.progress import for_console

HERE = Path(__file__).parent
OUT = HERE.parent / "build" / "demo"


def main() -> int:
    model = graphc.load(HERE / "lenet.nn", classes=10)
    print(model.summary())
    images, labels, held_out, answers = digits()

    print("compiling the training step ...")
    start = time.perf_counter()
    trainer = Trainer(model)
    compiled = time.perf_counter() - start
    start = time.perf_counter()
    run = fit(
        trainer,
        {"image": images, "label": labels},
        val={"image": held_out, "label": answers},
        epochs=trainer.epochs or 1,
        batch=trainer.batch or 1,
        out=fresh(OUT / "run"),
        title="LeNet on handwritten digits",
        reporter=for_console(Console(stderr=True)),
    )
    trained = time.perf_counter() - start

    start = time.perf_counter()
    module = model.compile(weights=trainer.weights())
    module.save(OUT / "lenet")
    built = time.perf_counter() - start

    lenet = graphc.open(OUT / "lenet")
    accuracy = float((lenet(image=held_out)["logits"].argmax(1) == answers).mean())
    seconds = []
    one = np.ascontiguousarray(held_out[:1])
    for _ in range(2000):
        start = time.perf_counter()
        lenet(image=one)
        seconds.append(time.perf_counter() - start)

    picture = OUT / ("lenet.svg" if shutil.which("dot") else "lenet.dot")
    model.draw(picture)

    epochs = len(run.history.rows)
    print(f"trained           {len(labels)} digits, {epochs} epochs in {trained:.1f} s")
    print(f"compiled          the step in {compiled:.1f} s, the model in {built:.1f} s")
    print(f"accuracy          {accuracy:.2%} of {len(answers)} held-out digits")
    print(
        f"time per image    {statistics.median(seconds) * 1e6:.0f} µs (one at a time, from Python)"
    )
    print(
        f"module            {shown(OUT / 'lenet')}/  (module.so, module.h, example.c, weights, manifest)"
    )
    print(f"curves            {shown(OUT / 'run' / 'curves.svg')}")
    print(f"diagram           {shown(picture)}")
    if picture.suffix == ".dot":
        print(
            "                  (install Graphviz and run it again for an SVG: apt install graphviz)"
        )
    return 0 if accuracy >= 0.985 else 1


def fresh(folder: Path) -> Path:
    """An empty place for a run: what an earlier demo left is in the way."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
