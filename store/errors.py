"""What can go wrong in a store. Each message says what happened, where, and what to do."""

from __future__ import annotations


class StoreError(Exception):
    """A store could not do what was asked."""


class MissingArtifact(StoreError):
    """An artifact was asked for that the store does not hold."""

    def __init__(self, kind: str, key: str, root: str, reason: str) -> None:
        self.kind, self.key, self.root, self.reason = kind, key, root, reason
        super().__init__(f"no artifact {kind}/{key} in the store at {root}: {reason}")


class CorruptArtifact(StoreError):
    """Bytes of a published artifact are not those that were written."""


class NewerLayout(StoreError):
    """An artifact was written by a later saevx, in a layout this one cannot read."""


class SlurmError(Exception):
    """Slurm did not do what it was asked for."""


class NoAnswer(SlurmError):
    """Slurm could not be asked, or did not answer: nothing follows about its jobs."""
