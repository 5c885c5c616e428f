"""Leases of what a run makes, and the other processes that hold leases of what it wants.

Leases save work and decide nothing else: what is made does not depend on them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from store import Lease, Store
    from store.layout import Ref

T = TypeVar("T")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0


class HeldLeases:
    """Leases of this process. A context manager: those not released before are at its end."""

    def __init__(self, leases: Iterable[Lease]) -> None:
        self._by_key = {lease.key: lease for lease in leases}

    def __enter__(self) -> HeldLeases:
        return self

    def __exit__(self, *exc: Any) -> None:
        for key in list(self._by_key):
            self.release(key)

    def release(self, key: str) -> None:
        """Let other runs have what is published or has failed."""
        if lease := self._by_key.pop(key, None):
            lease.release()


def lease_all(store: Store, wanted: Iterable[Ref]) -> HeldLeases | None:
    """Lease all of several (kind, key); return None, with no lease, if another process has one.

    Those that this process has leased already are left out: a recipe may itself run what its batch
    is about to make, and would wait for itself.
    """
    leases = store.lease_all(ref for ref in wanted if not store.is_leased_here(*ref))
    return None if leases is None else HeldLeases(leases)


def other_owners(store: Store, wanted: Mapping[Ref, T]) -> dict[str, list[T]]:
    """Return the other processes that make some of `wanted` and may be alive -> what they make."""
    found: dict[str, list[T]] = {}
    for kind in sorted({kind for kind, _ in wanted}):
        keys = [key for k, key in wanted if k == kind and not store.is_leased_here(k, key)]
        for owner in store.leases(kind, keys):
            if owner.may_be_alive:
                found.setdefault(str(owner), []).append(wanted[kind, owner.key])
    return found


class Backoff:
    """Pauses between polls of the store: longer while nothing changes, and when polls are slow."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._pause_s = _FIRST_PAUSE_S
        self._woke = time.monotonic()

    def pause(self) -> None:
        polled_s = time.monotonic() - self._woke
        time.sleep(max(self._pause_s, 4 * polled_s))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._woke = time.monotonic()
