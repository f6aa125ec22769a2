"""Memory of a run: what a process grows by when it opens a module and runs it, beside what the module says.

    python benchmarks/memory.py resnet50-b1 bert_base-b1    # modules that benchmarks/cpu.py has made

**weights** and **arena** are the module's own numbers, **growth** is the peak of the resident memory over three calls
minus what was resident before the module was opened (Python, NumPy and the inputs), **rest** what neither weights,
arena nor outputs account for. Columns are 10^6 bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from prepare import Prepared
from workloads import WORKLOADS

MB = 1e6


def resident(field: str) -> int:
    """`VmRSS` (now) or `VmHWM` (the peak) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure(module: str, feeds: str, threads: int) -> dict[str, int]:
    """Runs in a process of its own; growth and outputs in bytes."""
    import numpy as np

    import graphc

    with np.load(feeds) as file:
        arrays = {name: file[name] for name in file.files}
    graphc.open  # noqa: B018  loads what it needs before the count begins
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    opened = graphc.open(module, threads=threads)
    for _ in range(3):
        outputs = opened(**arrays)
    return {
        "growth": resident("VmHWM") - before,
        "outputs": sum(a.nbytes for a in outputs.values()),
    }


def main() -> int:
    if len(sys.argv) == 3 and sys.argv[1] == "--measure":
        print(json.dumps(measure(*json.loads(sys.argv[2]))))
        return 0
    names = sys.argv[1:] or [n for n in WORKLOADS if n.endswith("-b1")]
    print("| workload | weights | arena | growth | rest |\n| --- | ---: | ---: | ---: | ---: |")
    for name in names:
        files = Prepared(WORKLOADS[name], "native")
        if not files.note(files.module):
            print(f"{name}: no module; run benchmarks/cpu.py first", file=sys.stderr)
            continue
        job = json.dumps([str(files.module), str(files.feeds), 2])
        done = subprocess.run(
            [sys.executable, __file__, "--measure", job], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        about = json.loads((files.module / "manifest.json").read_text(encoding="utf-8"))
        weights, arena = about["weights"]["bytes"], about["arena_bytes"]
        rest = found["growth"] - weights - arena - found["outputs"]
        cells = (weights, arena, found["growth"], rest)
        print(f"| {name} | {' | '.join(f'{c / MB:.1f}' for c in cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
