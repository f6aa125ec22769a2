"""Ctrl-C and `kill` as a question that is answered between two steps, when the state is whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn


class Asked:
    """Whether somebody has asked the run to stop."""

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0

    def obey(self) -> NoReturn:
        """Stops as the signal would have: KeyboardInterrupt, or the exit code that a shell expects of `kill`."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + self.signal)
        raise KeyboardInterrupt


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """Notes SIGINT and SIGTERM instead of acting on them; a second signal acts at once.

    In a thread other than the main one, which gets no signals, nothing changes.
    """
    asked = Asked()

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            asked.signal = number
            asked.obey()
        asked.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
