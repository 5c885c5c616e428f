"""What a profile says that fits nothing: a misspelt type or column changes no job, silently."""

from __future__ import annotations

from saevx.dispatch.profiles import Profile
from saevx.query.flatten import explode
from saevx.resolve.plan import Plan
from spec import Keys, to_document
from spec.document import known_types


def lint_profile(profile: Profile, plan: Plan, keys: Keys) -> list[str]:
    """Each in a line. A profile serves many experiments: types and columns need not be in this
    plan, but known they must be."""
    if not profile.recipes and not profile.matches:
        return []
    types = known_types()
    fields = {"type", "key", *(name for found in types.values() for name in found.model_fields)}
    found = [
        f"profile {profile.name}: recipes.{name}: no type of spec has that name"
        for name in profile.recipes
        if name not in types
    ]
    for i, match in enumerate(profile.matches):
        name = match.where.get("type")
        where = f"profile {profile.name}: match[{i}]"
        if name is not None and name not in types:
            found.append(f"{where}: no type of spec has the name {name!r}")
            continue
        specs = [node.spec for node in plan.nodes.values() if type(node.spec).__name__ == name]
        columns = {column for spec in specs for column in explode(to_document(spec, keys))}
        for column in match.where:
            if columns and column not in columns:
                found.append(f"{where}: {name} has no column {column!r}")
            elif not columns and column.rpartition(".")[2] not in fields:
                found.append(f"{where}: no type of spec has a field {column!r}")
    return found
