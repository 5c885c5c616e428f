"""Claims: which nodes this run makes now, and which another run is making already.

Leases save work and decide nothing else: what is made does not depend on them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from saevx.resolve.plan import Node

if TYPE_CHECKING:
    from store import Lease, Store

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0

Held = dict[str, list[Node]]
"""Who makes something that this run wants -> what."""


class Claim:
    """Nodes that this run may make. A context manager; their leases end with it."""

    def __init__(self, nodes: list[Node], came: list[Node], leases: list[Lease]) -> None:
        self.nodes = nodes
        """What is to be made."""
        self.came = came
        """What another run has made since it was looked for."""
        self._leases = {lease.key: lease for lease in leases}

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *exc: Any) -> None:
        for key in list(self._leases):
            self.release(key)

    def release(self, key: str) -> None:
        """Let other runs have what is published, or has failed."""
        if lease := self._leases.pop(key, None):
            lease.release()


def claim(nodes: list[Node], store: Store) -> Claim | None:
    """Take the leases of all these nodes; None when another run has one of them."""
    wanted = ((node.spec.kind, node.key) for node in nodes)
    # A recipe may itself run what its batch is about to make: waiting would be for ever.
    leases = store.lease_all(where for where in wanted if not store.is_leased_here(*where))
    if leases is None:
        return None
    taken = Claim(nodes, [], leases)
    try:
        # Another run may have published, and released, between our look and our lease.
        taken.came, taken.nodes = look(nodes, store)
    except BaseException:
        taken.__exit__()
        raise
    for node in taken.came:
        taken.release(node.key)
    return taken


def look(nodes: Iterable[Node], store: Store) -> tuple[list[Node], list[Node]]:
    """Nodes that the store has, and those that it lacks."""
    there: list[Node] = []
    absent: list[Node] = []
    for node in nodes:
        (absent if store.find(node.spec.kind, node.key) is None else there).append(node)
    return there, absent


def who_holds(nodes: Iterable[Node], store: Store) -> Held:
    """Other runs that have leases of these nodes, and may be alive."""
    by_kind: dict[str, dict[str, Node]] = {}
    for node in nodes:
        if not store.is_leased_here(node.spec.kind, node.key):
            by_kind.setdefault(node.spec.kind, {})[node.key] = node
    held: Held = {}
    for kind, wanted in by_kind.items():
        for holder in store.leases(kind, wanted):
            if holder.may_be_alive:
                held.setdefault(str(holder), []).append(wanted[holder.key])
    return held


class Backoff:
    """Pauses between looks: longer while nothing happens, and where a look takes long itself."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._pause_s = _FIRST_PAUSE_S
        self._woke = time.monotonic()

    def pause(self) -> None:
        looked_s = time.monotonic() - self._woke
        time.sleep(max(self._pause_s, 4 * looked_s))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._woke = time.monotonic()
