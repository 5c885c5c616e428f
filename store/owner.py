"""Who is making something: a process, told apart from every other on hosts that share a store."""

from __future__ import annotations

import os
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from store.names import host_name


class Life(Enum):
    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"
    """It lives, or lived, where this process cannot look."""


class Owner(NamedTuple):
    """One process, by facts that no later process on its host repeats."""

    host: str
    boot: str
    """First part of the host's boot id: a process id means nothing after a reboot."""
    namespace: str
    """Containers on one host share its boot id, but not its process ids."""
    pid: int
    started: str
    """In clock ticks since boot: process ids are used again."""

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        state = _state_of(pid)
        return cls(host_name(), _boot(), _namespace(), pid, state[1] if state else "0")

    @classmethod
    def parse(cls, text: str) -> Owner:
        """Inverse of `str`. Raises ValueError."""
        host, boot, namespace, pid, started = text.rsplit(".", 4)
        return cls(host, boot, namespace, int(pid), started)

    def __str__(self) -> str:
        return f"{self.host}.{self.boot}.{self.namespace}.{self.pid}.{self.started}"

    def life(self) -> Life:
        if self.host != host_name():
            return Life.UNKNOWN
        if self.boot != _boot():
            return Life.DEAD
        if self.namespace != _namespace():
            return Life.UNKNOWN
        return Life.ALIVE if _runs(self.pid, self.started) else Life.DEAD


def _runs(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's process
    state = _state_of(pid)
    if state is None:
        return True  # /proc hides other users' processes, or there is no /proc: believe the kill
    return state[0] not in "ZX" and state[1] == started


def _state_of(pid: int) -> tuple[str, str] | None:
    """State letter and start time of a process, from /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command, in parentheses, may itself hold spaces and parentheses.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0].decode(), fields[19].decode()


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(8)
    except OSError:
        return "0"


@lru_cache(maxsize=1)
def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"
