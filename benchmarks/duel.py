"""Side-by-side timing that survives a noisy machine: alternating blocks, contended blocks dropped, ratio of medians."""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prepare import BUILD, Prepared

BLOCK_SECONDS = 0.06  # short ones find gaps in what else the machine does
CONTENDED = 0.03  # share of a block spent waiting for a processor above which it does not count
ENOUGH = 3  # blocks that must count for a result to be one
KNOWS = {"bf16": ("graphc", "openvino"), "high": ("graphc",)}
"""Who has which precision besides f32."""
TRIES = 5  # blocks tried for one that counts before giving up


def precision_of(kind: str, precision: str) -> str:
    """What a contender computes in: peers that lack a precision use f32."""
    return precision if kind in KNOWS.get(precision, ()) else "f32"


class ContenderError(Exception):
    """A contender could not load or run its model."""


@dataclass(frozen=True)
class Times:
    """Seconds per call of the blocks that counted; `contended` when too few did and others had to stand in."""

    blocks: tuple[float, ...]
    dropped: int
    contended: bool

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


def ratio(peer: Times, own: Times) -> tuple[float, float]:
    """Ratio of medians, and its relative spread as that of a quotient of independent values."""
    return peer.median / own.median, math.hypot(peer.spread, own.spread)


class Contender:
    """One worker process. Raises ContenderError, from any method, with what the worker says went wrong."""

    def __init__(self, kind: str, files: Prepared, threads: int, *, urgent: bool = False) -> None:
        self.kind, self._urgent = kind, urgent
        job = {
            "kind": kind,
            "name": files.workload.name,
            "threads": threads,
            "precision": precision_of(kind, files.precision),
            "module": str(files.module),
            "onnx": str(files.onnx),
            "weights": str(files.weights),
            "feeds": str(files.feeds),
        }
        self._start("worker.py", job, f"{files.workload.name}-{kind}", threads)

    def _start(self, script: str, job: dict[str, Any], name: str, threads: int) -> None:
        """Starts the worker and waits until it has loaded; its complaints go to a log."""
        log = BUILD / "log" / f"{name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "TORCHINDUCTOR_CACHE_DIR": str(BUILD / "inductor"),
        }
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).parent / script), json.dumps(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment,
            )
        self.loaded = self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ContenderError(f"stopped with exit status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer

    def _ask(self, **request: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise ContenderError(f"stopped with exit status {self._process.wait()}") from None
        return self._read()

    def error(self, expected: Path) -> float:
        """The largest difference from the expected outputs, relative to the largest value of each."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "result.npz"
            self._ask(do="result", path=str(path))
            with (
                np.load(path, allow_pickle=False) as got,
                np.load(expected, allow_pickle=False) as want,
            ):
                if len(got.files) != len(want.files):
                    return math.inf
                return max(
                    _error(got[a], want[b]) for a, b in zip(got.files, want.files, strict=True)
                )

    def block(self, calls: int) -> tuple[float, float]:
        """Seconds per call and the share of time spent waiting, over `calls` calls."""
        start = time.monotonic()
        answer = self._ask(do="run", calls=calls, urgent=self._urgent)
        if self._urgent:
            time.sleep(time.monotonic() - start)  # whoever was pushed aside gets as much
        return answer["seconds"], answer["waited"]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it may have ended already
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def _error(got: np.ndarray, want: np.ndarray) -> float:
    if got.shape != want.shape or not np.array_equal(np.isfinite(got), np.isfinite(want)):
        return math.inf
    return float(np.abs(got - want).max() / np.abs(want).max())


def duel(contenders: list[Contender], rounds: int, seconds: float) -> dict[str, Times]:
    """Alternates blocks of all contenders until each has `rounds` that count.

    It stops early after TRIES times as many rounds, or after about `seconds` if every contender has ENOUGH blocks.
    """
    calls = {}
    for c in contenders:
        once = min(c.block(1)[0] for _ in range(3))
        calls[c.kind] = max(1, math.ceil(BLOCK_SECONDS / once))
    good: dict[str, list[float]] = {c.kind: [] for c in contenders}
    bad: dict[str, list[float]] = {c.kind: [] for c in contenders}
    end = time.monotonic() + seconds
    for _ in range(TRIES * rounds):
        fewest = min(map(len, good.values()))
        if fewest >= rounds or (time.monotonic() > end and fewest >= ENOUGH):
            break
        if time.monotonic() > end + 2 * seconds:
            break
        for c in contenders:
            took, waited = c.block(calls[c.kind])
            (good if waited < CONTENDED else bad)[c.kind].append(took)
    result = {}
    for kind, times in good.items():
        contended = len(times) < ENOUGH
        blocks = times + (sorted(bad[kind])[:ENOUGH] if contended else [])
        result[kind] = Times(tuple(blocks), len(bad[kind]), contended)
    return result
