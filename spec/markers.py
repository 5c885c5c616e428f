"""Marks for spec fields that count differently in a key: `Annotated[int, Exec()]`."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exec:
    """The field says how or where to compute, never what: it is left out of the key.

    Examples: a device, a number of workers, the folder where a dataset happens to lie.
    """


@dataclass(frozen=True)
class Since:
    """The field was added after artifacts of this type existed.

    While its value equals `legacy`, the field is left out of the key, so older artifacts keep
    theirs. `legacy` is the behaviour of the code before the field came; it stays frozen even when
    the field's default changes later, which then makes new keys, as it must.
    """

    legacy: Any
