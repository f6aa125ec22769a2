"""Batches: each row once, the same order each time, ahead of the reader, and always an end."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphc.train.ahead import ahead
from graphc.train.batches import Batch, Loader
from graphc.train.data import Columns, open_data
from graphc.train.errors import DataError
from graphc.train.order import uniform_order
from tests.train.ports import port

X = port("x", "i64", "N")


def numbers(count: int) -> Columns:
    return Columns((X,), {"x": np.arange(count)}, "numbers")


def values(batches: Iterator[Batch]) -> list[list[int]]:
    return [b.arrays["x"].tolist() for b in batches]


def test_an_order_is_a_permutation_that_never_changes() -> None:
    assert uniform_order(8, 1, 2).tolist() == [4, 2, 0, 6, 1, 5, 7, 3]
    orders = [uniform_order(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(o) == list(range(100)) for o in orders)
    assert len({tuple(o) for o in orders}) == 4


def test_positions_are_uniform() -> None:
    counts = np.zeros((6, 6))
    for epoch in range(1200):
        counts[np.arange(6), uniform_order(6, 3, epoch)] += 1
    chi_squared = ((counts - 200) ** 2 / 200).sum()
    assert chi_squared < 52.6  # the 99.9 % point for 25 degrees of freedom


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_every_row_once_in_the_same_order(threads: int) -> None:
    loader = Loader(numbers(23), 5, seed=7, threads=threads)
    first = values(loader.epoch(0))
    assert [len(b) for b in first] == [5, 5, 5, 5, 3] and loader.batches == 5
    assert sorted(n for batch in first for n in batch) == list(range(23))
    assert values(loader.epoch(0)) == first != values(loader.epoch(1))
    assert values(loader.epoch(0, 3)) == first[3:]
    assert [b.number for b in loader.epoch(0, 3)] == [3, 4]
    assert values(Loader(numbers(5), 2, shuffle=False).epoch(4)) == [[0, 1], [2, 3], [4]]


def test_a_fixed_batch_drops_what_is_left_over() -> None:
    loader = Loader(numbers(23), 5, fixed=True)
    assert [len(b) for b in loader.epoch(0)] == [5] * 4 and loader.rows == 20
    with pytest.raises(DataError, match="batches of 32 rows and the data has 23"):
        Loader(numbers(23), 32, fixed=True)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_iterable_keeps_its_order_and_starts_anew(threads: int) -> None:
    class Lines:
        def __iter__(self) -> Iterator[dict[str, int]]:
            return ({"x": i} for i in range(8))

    loader = Loader(open_data(Lines(), (X,)), 3, threads=threads)
    assert loader.batches is None
    assert values(loader.epoch(0)) == values(loader.epoch(1)) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert values(loader.epoch(2, 1)) == [[3, 4, 5], [6, 7]]
    fixed = Loader(open_data(Lines(), (X,)), 3, fixed=True, threads=threads)
    assert values(fixed.epoch(0)) == [[0, 1, 2], [3, 4, 5]]
    once = Loader(open_data(({"x": i} for i in range(4)), (X,)), 2, threads=threads)
    assert values(once.epoch(0)) == [[0, 1], [2, 3]]
    with pytest.raises(DataError, match="generator, which can be read once"):
        list(once.epoch(1))


def test_errors_in_threads_come_out_where_they_belong() -> None:
    samples = [{"x": i} if i != 7 else {"x": "seven"} for i in range(12)]
    loader = Loader(open_data(samples, (X,)), 2, shuffle=False, threads=3)
    batches = loader.epoch(0)
    assert [next(batches).arrays["x"].tolist() for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(DataError, match=r"data\[7\]: `x` holds <U5"):
        next(batches)

    def broken() -> Iterator[dict[str, int]]:
        yield {"x": 1}
        raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"):
        list(Loader(open_data(broken(), (X,)), 2).epoch(0))


def test_no_more_than_the_depth_waits_and_the_threads_go() -> None:
    started: list[int] = []
    before = threading.active_count()

    def job(i: int) -> int:
        started.append(i)
        return i

    results = ahead(((lambda i=i: job(i)) for i in range(1000)), threads=2, depth=4)
    assert next(results) == 0
    time.sleep(0.05)
    assert len(started) <= 5
    results.close()
    assert threading.active_count() == before
    assert list(ahead([], threads=2, depth=4)) == []


def test_an_interrupt_ends_a_program_whose_reader_is_stuck(tmp_path: Path) -> None:
    program = """
import signal, sys, threading, time
from graphc.train.ahead import ahead
signal.alarm(30)
print("ready", flush=True)
for result in ahead([lambda: time.sleep(1000)], 1, 1):
    pass
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.2)
    child.send_signal(2)
    _, errors = child.communicate(timeout=20)
    assert child.returncode != 0 and "KeyboardInterrupt" in errors


@pytest.mark.parametrize(
    ("size", "seed", "message"), [(0, 0, "one row"), (1, -1, "seed"), (1, 1 << 64, "seed")]
)
def test_arguments_are_checked(size: int, seed: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Loader(numbers(3), size, seed)
    with pytest.raises(DataError, match="no rows"):
        Loader(numbers(0), 1)
