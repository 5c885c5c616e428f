"""The errors that saevx raises on purpose, from all three rooms.

`except saevx.SaevxError` catches every one of them. It is a tuple of base classes, since spec and
store share no code: it works in `except`, in `isinstance` and in `pytest.raises`.
"""

import traceback

from pydantic import ValidationError

from spec.errors import DatasetError, SpecError
from store.errors import CorruptArtifact, MissingArtifact, NoAnswer, SlurmError, StoreError


class HowError(Exception):
    """Something went wrong in how things are made, rather than in what or where."""


class ConfigError(HowError):
    """saevx.toml, or a flag, that cannot be used."""


class ExperimentError(HowError):
    """An experiment file that cannot be used."""


class QueryError(HowError):
    """A search that cannot be understood, or names a field that there is not."""


class RecipeError(HowError):
    """A recipe that cannot make its artifact."""


class WeightsError(RecipeError):
    """A ViT's weights that cannot be had, or do not fit."""


class RunFailed(HowError):
    """A run that ended without all of its targets."""


class JobFailed(HowError):
    """A job in another process that did not make what it was to make."""


class Detached(HowError):
    """A run that stopped watching what it has sent off; that goes on."""


class SaevxWarning(UserWarning):
    """Something was made, but looks wrong."""


SaevxError = (SpecError, StoreError, SlurmError, HowError, ValidationError)


def explain(error: BaseException) -> str:
    """Return an error's message if saevx raised it on purpose, else its traceback."""
    if isinstance(error, SaevxError):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()


__all__ = [
    "ConfigError",
    "CorruptArtifact",
    "DatasetError",
    "Detached",
    "ExperimentError",
    "HowError",
    "JobFailed",
    "MissingArtifact",
    "NoAnswer",
    "QueryError",
    "RecipeError",
    "RunFailed",
    "SaevxError",
    "SaevxWarning",
    "SlurmError",
    "SpecError",
    "StoreError",
    "WeightsError",
    "explain",
]
