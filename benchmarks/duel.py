"""Side-by-side timing that survives a noisy machine: alternating blocks, contended blocks dropped, ratio of medians."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

BLOCK_SECONDS = 0.15
CONTENDED = 0.03  # share of a block spent waiting for a processor above which it does not count


@dataclass(frozen=True)
class Times:
    """Seconds per call of the blocks that counted."""

    blocks: tuple[float, ...]
    dropped: int

    @property
    def median(self) -> float:
        return statistics.median(self.blocks)

    @property
    def spread(self) -> float:
        """Half the interquartile range over the median."""
        if len(self.blocks) < 4:
            return (max(self.blocks) - min(self.blocks)) / 2 / self.median
        q = statistics.quantiles(self.blocks, n=4)
        return (q[2] - q[0]) / 2 / self.median


class Contender:
    """One worker process."""

    def __init__(self, kind: str, model: str, feeds: Path, threads: int) -> None:
        self.kind = kind
        here = Path(__file__).parent
        self._process = subprocess.Popen(
            [sys.executable, str(here / "worker.py"), kind, model, str(feeds), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.kind} stopped with exit status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ask(self, **request: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._read()

    def result(self) -> list[np.ndarray]:
        """The outputs, for comparison."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "result.npz"
            self._ask(do="result", path=str(path))
            with np.load(path, allow_pickle=False) as file:
                return [file[k] for k in file.files]

    def block(self, calls: int) -> tuple[float, float]:
        """Seconds per call and the share of time spent waiting, over `calls` calls."""
        answer = self._ask(do="run", calls=calls)
        return answer["seconds"], answer["waited"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def duel(contenders: list[Contender], rounds: int) -> dict[str, Times]:
    """Alternates blocks of all contenders until each has `rounds` that count, or five times as many were tried."""
    calls = {}
    for c in contenders:
        once = min(c.block(1)[0] for _ in range(3))
        calls[c.kind] = max(1, int(BLOCK_SECONDS / once))
    good: dict[str, list[float]] = {c.kind: [] for c in contenders}
    bad: dict[str, list[float]] = {c.kind: [] for c in contenders}
    for _ in range(5 * rounds):
        todo = [c for c in contenders if len(good[c.kind]) < rounds]
        if not todo:
            break
        for c in todo:
            c.block(max(1, calls[c.kind] // 5))  # back into the caches after the others' turn
            seconds, waited = c.block(calls[c.kind])
            (good if waited < CONTENDED else bad)[c.kind].append(seconds)
    return {
        kind: Times(tuple(times if len(times) >= 3 else times + sorted(bad[kind])[:rounds]), len(bad[kind]))
        for kind, times in good.items()
    }
