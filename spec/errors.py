"""Errors of specs and datasets. Messages say what is wrong, where, and what to change."""


class SpecError(ValueError):
    """A spec that makes no sense, or cannot be given a key."""


class DatasetError(SpecError):
    """A dataset on disk that is missing, incomplete, or not in the layout that its spec expects."""
