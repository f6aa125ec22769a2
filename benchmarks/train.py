"""Time and memory of a training step, forward, backward and update, side by side with PyTorch and JAX.

    python benchmarks/train.py [NAME ...] [--threads 2] [--rounds 12] [--seconds 20] [--peers torch,jax] [--record]

Contenders train the same network from the same weights on the same batch with the same optimizer, in processes of
their own that take turns (see `duel.py`). Before anything is timed the losses of the first steps must agree.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from typing import Any

import machine
from duel import Contender, ContenderError, Times, duel, ratio
from prepare import version
from results import OURS, RESULTS, duration, today
from train_workloads import TRAININGS, Training

PEERS = {"torch": "torch", "torch.compile": "torch", "jax": "jax"}
"""The packages of the peers."""
GOAL = {True: 1.5, False: 1.1}
"""The best peer's time over ours, for small models and others."""
TOLERANCE = 2e-3
"""Of the losses of the first steps, relative: f32 sums in other orders, amplified by the updates in between."""


class Trainee(Contender):
    """One worker process that trains. Raises ContenderError as its base does.

    Attributes:
        loaded: `losses` of the first steps, seconds to get `ready`, and the `memory` of a step in KiB.
    """

    def __init__(self, kind: str, name: str, given: argparse.Namespace) -> None:
        self.kind, self._urgent = kind, given.urgent
        job: dict[str, Any] = {"kind": kind, "name": name, "threads": given.threads}
        self._start("train_worker.py", job, f"train-{name}-{kind}", given.threads)

    def agrees(self, other: Trainee) -> bool:
        """Whether the first losses are another's."""
        pairs = zip(self.loaded["losses"], other.loaded["losses"], strict=True)
        return all(abs(a - b) <= TOLERANCE * abs(b) for a, b in pairs)


@dataclass
class Row:
    """What was found for one workload, by contender: what the workers said, times, and what went wrong."""

    name: str
    goal: float
    loaded: dict[str, dict[str, Any]] = field(default_factory=dict)
    times: dict[str, Times] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> float | None:
        """The fastest peer's time over ours."""
        if OURS not in self.times:
            return None
        others = [ratio(t, self.times[OURS])[0] for k, t in self.times.items() if k != OURS]
        return min(others, default=None)

    def cells(self, peers: list[str]) -> list[str]:
        """A row of the table."""
        best = self.best
        return [
            self.name,
            *self._own(),
            *(self._peer(p) for p in peers),
            "" if best is None else f"{best:.2f}",
        ]

    def _own(self) -> list[str]:
        if OURS not in self.times:
            return [self.problems.get(OURS, "not run"), "", ""]
        took, loaded = self.times[OURS], self.loaded[OURS]
        told = f"{duration(took.median)} ±{took.spread:.0%}{'*' if took.contended else ''}"
        return [told, f"{loaded['ready']:.1f} s", _megabytes(loaded)]

    def _peer(self, peer: str) -> str:
        if peer not in self.times or OURS not in self.times:
            return "failed" if peer in self.problems else ""
        by, spread = ratio(self.times[peer], self.times[OURS])
        star = "*" if self.times[peer].contended else ""
        return f"{by:.2f} ±{by * spread:.2f}{star}, {_megabytes(self.loaded[peer])}"


def _megabytes(loaded: dict[str, Any]) -> str:
    return f"{loaded['memory'] / 1024:.3g} MB"


def headings(peers: list[str]) -> list[str]:
    """Of the table."""
    return ["workload", OURS, "ready in", "memory", *peers, "best peer"]


def measure(name: str, work: Training, peers: list[str], given: argparse.Namespace) -> Row:
    """Checks and measures one workload."""
    row = Row(name, GOAL[work.small])
    trainees: dict[str, Trainee] = {}
    try:
        for kind in (OURS, *peers):
            try:
                trainees[kind] = Trainee(kind, name, given)
                row.loaded[kind] = trainees[kind].loaded
            except ContenderError as error:
                row.problems[kind] = str(error)
        referee = trainees.get("torch") or trainees.get(peers[0]) or trainees.get(OURS)
        assert referee is not None or row.problems
        for kind, trainee in trainees.items():
            assert referee is not None
            if not trainee.agrees(referee):
                losses = f"{trainee.loaded['losses']} and {referee.loaded['losses']}"
                row.problems[kind] = f"the first losses differ from {referee.kind}'s: {losses}"
        fit = [t for kind, t in trainees.items() if kind not in row.problems]
        if OURS in trainees and OURS not in row.problems:
            row.times = duel(list(fit), given.rounds, given.seconds)
    except ContenderError as error:
        row.problems[OURS] = f"while timing: {error}"
    finally:
        for trainee in trainees.values():
            trainee.close()
    return row


def record(rows: list[Row], peers: list[str], facts: dict[str, str]) -> None:
    """Appends a section to RESULTS.md, without workloads of which too few blocks counted."""
    kept = [r for r in rows if r.times and not any(t.contended for t in r.times.values())]
    left = [r.name for r in rows if r not in kept]
    if left:
        facts = facts | {"left out, too few blocks without contention": ", ".join(left)}
    names = headings(peers)
    lines = [f"\n## Training steps, {today()}\n", *(f"- {k}: {v}" for k, v in facts.items()), ""]
    lines += [f"| {' | '.join(names)} |", "| --- |" + " ---: |" * (len(names) - 1)]
    lines += [f"| {' | '.join(r.cells(peers))} |" for r in kept]
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def arguments() -> argparse.Namespace:
    """What was asked for. Raises SystemExit for unknown names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=", ".join(TRAININGS))
    add("--threads", type=int, default=2)
    add("--rounds", type=int, default=12, help="blocks per contender")
    add("--seconds", type=float, default=20, help="about how long per workload")
    add("--peers", default=",".join(PEERS), help="of %(default)s")
    add("--urgent", action="store_true", help="real-time priority for the timed blocks, as root")
    add("--record", action="store_true", help="append to benchmarks/RESULTS.md")
    given = parser.parse_args()
    for asked, known in ((given.names, TRAININGS), (given.peers.split(","), PEERS)):
        if unknown := [name for name in asked if name not in known]:
            parser.error(f"there is no {', '.join(unknown)}, only {', '.join(known)}")
    return given


def main() -> int:
    """The command."""
    given = arguments()
    peers = [p for p in given.peers.split(",") if version(PEERS[p])]
    rows, stolen = [], machine.stolen()
    print(" | ".join(headings(peers)), flush=True)
    for name in given.names or TRAININGS:
        row = measure(name, TRAININGS[name], peers, given)
        rows.append(row)
        print(" | ".join(row.cells(peers)), f"(goal {row.goal})", flush=True)
        for kind, problem in row.problems.items():
            print(f"  {kind}: {problem}", flush=True)
    facts = {
        "machine": f"{machine.processor()}; {machine.memory()}",
        "versions": machine.versions(PEERS[p] for p in peers),
        "settings": f"f32, {given.threads} threads, {given.rounds} blocks each"
        + (", at real-time priority" if given.urgent else ""),
        "stolen by the hypervisor": f"{(machine.stolen() - stolen) / 100:.1f} s in this run",
    }
    if given.record:
        record(rows, peers, facts)
    return 1 if any(OURS not in r.times or r.problems for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
