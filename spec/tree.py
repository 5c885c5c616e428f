"""A spec drawn as a tree: what it is made of and, where a store is known, what is there already."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from .base import Artifact, Spec
from .errors import DatasetError
from .key import Keys
from .site import Site

MARKS = {"present": "●", "missing": "○"}
"""A filled circle for what the store has, an empty one for what it lacks."""


@dataclass(frozen=True)
class Branch:
    """One artifact of the tree."""

    title: str
    """Type name and plain fields, as in `RandomPrototypes n=128 seed=17`."""
    key: str | None
    """None for a description, or where the key cannot be computed."""
    state: str | None
    inputs: tuple["Branch", ...]


def branch(spec: Spec, keys: Keys) -> Branch:
    """The tree of a spec: itself, and below it the artifacts that it is made from."""
    if not isinstance(spec, Artifact):
        return Branch(title(spec), None, None, ())
    try:
        key = keys.of(spec)
    except DatasetError:
        key = None
    inputs = tuple(branch(artifact, keys) for artifact in spec.inputs().values())
    return Branch(title(spec), key, keys.site.state_of(spec), inputs)


def title(spec: Spec) -> str:
    """A spec in one line: its type, and the fields that are no artifacts."""
    words = [type(spec).__name__]
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if not isinstance(value, Artifact):
            words.append(f"{name}={_short(value)}")
    return " ".join(words)


def _short(value: Any) -> str:
    if not isinstance(value, Spec):
        return str(value)
    inside = {name: getattr(value, name) for name in type(value).model_fields}
    shown = ", ".join(f"{n}={_short(v)}" for n, v in inside.items() if v is not None)
    return f"{type(value).__name__}({shown})"


def lines(tree: Branch, lead: str = "", below: str = "") -> Iterator[str]:
    """The tree as lines of text with box-drawing characters."""
    mark = MARKS.get(tree.state or "", "?" if tree.state else "")
    key = f"  {tree.key[:8]}" if tree.key else ""
    yield f"{lead}{mark + ' ' if mark else ''}{tree.title}{key}"
    for i, child in enumerate(tree.inputs):
        last = i == len(tree.inputs) - 1
        yield from lines(
            child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")
        )


def draw_html(spec: Spec, site: Site) -> str:
    """The tree as an HTML list, for notebooks."""
    return f'<ul style="list-style:none;padding-left:0">{_item(branch(spec, Keys(site)))}</ul>'


def _item(tree: Branch) -> str:
    mark = MARKS.get(tree.state or "", "?" if tree.state else "")
    name, _, fields = tree.title.partition(" ")
    key = f" <code>{tree.key[:8]}</code>" if tree.key else ""
    state = f" <i>{escape(tree.state)}</i>" if tree.state else ""
    inner = "".join(_item(child) for child in tree.inputs)
    below = f'<ul style="list-style:none">{inner}</ul>' if inner else ""
    return (
        f"<li>{mark} <b>{escape(name)}</b> <small>{escape(fields)}</small>{key}{state}{below}</li>"
    )
