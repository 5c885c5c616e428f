"""Ctrl-C that waits: what is submitted is written down before it ends anything."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENCE_S = 3.0
"""What still hangs so long after a signal is interrupted; a second signal does so at once."""


@contextmanager
def defer_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM take effect at the end, or soon."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            raise KeyboardInterrupt
        came.append((number, frame))
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handlers = {signal.SIGINT: note, signal.SIGTERM: note, signal.SIGALRM: interrupt}
    before = {one: signal.signal(one, handler) for one, handler in handlers.items()}
    try:
        yield
    finally:
        if came:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for one, old in before.items():
            signal.signal(one, old)
        for number, frame in came[:1]:
            old = before[signal.Signals(number)]
            if callable(old):
                old(number, frame)
            elif old == signal.SIG_DFL:
                signal.raise_signal(number)
