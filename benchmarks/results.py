"""What a run found, and how it is told: a table on the terminal, JSON, and a dated section of RESULTS.md."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from duel import Times, ratio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

OURS = "graphc"
TOLERANCES = {"f32": 1e-4, "high": 2e-5, "bf16": 5e-2}
"""Of outputs against PyTorch's in f32, maximum norm, relative to the largest, by the precision computed in."""
RESULTS = Path(__file__).parent / "RESULTS.md"


@dataclass
class Outcome:
    """One contender on one workload: its times and its error against PyTorch, or what went wrong."""

    error: float | None = None
    times: Times | None = None
    problem: str | None = None
    precision: str = "f32"

    @property
    def wrong(self) -> bool:
        return self.error is not None and not self.error <= TOLERANCES[self.precision]

    @property
    def counts(self) -> bool:
        """Whether its time may be compared."""
        return self.times is not None and not self.wrong


@dataclass
class Row:
    """One workload."""

    name: str
    compile_seconds: float | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def ratio(self, peer: str) -> tuple[float, float] | None:
        """The peer's time over ours with its relative spread; None if either is missing or wrong."""
        own, other = self.outcomes.get(OURS), self.outcomes.get(peer)
        if not own or not other or not own.counts or not other.counts:
            return None
        assert own.times is not None and other.times is not None
        return ratio(other.times, own.times)

    @property
    def best(self) -> tuple[str, float, float] | None:
        """The fastest peer: its name, ratio and spread."""
        found = [(kind, r) for kind in self.outcomes if kind != OURS and (r := self.ratio(kind))]
        return min(((k, *r) for k, r in found), key=lambda x: x[1], default=None)

    @property
    def contended(self) -> list[str]:
        """Contenders for which too few blocks counted."""
        return [k for k, o in self.outcomes.items() if o.times is not None and o.times.contended]


def _ratio(row: Row, peer: str) -> str:
    outcome = row.outcomes.get(peer)
    if outcome is None:
        return ""
    if outcome.problem:
        return "failed"
    if outcome.wrong:
        return f"wrong ({outcome.error:.0e})"
    found = row.ratio(peer)
    if found is None or outcome.times is None:
        return ""
    return f"{found[0]:.2f} ±{found[0] * found[1]:.2f}{'*' if outcome.times.contended else ''}"


def duration(seconds: float) -> str:
    """Three digits, in the unit that needs no zeros."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _cells(row: Row, peers: Sequence[str]) -> list[str]:
    own = row.outcomes.get(OURS, Outcome(problem="not run"))
    if own.problem or own.times is None:
        time_told = "failed"
    else:
        time_told = f"{duration(own.times.median)} ±{100 * own.times.spread:.0f} %"
        time_told += "*" if own.times.contended else ""
    error = "" if own.error is None else f"{own.error:.0e}" + (" WRONG" if own.wrong else "")
    best = row.best
    built = "" if row.compile_seconds is None else f"{row.compile_seconds:.1f} s"
    return [
        row.name,
        built,
        time_told,
        error,
        *(_ratio(row, p) for p in peers),
        "" if best is None else f"{best[1]:.2f}",
    ]


def _headings(peers: Sequence[str]) -> list[str]:
    return ["workload", "built in", "graphc", "error", *peers, "best peer"]


def table(rows: Sequence[Row], peers: Sequence[str]) -> Table:
    """For the terminal; a ratio below 1 is red."""
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(_headings(peers)):
        made.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        cells = _cells(row, peers)
        if row.best is not None:
            colour = "red" if row.best[1] < 1 else "green"
            cells[-1] = f"[{colour}]{cells[-1]}[/]"
        made.add_row(*cells)
    return made


def problems(rows: Sequence[Row]) -> list[str]:
    """A line for everything that failed, was wrong or was measured under contention."""
    lines = []
    for row in rows:
        for kind, outcome in row.outcomes.items():
            if outcome.problem:
                lines.append(f"{row.name}, {kind}: {outcome.problem}")
            elif outcome.wrong:
                lines.append(f"{row.name}, {kind}: differs from PyTorch by {outcome.error:.1e}")
        if row.contended:
            lines.append(
                f"{row.name}: too few blocks without contention of {', '.join(row.contended)} (*)"
            )
    return lines


def show(rows: Sequence[Row], peers: Sequence[str]) -> None:
    """Prints table and problems."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160  # a file has no edge
    console.print(table(rows, peers))
    console.print(
        "Peer's median time / ours; above 1 ours is faster. Error: against PyTorch, maximum norm."
    )
    for line in problems(rows):
        console.print(line, markup=False, style="yellow")


def as_json(rows: Sequence[Row], facts: dict[str, str]) -> dict[str, Any]:
    """All numbers, for a program."""
    return {
        "facts": facts,
        "workloads": {
            row.name: {
                "compile_seconds": row.compile_seconds,
                "contenders": {
                    kind: {
                        "problem": o.problem,
                        "error": o.error,
                        "median": o.times and o.times.median,
                        "spread": o.times and o.times.spread,
                        "blocks": o.times and list(o.times.blocks),
                        "dropped": o.times and o.times.dropped,
                        "contended": o.times and o.times.contended,
                        "ratio": (found := row.ratio(kind)) and found[0],
                    }
                    for kind, o in row.outcomes.items()
                },
            }
            for row in rows
        },
    }


def record(rows: Sequence[Row], peers: Sequence[str], facts: dict[str, str], when: str) -> None:
    """Appends a section to RESULTS.md, without the workloads that were measured under contention."""
    kept = [r for r in rows if not r.contended]
    left_out = [r.name for r in rows if r.contended]
    lines = [f"\n## {when}\n", *(f"- {name}: {value}" for name, value in facts.items())]
    if left_out:
        lines.append(f"- left out, too few blocks without contention: {', '.join(left_out)}")
    headings = _headings(peers)
    lines += ["", f"| {' | '.join(headings)} |", "| --- |" + " ---: |" * (len(headings) - 1)]
    lines += [f"| {' | '.join(_cells(r, peers))} |" for r in kept]
    told = problems(kept)
    lines += ["", *(f"- {' '.join(line.split())[:200]}" for line in told)] if told else []
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def today() -> str:
    return time.strftime("%Y-%m-%d")
