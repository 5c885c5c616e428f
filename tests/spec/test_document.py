"""Documents find their types by name."""

from __future__ import annotations

from typing import ClassVar

import spec
from spec.document import known_types


def test_a_type_declared_again_replaces_the_first():
    """As when a notebook cell is run twice."""

    def declare(version_now: int) -> type[spec.Artifact]:
        class Twice(spec.Artifact):
            kind: ClassVar = "results"
            version: ClassVar[int] = version_now

        return Twice

    first, second = declare(1), declare(2)
    assert known_types()["Twice"] is second
    found = spec.from_document({"type": "Twice", "fields": {}})
    assert type(found) is second is not first
