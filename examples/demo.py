"""`make demo`: compile LeNet with trained weights, classify real handwritten digits it has never seen, draw it."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from digits import digits

import graphc

HERE = Path(__file__).parent
OUT = HERE.parent / "build" / "demo"


def main() -> int:
    model = graphc.load(HERE / "lenet.nn", classes=10)
    print(model.summary())

    start = time.perf_counter()
    module = model.compile(weights=HERE / "lenet.safetensors")
    module.save(OUT / "lenet")
    print(f"compiled in {time.perf_counter() - start:.1f} s")

    _, _, images, labels = digits()
    lenet = graphc.open(OUT / "lenet")
    logits = lenet(image=images)["logits"]
    accuracy = float((logits.argmax(1) == labels).mean())

    seconds = []
    one = np.ascontiguousarray(images[:1])
    for _ in range(2000):
        start = time.perf_counter()
        lenet(image=one)
        seconds.append(time.perf_counter() - start)

    picture = OUT / ("lenet.svg" if shutil.which("dot") else "lenet.dot")
    model.draw(picture)

    print(f"held-out digits   {len(labels)}")
    print(f"accuracy          {accuracy:.2%}")
    print(
        f"time per image    {statistics.median(seconds) * 1e6:.0f} µs (one at a time, from Python)"
    )
    print(
        f"module            {_shown(OUT / 'lenet')}/  (module.so, module.h, example.c, weights, manifest)"
    )
    print(f"diagram           {_shown(picture)}")
    if picture.suffix == ".dot":
        print(
            "                  (install Graphviz and run it again for an SVG: apt install graphviz)"
        )
    return 0 if accuracy >= 0.97 else 1


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
