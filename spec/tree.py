"""A spec drawn as a tree of its inputs, with their states where a store is known."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from spec.errors import DatasetError
from spec.files.site import Site
from spec.keys.key import Keys
from spec.keys.model import ArtifactModel, SpecModel

SYMBOLS = {"present": "●", "missing": "○"}
"""State -> symbol: filled when the store has the artifact, empty when it lacks it."""


@dataclass(frozen=True)
class TreeNode:
    """A spec of the tree."""

    title: str
    """Type name and plain fields, such as `RandomPrototypes n=128 seed=17`."""
    key: str | None = None
    """None for a spec that is not an artifact, and where the key cannot be computed."""
    state: str | None = None
    """A state in SYMBOLS, or the reason why the artifact is missing; None without a store."""
    inputs: tuple["TreeNode", ...] = ()


def build_tree(spec: SpecModel, keys: Keys) -> TreeNode:
    """Return the tree of a spec: itself, and below it the artifacts that it is made from."""
    if not isinstance(spec, ArtifactModel):
        return TreeNode(title(_outline(spec)))
    try:
        key = keys.of(spec)
    except DatasetError:
        key = None
    inputs = tuple(build_tree(artifact, keys) for artifact in spec.inputs().values())
    return TreeNode(title(_outline(spec)), key, keys.site.state_of(spec.kind, key), inputs)


def title(document: dict[str, Any]) -> str:
    """Return a spec's document in one line: its type, and the fields without artifacts."""
    shown = [
        f"{name}={short(value)}"
        for name, value in document["fields"].items()
        if not _holds_artifact(value)
    ]
    return " ".join([document["type"], *shown])


def _holds_artifact(value: Any) -> bool:
    """Return whether the value is or contains an artifact, which has a node of its own."""
    if isinstance(value, dict):
        return ("key" in value and "type" in value) or any(map(_holds_artifact, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_artifact, value))


def short(value: Any) -> str:
    """Return a value of a document or manifest as short text."""
    if isinstance(value, dict) and "type" in value and "fields" in value:
        inside = ", ".join(f"{n}={short(v)}" for n, v in value["fields"].items() if v is not None)
        return f"{value['type']}({inside})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {short(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(short(item) for item in value)
    return str(value)


def draw_text(tree: TreeNode) -> list[str]:
    """Return the tree as lines of text with box-drawing characters; repeats are drawn once."""
    return list(_lines(tree, "", "", set()))


def _lines(tree: TreeNode, lead: str, below: str, drawn: set[str]) -> Iterator[str]:
    symbol, key = _symbol(tree.state), f"  {tree.key[:8]}" if tree.key else ""
    if tree.key in drawn:
        yield f"{lead}{symbol}{tree.title.split(' ')[0]}{key}  (as above)"
        return
    state = f"  ({tree.state})" if tree.state not in (None, *SYMBOLS) else ""
    yield f"{lead}{symbol}{tree.title}{key}{state}"
    if tree.key:
        drawn.add(tree.key)
    for i, child in enumerate(tree.inputs):
        here, further = ("└─ ", "   ") if i == len(tree.inputs) - 1 else ("├─ ", "│  ")
        yield from _lines(child, below + here, below + further, drawn)


def _symbol(state: str | None) -> str:
    """Return the prefix of a title; empty without a state."""
    return "" if state is None else SYMBOLS.get(state, SYMBOLS["missing"]) + " "


def _outline(spec: SpecModel) -> dict[str, Any]:
    """Return as much of the spec's document as a title needs; no key is computed."""
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
    """Return the tree as an HTML list, for notebooks."""
    return f'<ul style="list-style:none;padding-left:0">{_item(build_tree(spec, Keys(site)))}</ul>'


def _item(tree: TreeNode) -> str:
    symbol = _symbol(tree.state)
    name, _, fields = tree.title.partition(" ")
    key = f" <code>{tree.key[:8]}</code>" if tree.key else ""
    state = f" <i>{escape(tree.state)}</i>" if tree.state else ""
    inner = "".join(_item(child) for child in tree.inputs)
    below = f'<ul style="list-style:none">{inner}</ul>' if inner else ""
    return (
        f"<li>{symbol}<b>{escape(name)}</b> <small>{escape(fields)}</small>{key}{state}{below}</li>"
    )
