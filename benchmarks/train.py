"""Time of a training step, forward, backward and update, side by side with PyTorch.

    python benchmarks/train.py [NAME ...] [--threads 2] [--rounds 12] [--seconds 20]

Contenders train the same network from the same weights on the same batch with the same optimizer, in processes of
their own that take turns (see `duel.py`). Before anything is timed the losses of the first steps must agree.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from duel import Contender, ContenderError, duel, ratio
from train_workloads import TRAININGS, Training

PEERS = ("torch", "torch.compile")
GOAL = {True: 1.5, False: 1.1}
"""The best peer's time over ours, for small models and others."""
TOLERANCE = 2e-3
"""Of the losses of the first steps, relative: f32 sums in other orders, amplified by the updates in between."""


class Trainee(Contender):
    """One worker process that trains. Raises ContenderError as its base does.

    Attributes:
        loaded: `losses` of the first steps, seconds to get `ready`, and `peak` memory in KiB.
    """

    def __init__(self, kind: str, name: str, threads: int) -> None:
        self.kind, self._urgent = kind, False
        job: dict[str, Any] = {"kind": kind, "name": name, "threads": threads}
        self._start("train_worker.py", job, f"train-{name}-{kind}", threads)

    def agrees(self, other: Trainee) -> bool:
        """Whether the first losses are another's."""
        pairs = zip(self.loaded["losses"], other.loaded["losses"], strict=True)
        return all(abs(a - b) <= TOLERANCE * abs(b) for a, b in pairs)


def compare(name: str, work: Training, arguments: argparse.Namespace) -> bool:
    """Measures one workload, prints a row per contender, and says whether it went well."""
    trainees: list[Trainee] = []
    for kind in ("graphc", *PEERS):
        try:
            trainees.append(Trainee(kind, name, arguments.threads))
        except ContenderError as error:
            print(f"{name:16} {kind:14} did not run: {error}", flush=True)
    kinds = {t.kind: t for t in trainees}
    try:
        if "graphc" not in kinds or "torch" not in kinds:
            return False
        wrong = [t.kind for t in trainees if not t.agrees(kinds["torch"])]
        if wrong:
            losses = {t.kind: t.loaded["losses"] for t in trainees}
            print(f"{name}: the first losses differ: {losses}", flush=True)
            return False
        times = duel(list(trainees), arguments.rounds, arguments.seconds)
        best = min((k for k in times if k != "graphc"), key=lambda k: times[k].median)
        for kind, took in times.items():
            loaded = kinds[kind].loaded
            told = f"{took.median * 1e3:9.3f} ms ± {took.spread:4.0%}"
            told += f"   ready in {loaded['ready']:5.1f} s   peak {loaded['peak'] / 1024:6.0f} MB"
            if kind != "graphc":
                by, spread = ratio(took, times["graphc"])
                told += f"   {by:5.2f} ± {by * spread:.2f} times ours"
            noise = "   (contended)" if took.contended else ""
            print(f"{name:16} {kind:14} {told}{noise}", flush=True)
        reached = ratio(times[best], times["graphc"])[0]
        print(f"{name:16} best peer / ours {reached:.2f}, goal {GOAL[work.small]}", flush=True)
        return True
    finally:
        for trainee in trainees:
            trainee.close()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TRAININGS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12, help="blocks per contender")
    parser.add_argument("--seconds", type=float, default=20, help="about how long per workload")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in TRAININGS]
    if unknown:
        parser.error(f"no workload {', '.join(unknown)}; there are {', '.join(TRAININGS)}")
    done = [compare(n, TRAININGS[n], arguments) for n in arguments.names or TRAININGS]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
