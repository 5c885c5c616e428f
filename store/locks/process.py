"""Identify a process uniquely among all hosts that share a store."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple

from store.names import host_name


class ProcessId(NamedTuple):
    """One process, by facts that no later process on its host shares."""

    host: str
    boot: str
    """First 8 characters of the host's boot id: process ids are reused after a reboot."""
    namespace: str
    """Inode of the PID namespace: containers on one host share its boot id, not its process ids."""
    pid: int
    started: str
    """Start time in clock ticks since boot: process ids are reused."""

    @classmethod
    def here(cls) -> ProcessId:
        """Return the id of this process."""
        pid = os.getpid()
        state = _state_of(pid)
        return cls(host_name(), _boot(), _namespace(), pid, state[1] if state else "0")

    @classmethod
    def parse(cls, text: str) -> ProcessId | None:
        """Inverse of `str`; None where the text names no process."""
        try:
            host, boot, namespace, pid, started = text.rsplit(".", 4)
            return cls(host, boot, namespace, int(pid), started)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"{self.host}.{self.boot}.{self.namespace}.{self.pid}.{self.started}"

    def runs(self) -> bool | None:
        """Return whether it runs, by the process table; None where it has another one than ours."""
        if (self.host, self.boot, self.namespace) != (host_name(), _boot(), _namespace()):
            return None
        return _runs(self.pid, self.started)

    def is_of_another_boot(self) -> bool:
        """Whether it ran before this host was restarted, or on a second host with our name."""
        return self.host == host_name() and self.boot != _boot()


def _runs(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's process
    state = _state_of(pid)
    if state is None:
        return True  # /proc is missing or hides processes of others; os.kill found it
    return state[0] not in "ZX" and state[1] == started


def _state_of(pid: int) -> tuple[str, str] | None:
    """Return the state letter and start time of a process, from /proc."""
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
        import uuid

        return f"{uuid.getnode():012x}"[-8:]  # no boot id, but machines of one name stay apart


@lru_cache(maxsize=1)
def _namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return "0"
