"""The heartbeat of a process: one thread touches the files of all its leases, drafts and runs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Protocol

BEAT_S = 30.0


class HasHeartbeat(Protocol):
    path: Path

    def beat(self) -> None: ...


class Heartbeats:
    """Calls `beat` on every member every `BEAT_S`. Its thread runs only while it has members."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all members: in a forked child, they belong to the parent."""
        self._lock = Lock()  # a new one: another thread may have held the old one at the fork
        self._members: dict[Path, HasHeartbeat] = {}
        self._thread: Thread | None = None
        self._wake = Event()

    def add(self, member: HasHeartbeat) -> None:
        with self._lock:
            self._members[member.path] = member
            if self._thread is None:
                self._thread = Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()

    def remove(self, member: HasHeartbeat) -> None:
        with self._lock:
            if self._members.get(member.path) is member:
                del self._members[member.path]
            if not self._members:
                self._wake.set()

    def beats_for(self, path: Path) -> bool:
        return path in self._members

    def _run(self) -> None:
        last = time.monotonic()
        while True:
            self._wake.wait(max(0.0, last + BEAT_S - time.monotonic()))
            with self._lock:
                self._wake.clear()
                if not self._members:
                    self._thread = None
                    return
                members = list(self._members.values())
            if time.monotonic() < last + BEAT_S:
                continue  # it was woken since the last member left, but others have joined
            for member in members:
                member.beat()
            last = time.monotonic()


heartbeats = Heartbeats()
os.register_at_fork(after_in_child=heartbeats.reset)
