"""Errors of the store. Each message says what happened, where, and what to do."""

from __future__ import annotations


class StoreError(Exception):
    """An operation of the store failed."""


class MissingArtifact(StoreError):
    """The store does not hold a requested artifact."""

    def __init__(self, kind: str, key: str, root: str, reason: str) -> None:
        self.kind, self.key, self.root, self.reason = kind, key, root, reason
        super().__init__(f"no artifact {kind}/{key} in the store at {root}: {reason}")


class CorruptArtifact(StoreError):
    """A published artifact does not hold the bytes that were written."""


class NewerLayout(StoreError):
    """A later saevx wrote an artifact in a layout that this one cannot read."""


class SlurmError(Exception):
    """A Slurm command failed."""


class NoAnswer(SlurmError):
    """Slurm did not answer, so the state of its jobs is unknown."""
