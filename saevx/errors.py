"""The errors that saevx, spec and store raise on purpose.

`except saevx.SaevxError` catches all of them. It is a tuple of base classes, since spec and store
share no code: it works in `except`, in `isinstance` and in `pytest.raises`.
"""

import traceback

from pydantic import ValidationError

from spec.errors import DatasetError, SpecError
from store.errors import CorruptArtifact, MissingArtifact, NoAnswer, SlurmError, StoreError


class BaseSaevxError(Exception):
    """Base class of the errors of saevx itself, apart from those of spec and store."""


class ConfigError(BaseSaevxError):
    """saevx.toml or an option is not valid."""


class ExperimentError(BaseSaevxError):
    """An experiment file cannot be used."""


class QueryError(BaseSaevxError):
    """A query is not valid, or names a field that does not exist."""


class RecipeError(BaseSaevxError):
    """A recipe cannot make its artifact."""


class WeightsError(RecipeError):
    """The weights of a ViT cannot be loaded, or do not fit it."""


class RunFailed(BaseSaevxError):
    """A run ended without making all of its targets."""


class JobFailed(BaseSaevxError):
    """A job in another process did not make its artifacts."""


class Detached(BaseSaevxError):
    """A run stopped monitoring the jobs that it submitted; these go on."""


class SaevxWarning(UserWarning):
    """An artifact was made, but looks wrong."""


SaevxError = (SpecError, StoreError, SlurmError, BaseSaevxError, ValidationError)


def explain(error: BaseException) -> str:
    """Return an error's message if saevx raised it on purpose, else its traceback."""
    if isinstance(error, SaevxError):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()


__all__ = [
    "BaseSaevxError",
    "ConfigError",
    "CorruptArtifact",
    "DatasetError",
    "Detached",
    "ExperimentError",
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
