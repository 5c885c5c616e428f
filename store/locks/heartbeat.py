"""The heartbeat of a process: one thread shows for all its leases and runs that it is alive."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Protocol

BEAT_S = 30.0


class HasHeartbeat(Protocol):
    path: Path

    def beat(self) -> None: ...


class Heartbeats:
    """Beats for what was added to it. Its thread runs only while there is something to beat for."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = Lock()
        self._things: dict[Path, HasHeartbeat] = {}
        self._thread: Thread | None = None
        self._woken = Event()

    def forget_all(self) -> None:
        """For a forked child: what its parent beats for is not the child's."""
        self._reset()  # a new lock too, since another thread may have held the old one

    def add(self, thing: HasHeartbeat) -> None:
        with self._lock:
            self._things[thing.path] = thing
            if self._thread is None:
                self._thread = Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()

    def remove(self, thing: HasHeartbeat) -> None:
        with self._lock:
            if self._things.get(thing.path) is thing:
                del self._things[thing.path]
            if not self._things:
                self._woken.set()

    def beats_for(self, path: Path) -> bool:
        return path in self._things

    def _run(self) -> None:
        while True:
            self._woken.wait(BEAT_S)
            with self._lock:
                self._woken.clear()
                if not self._things:
                    self._thread = None
                    return
                things = list(self._things.values())
            for thing in things:
                thing.beat()


heartbeats = Heartbeats()
os.register_at_fork(after_in_child=heartbeats.forget_all)
