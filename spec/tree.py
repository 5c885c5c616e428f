"""A spec drawn as a tree: what it is made of and, where a store is known, what is there already."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from .errors import DatasetError
from .key import Keys
from .model import ArtifactModel, SpecModel
from .site import Site

MARKS = {"present": "●", "missing": "○"}
"""A filled circle for what the store has, an empty one for what it lacks."""


@dataclass(frozen=True)
class Branch:
    """One artifact of the tree."""

    title: str
    """Type name and plain fields, as in `RandomPrototypes n=128 seed=17`."""
    key: str | None = None
    """None for a description, or where the key cannot be computed."""
    state: str | None = None
    """One of MARKS, or why it is not present, in words; None where nobody knows."""
    inputs: tuple["Branch", ...] = ()


def branch(spec: SpecModel, keys: Keys) -> Branch:
    """The tree of a spec: itself, and below it the artifacts that it is made from."""
    if not isinstance(spec, ArtifactModel):
        return Branch(title(_outline(spec)))
    try:
        key = keys.of(spec)
    except DatasetError:
        key = None
    inputs = tuple(branch(artifact, keys) for artifact in spec.inputs().values())
    return Branch(title(_outline(spec)), key, keys.site.state_of(spec.kind, key), inputs)


def title(document: dict[str, Any]) -> str:
    """A spec's document in one line: its type, and the fields that are no artifacts."""
    shown = [
        f"{name}={short(value)}"
        for name, value in document["fields"].items()
        if not _holds_artifact(value)
    ]
    return " ".join([document["type"], *shown])


def _holds_artifact(value: Any) -> bool:
    """Whether the value is, or has within a container, an artifact, which has its own branch."""
    if isinstance(value, dict):
        return ("key" in value and "type" in value) or any(map(_holds_artifact, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_artifact, value))


def short(value: Any) -> str:
    """A value of a document, or of a manifest, in few words."""
    if isinstance(value, dict) and "type" in value and "fields" in value:
        inside = ", ".join(f"{n}={short(v)}" for n, v in value["fields"].items() if v is not None)
        return f"{value['type']}({inside})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {short(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(short(item) for item in value)
    return str(value)


def lines(tree: Branch) -> list[str]:
    """The tree as lines of text with box-drawing characters; what comes again is drawn once."""
    return list(_lines(tree, "", "", set()))


def _lines(tree: Branch, lead: str, below: str, drawn: set[str]) -> Iterator[str]:
    mark, key = _mark(tree.state), f"  {tree.key[:8]}" if tree.key else ""
    if tree.key in drawn:
        yield f"{lead}{mark}{tree.title.split(' ')[0]}{key}  (as above)"
        return
    state = f"  ({tree.state})" if tree.state not in (None, *MARKS) else ""
    yield f"{lead}{mark}{tree.title}{key}{state}"
    if tree.key:
        drawn.add(tree.key)
    for i, child in enumerate(tree.inputs):
        here, further = ("└─ ", "   ") if i == len(tree.inputs) - 1 else ("├─ ", "│  ")
        yield from _lines(child, below + here, below + further, drawn)


def _mark(state: str | None) -> str:
    """What stands before a title: nothing where nobody knows the state."""
    return "" if state is None else MARKS.get(state, MARKS["missing"]) + " "


def _outline(spec: SpecModel) -> dict[str, Any]:
    """The spec's document as far as a title needs it: no key is computed."""
    fields = {name: getattr(spec, name) for name in type(spec).model_fields}
    document: dict[str, Any] = {
        "type": type(spec).__name__,
        "fields": {name: _outlined(value) for name, value in fields.items()},
    }
    return document | ({"key": ""} if isinstance(spec, ArtifactModel) else {})


def _outlined(value: Any) -> Any:
    if isinstance(value, SpecModel):
        return _outline(value)
    if isinstance(value, dict):
        return {name: _outlined(item) for name, item in value.items()}
    return [_outlined(item) for item in value] if isinstance(value, list | tuple) else value


def draw_html(spec: SpecModel, site: Site) -> str:
    """The tree as an HTML list, for notebooks."""
    return f'<ul style="list-style:none;padding-left:0">{_item(branch(spec, Keys(site)))}</ul>'


def _item(tree: Branch) -> str:
    mark = _mark(tree.state)
    name, _, fields = tree.title.partition(" ")
    key = f" <code>{tree.key[:8]}</code>" if tree.key else ""
    state = f" <i>{escape(tree.state)}</i>" if tree.state else ""
    inner = "".join(_item(child) for child in tree.inputs)
    below = f'<ul style="list-style:none">{inner}</ul>' if inner else ""
    return (
        f"<li>{mark}<b>{escape(name)}</b> <small>{escape(fields)}</small>{key}{state}{below}</li>"
    )
