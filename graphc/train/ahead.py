"""Work that is done ahead of its use, in threads: results come in order, and never more than a few wait.

The threads are daemons and nothing waits for them without a limit, so that neither an error, nor Ctrl-C, nor a reader
that stops early can hang the program, whatever the work is stuck in.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
Job = Callable[[], T]

GRACE = 0.5
"""Seconds that the end waits for a job that runs; its result is dropped."""


def ahead(jobs: Iterable[Job[T]], threads: int, depth: int) -> Generator[T, None, None]:
    """The jobs' results in the jobs' order, computed by `threads` threads up to `depth` ahead of the reader.

    `jobs` is iterated by the caller's thread, as far as needed. With no threads each job runs when its result is asked
    for. The first job that raises ends it all: its exception comes out where its result would have. Close the iterator
    (or exhaust it) to stop the threads.
    """
    if threads <= 0:
        for job in jobs:
            yield job()
        return
    tasks: SimpleQueue[tuple[Future[T], Job[T]] | None] = SimpleQueue()
    workers = [
        threading.Thread(target=_work, args=(tasks,), name=f"graphc-ahead-{i}", daemon=True)
        for i in range(threads)
    ]
    pending: deque[Future[T]] = deque()
    source = iter(jobs)
    try:
        for worker in workers:
            worker.start()
        while True:
            while len(pending) < max(depth, 1):
                try:
                    task = next(source)
                except StopIteration:
                    break
                future: Future[T] = Future()
                pending.append(future)
                tasks.put((future, task))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        for _ in workers:
            tasks.put(None)
        for worker in workers:
            if worker.ident is not None:
                worker.join(GRACE)


def _work(tasks: SimpleQueue[tuple[Future[T], Job[T]] | None]) -> None:
    while (task := tasks.get()) is not None:
        future, job = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = job()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
