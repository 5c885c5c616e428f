"""Specs drawn as trees, for people."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest

from spec import Artifact, DatasetError, Keys, Site, Spec, SpecError
from spec.tree import build_tree, draw_html, draw_text, short


class Drawn(Spec):
    rate: float = 0.5
    nothing: int | None = None


class Ground(Artifact):
    kind: ClassVar = "shards"
    size: int = 3
    drawn: Drawn = Drawn()


class Study(Artifact):
    kind: ClassVar = "results"
    left: Ground
    right: Ground
    named: dict[str, int]
    pair: tuple[int, int] = (7, 8)
    more: tuple[Ground, ...] = ()


class Lost(Artifact):
    kind: ClassVar = "results"

    def fingerprints(self, site: Site) -> dict[str, str]:
        raise DatasetError("the images are gone")


def test_a_tree_shows_fields_keys_and_inputs_once():
    keys, ground, other = Keys(Site()), Ground(), Ground(size=4)
    study = Study(left=ground, right=other, named={"a": 1, "b": 2}, more=(ground,))
    ground_key, other_key = keys.of(ground)[:8], keys.of(other)[:8]
    assert draw_text(build_tree(study, keys)) == [
        f"Study named=a 1, b 2 pair=7, 8  {keys.of(study)[:8]}",
        f"├─ Ground size=3 drawn=Drawn(rate=0.5)  {ground_key}",
        f"├─ Ground size=4 drawn=Drawn(rate=0.5)  {other_key}",
        f"└─ Ground  {ground_key}  (as above)",
    ]


def test_specs_without_a_key_are_drawn_without_one():
    assert draw_text(build_tree(Drawn(rate=2), Keys(Site()))) == ["Drawn rate=2.0 nothing=None"]
    assert draw_text(build_tree(Lost(), Keys(Site()))) == ["Lost"]


def test_states_come_from_the_site():
    class Seen(Site):
        def state_of(self, *asked: object) -> str:
            return {"shards": "present", "results": "short by 3 bytes"}[str(asked[0])]

    keys = Keys(Seen())
    study = Study(left=Ground(), right=Ground(), named={})
    top, left, _ = draw_text(build_tree(study, keys))
    assert top.startswith("○ Study ")
    assert top.endswith("  (short by 3 bytes)")
    assert left.startswith("├─ ● Ground ")
    html = draw_html(study, Seen())
    assert html.count("<li>") == 3
    assert html.count("●") == 2
    assert "<i>short by 3 bytes</i>" in html


class Top(Artifact):
    kind: ClassVar = "results"
    note: str
    first: Study
    last: Study


def test_lines_connect_inputs_at_any_depth():
    keys, grounds = Keys(Site()), [Ground(size=n) for n in range(4)]
    first, last = (Study(left=a, right=b, named={}) for a, b in (grounds[:2], grounds[2:]))
    lines = draw_text(build_tree(Top(note="a b", first=first, last=last), keys))
    assert [line.partition(" size")[0].partition(" n")[0] for line in lines] == [
        "Top",
        "├─ Study",
        "│  ├─ Ground",
        "│  └─ Ground",
        "└─ Study",
        "   ├─ Ground",
        "   └─ Ground",
    ]


def test_html_shows_what_the_text_shows(monkeypatch: pytest.MonkeyPatch):
    class Seen(Site):
        def state_of(self, kind: str, key: str | None) -> str:
            return "present" if key == keys.of(Ground()) else "short <by> 3"

    def text_of(html: str) -> str:
        return re.sub(r"<.*?>", "", html)

    keys, other = Keys(Site()), Ground(size=4)
    study = Study(left=Ground(), right=other, named={"a<b": 1})
    html = draw_html(study, Seen())
    assert text_of(html) == (
        f"○ Study named=a&lt;b 1 pair=7, 8 more= {keys.of(study)[:8]} short &lt;by&gt; 3"
        f"● Ground size=3 drawn=Drawn(rate=0.5) {keys.of(Ground())[:8]} present"
        f"○ Ground size=4 drawn=Drawn(rate=0.5) {keys.of(other)[:8]} short &lt;by&gt; 3"
    )
    assert "<b>Study</b> <small>named=" in html
    assert html.count("<ul") == 2, "one for all, one for the inputs of the study"
    assert text_of(draw_html(Drawn(), Site())) == "Drawn rate=0.5 nothing=None"
    monkeypatch.setattr("spec.files.site._make_default", Seen)
    assert study._repr_html_() == html


def test_values_are_short():
    assert short([1, "a", {"b": None}]) == "1, a, b None"
    assert short({"type": "T", "fields": {"x": 1, "y": None, "z": [2, 3]}}) == "T(x=1, z=2, 3)"
    assert short({"type": 1, "b": 2}) == "type 1, b 2"


def test_inputs_are_named_by_their_places():
    sizes = (4, 11, 2)
    study = Study(left=Ground(), right=Ground(), named={}, more=[Ground(size=n) for n in sizes])
    found = {place: artifact.size for place, artifact in study.inputs().items()}
    assert found == {"left": 3, "right": 3, "more[0]": 4, "more[1]": 11, "more[2]": 2}


def test_a_value_that_no_key_can_contain_is_named_by_its_place():
    class Loose(Artifact):
        kind: ClassVar = "results"
        values: Any

    for ask in (Keys(Site()).of, Keys(Site()).canonical):
        with pytest.raises(SpecError, match=r"Loose\.values\[1\].*mark the field Exec\(\)"):
            ask(Loose(values=[1, object()]))
