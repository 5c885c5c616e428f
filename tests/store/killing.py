"""A process that is killed in place of one of its calls to the file system."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

CALLS = (
    "mkdir", "open", "write", "fsync", "close", "rename", "replace", "unlink", "rmdir", "utime",
)  # fmt: skip

MAKING = (
    ("mkdir", "lease"),
    ("open", "lease"),
    ("write", "lease"),
    ("utime", "lease"),
    ("rename", "lease"),
    ("rmdir", "trash"),
    ("mkdir", "build"),
    ("write", "build"),
    ("fsync", "build"),
    ("rename", "build"),
    ("fsync", "home"),
)
"""Calls in the making of a lease, its heartbeat, its end, a build, its flush and its publishing."""

COLLECTING = (
    ("open", "announcement"),
    ("unlink", "announcement"),
    ("rename", "home"),
    ("rename", "build"),
    ("rename", "back"),
    ("rename", "trash"),
    ("unlink", "trash"),
    ("rmdir", "trash"),
    ("replace", "dropped"),
    ("unlink", "dropped"),
    ("utime", "clock"),
    ("replace", "catalogue"),
)
"""Calls in announcing a collection and withdrawing that, moving to the trash, putting back,
deleting in the trash, keeping the manifest of what is given up, and writing the catalogue."""

_AREAS = {
    ".leases": "lease",
    ".build": "build",
    ".trash": "trash",
    ".catalogue": "catalogue",
    ".gc": "announcement",
    ".dropped": "dropped",
    ".runs": "record",
}
_AREA = re.compile(r"/(\.[a-z]+)(?:/|$)")


@dataclass
class Killer:
    """Kills this process in place of its n-th call of a kind, or in the middle of a write."""

    call: str | None
    area: str | None
    n: int

    @classmethod
    def at_random(cls, rng: random.Random, points: tuple[tuple[str, str], ...]) -> Killer:
        if rng.random() < (0.3 if points is MAKING else 0.1):
            return cls(None, None, rng.randint(1, 150))
        call, area = rng.choice(points)
        return cls(call, area, rng.randint(1, 5))

    def arm(self, log: Callable[..., None]) -> None:
        for name in CALLS:
            setattr(os, name, self._wrap(name, getattr(os, name), log))

    def _wrap(self, name: str, call: Callable[..., Any], log: Callable[..., None]) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            area = _area_of(name, *args)
            if self.call in (None, name) and self.area in (None, area) and area != "elsewhere":
                self.n -= 1
                if self.n == 0:
                    if name == "write":
                        call(args[0], args[1][: len(args[1]) // 2])
                    log("kill", name, area)
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped


def _area_of(call: str, where: Any, target: Any = None, *rest: Any) -> str:
    """What a path, or an open file, belongs to."""
    area = _area(where)
    returns = call == "rename" and area == "trash" and _area(target) != "trash"
    return "back" if returns else area


def _area(where: Any) -> str:
    if isinstance(where, int):
        try:
            where = os.readlink(f"/proc/self/fd/{where}")
        except OSError:
            return "elsewhere"
    path = os.fspath(where)
    if "/" not in path:
        return "trash"  # what is removed is named within its folder, which is open
    if path.endswith("/.clock"):
        return "clock"
    if found := _AREA.search(path):
        return _AREAS.get(found[1], "elsewhere")
    return "home" if re.search("/(results|shards)(/|$)", path) else "elsewhere"


def dying(n: int, names: Sequence[str]) -> None:
    """From here on, this process is killed in place of its n-th call of these names.

    A write gets half of its bytes out.
    """
    calls = 0

    def wrap(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == n:
                if name == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), 9)
            return call(*args, **kwargs)

        return wrapped

    for name in names:
        setattr(os, name, wrap(name, getattr(os, name)))
