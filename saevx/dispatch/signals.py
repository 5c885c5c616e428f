"""Signals that wait until what was submitted is recorded."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 3.0
"""For so long after a signal the deferring block may go on; a second signal interrupts at once."""


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer SIGINT and SIGTERM to the end of the block; interrupt a block that takes too long."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:  # a second signal, or the alarm
            raise KeyboardInterrupt
        received.append((number, frame))
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {one: signal.signal(one, handle) for one in numbers}
    try:
        yield
    finally:
        if received:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for one, old in before.items():
            signal.signal(one, old)
        for number, frame in received:
            old = before[signal.Signals(number)]
            if callable(old):
                old(number, frame)
            elif old == signal.SIG_DFL:
                signal.raise_signal(number)
