"""Keys: what they depend on, and what they must not depend on."""

import json
import math
import os
import subprocess
import sys
from enum import Enum
from typing import Annotated, Any, ClassVar

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spec import Artifact, Exec, Keys, Since, Site, Spec, SpecError


class Tip(Artifact):
    kind: ClassVar = "checkpoints"
    size: int = 1
    rate: float = 0.5
    names: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    facts: dict[str, Any] = {}  # noqa: RUF012  (pydantic copies it)
    device: Annotated[str, Exec()] = "cpu"


class Optimiser(Spec):
    lr: float = 1e-3


class Adam(Optimiser):
    beta: float = 0.9


class Tree(Artifact):
    kind: ClassVar = "results"
    leaf: Tip
    optimiser: Optimiser = Optimiser()
    seed: int = 0


def declared(name: str, base: type[Artifact], **fields: tuple[Any, Any]) -> type[Artifact]:
    """Return a subclass with annotated fields, as a module declares it."""
    annotations = {field: kind for field, (kind, _) in fields.items()}
    values = {field: value for field, (_, value) in fields.items()}
    return type(name, (base,), {"__annotations__": annotations, "__module__": __name__, **values})


def canonical(artifact: Artifact) -> Any:
    return json.loads(Keys(Site()).canonical(artifact))


def test_key_is_the_hash_of_canonical_json_of_type_version_and_fields():
    tree = Tree(leaf=Tip(size=3))
    text = Keys(Site()).canonical(tree)
    assert tree.key == xxhash.xxh3_128_hexdigest(text.encode())
    assert canonical(tree) == {
        "type": "tests.spec.test_keys.Tree",
        "version": 1,
        "fields": {
            "leaf": {"type": "tests.spec.test_keys.Tip", "key": tree.leaf.key},
            "optimiser": {
                "type": "tests.spec.test_keys.Optimiser",
                "version": 1,
                "fields": {"lr": 0.001},
            },
            "seed": 0,
        },
    }


@given(
    a=st.builds(Tip, size=st.integers(), rate=st.floats(allow_nan=False, allow_infinity=False)),
    b=st.builds(Tip, size=st.integers(), rate=st.floats(allow_nan=False, allow_infinity=False)),
)
def test_keys_are_equal_exactly_when_fields_are(a: Tip, b: Tip):
    assert (a.key == b.key) == ((a.size, a.rate) == (b.size, b.rate))


@pytest.mark.parametrize(
    "change",
    [
        {"size": 2},
        {"rate": math.nextafter(0.5, 1)},
        {"names": ("a",)},
        {"tags": frozenset("a")},
        {"facts": {"a": 1}},
    ],
)
def test_any_field_changes_the_key(change: dict[str, Any]):
    assert Tip(**change).key != Tip().key


def test_exec_fields_do_not_count():
    assert Tip(device="cuda").key == Tip().key


def test_a_changed_input_changes_the_key():
    assert Tree(leaf=Tip(size=2)).key != Tree(leaf=Tip()).key
    assert Tree(leaf=Tip(device="cuda")).key == Tree(leaf=Tip()).key


def test_a_subclass_counts_with_its_name_and_its_extra_fields():
    keys = {
        Tree(leaf=Tip(), optimiser=optimiser).key
        for optimiser in (Optimiser(), Adam(), Adam(beta=0.8), Adam(beta=0.8, lr=1.0))
    }
    assert len(keys) == 4


def test_defaults_count():
    class Leaf2(Tip):
        pass

    before = Leaf2(size=5)
    changed = declared("Leaf2", Tip, rate=(float, 0.25))
    assert changed(size=5).key != before.key
    assert changed(size=5, rate=0.5).key == before.key


def test_version_counts():
    newer = declared("Tip", Tip, version=(ClassVar[int], 2))
    assert newer().key != Tip().key


def test_equal_values_have_one_key():
    assert Tip(rate=-0.0).key == Tip(rate=0.0).key
    assert Tip(rate=1).key == Tip(rate=1.0).key
    assert Tip(facts={"a": 1, "b": 2}).key == Tip(facts={"b": 2, "a": 1}).key
    assert Tip(tags=frozenset("abc")).key == Tip(tags=frozenset("cba")).key


def test_values_that_are_equal_only_in_python_have_other_keys():
    assert len({Tip(facts={"x": value}).key for value in (1, 1.0, True, "1")}) == 4


def test_floats_are_written_by_shortest_round_trip():
    text = Keys(Site()).canonical(Tip(rate=0.1))
    assert '"rate":0.1' in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused(value: float):
    with pytest.raises(ValidationError, match="finite"):
        Tip(rate=value)
    with pytest.raises(SpecError, match=r"Tip.facts.x is (nan|-?inf)"):
        _ = Tip(facts={"x": value}).key


@pytest.mark.parametrize("value", [b"bytes", object(), complex(1, 2)])
def test_values_without_json_are_refused_with_their_place(value: object):
    with pytest.raises(SpecError, match=r"Tip\.facts\.deep\[0\] is a "):
        _ = Tip(facts={"deep": [value]}).key


def test_paths_are_refused(tmp_path):
    with pytest.raises(SpecError, match="Path"):
        _ = Tip(facts={"root": tmp_path}).key


def spelled_plainly(spec: Spec) -> Any:
    """Return the data of a spec in a key, without caching; json.dumps of it is canonical."""

    def data(value: Any) -> Any:
        if isinstance(value, Spec):
            return spelled_plainly(value)
        if isinstance(value, set | frozenset):
            return sorted(map(data, value), key=lambda item: json.dumps(item, ensure_ascii=False))
        if isinstance(value, tuple | list):
            return list(map(data, value))
        if isinstance(value, dict):
            return {name: data(item) for name, item in value.items()}
        return 0.0 if value == 0 and type(value) is float else value

    fields = {n: data(getattr(spec, n)) for n in type(spec).model_fields if n != "device"}
    name = f"{__name__}.{type(spec).__name__}"
    if not isinstance(spec, Artifact):
        return {"type": name, "version": spec.version, "fields": fields}
    body = {"type": name, "version": spec.version, "fields": fields}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {"type": name, "key": xxhash.xxh3_128_hexdigest(text.encode())}


class Anything(Optimiser):
    value: Any = None


numbers = st.sampled_from(
    [0, 0.0, -0.0, 1, 1.0, True, False, None, "1", "", "é\u2028", (1,), (True,)]
)
leaves = st.builds(
    Tip,
    size=st.integers(-1, 1),
    rate=st.sampled_from([0.0, -0.0, 1.0]),
    names=st.sampled_from([(), ("a",), ("1",)]),
    tags=st.sampled_from([frozenset(), frozenset("ab")]),
    facts=st.dictionaries(st.sampled_from("abé"), numbers, max_size=2),
    device=st.sampled_from(["cpu", "cuda"]),
)
optimisers = st.one_of(st.builds(Adam), st.builds(Optimiser), st.builds(Anything, value=numbers))
trees = st.builds(Tree, leaf=leaves, optimiser=optimisers, seed=st.integers(0, 1))


@given(st.lists(trees, max_size=8))
def test_forms_cached_for_other_specs_change_no_key(specs: list[Tree]):
    keys = Keys(Site())
    for spec in specs * 2:
        assert keys.of(spec) == spelled_plainly(spec)["key"]
        assert keys.of(spec.model_copy()) == keys.of(spec)


def test_values_cached_side_by_side_keep_their_own_keys():
    keys = Keys(Site())
    values = [0, 0.0, 1, 1.0, True, False, None, "1", "é\u2028", (), (1,), (True,)]
    values += [("a",), ("b",), ("a", "b"), ("ab",), Adam(), Adam(beta=0.5)]
    for value in values * 2:
        spec = Tree(leaf=Tip(), optimiser=Anything(value=value))
        assert keys.of(spec) == spelled_plainly(spec)["key"]
    assert len({keys.text(Anything(value=value)) for value in values}) == len(values)


@pytest.mark.parametrize("value", [None, ("a", "b"), {"a": 1}])
def test_a_spec_is_encoded_once(value: Any):
    asked: list[Any] = []

    class Counted(Anything):
        def fingerprints(self, site: Site) -> dict[str, str]:
            asked.append(self.value)
            return {}

    keys, spec = Keys(Site()), Counted(value=value)
    for seed in range(4):
        keys.of(Tree(leaf=Tip(), optimiser=spec, seed=seed))
    assert len(asked) == 1
    keys.of(Tree(leaf=Tip(), optimiser=Counted(value=value), seed=4))
    assert len(asked) == (2 if isinstance(value, dict) else 1), "an equal one is compared by value"


def test_sets_are_sorted_by_their_canonical_text():
    text = Keys(Site()).text
    assert text(frozenset({10, 9, 2})) == "[10,2,9]"
    assert text(frozenset({"a", "a!"})) == '["a!","a"]'
    assert text({1, "a", None}) == '["a",1,null]'
    adam, plain = text(Adam()), text(Optimiser())
    assert text(frozenset({Optimiser(), Adam()})) == f"[{adam},{plain}]"


def test_members_of_an_enum_count_as_their_values():
    class Mode(Enum):
        ONE = 1
        TWO = "two"
        ODD = object()

    text = Keys(Site()).text
    assert text([Mode.ONE, Mode.TWO]) == '[1,"two"]'
    with pytest.raises(SpecError, match=r"value\[0\] is a object"):
        text([Mode.ODD])


def test_keys_of_dicts_must_be_text():
    with pytest.raises(SpecError, match=r"Tip\.facts\.a has the dict key 1: use text"):
        _ = Tip(facts={"a": {1: 2}}).key


def test_equal_specs_in_different_places_have_their_own_content():
    class Files(Spec):
        root: Annotated[str, Exec()]

        def fingerprints(self, site: Site) -> dict[str, str]:
            return {"content": f"what lies in {self.root}"}

    class Read(Artifact):
        kind: ClassVar = "results"
        files: Files

    keys = Keys(Site())
    here, there = Read(files=Files(root="/here")), Read(files=Files(root="/there"))
    assert keys.of(here) != keys.of(there)
    assert keys.of(Read(files=Files(root="/here"))) == keys.of(here)


def test_a_type_that_is_defined_again_is_another_type():
    keys = Keys(Site())
    older, newer = (declared("Tip", Tip, version=(ClassVar[int], v)) for v in (1, 2))
    assert keys.of(older()) == keys.of(Tip()) != keys.of(newer())


def test_since_keeps_old_keys_and_follows_a_later_default():
    def leaf(default: int) -> type[Artifact]:
        depth = Annotated[int, Since(legacy=0)], default
        return declared("Grown", Tip, depth=depth)

    old = declared("Grown", Tip)
    assert leaf(0)(size=1).key == old(size=1).key
    assert leaf(0)(size=1, depth=2).key != old(size=1).key
    assert leaf(2)(size=1).key == leaf(0)(size=1, depth=2).key
    assert leaf(2)(size=1, depth=0).key == old(size=1).key


def test_since_distinguishes_zero_from_false():
    class Flagged(Artifact):
        kind: ClassVar = "results"
        flag: Annotated[Any, Since(legacy=0)] = 0

    assert Flagged(flag=False).key != Flagged(flag=0).key


def test_specs_are_frozen_and_closed():
    with pytest.raises(ValidationError, match="frozen"):
        Tip().size = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Tip(sise=3)  # type: ignore[call-arg]


def test_unknown_kinds_are_refused():
    with pytest.raises(TypeError, match="kind is 'tables'"):
        type("Wrong", (Artifact,), {"kind": "tables"})


@pytest.mark.parametrize("version", [0, -1, True, 1.5, "2"])
def test_versions_count_from_one(version: Any):
    with pytest.raises(TypeError, match=r"version is .*; it must be 1, 2, 3"):
        type("Wrong", (Artifact,), {"kind": "results", "version": version})


def test_keys_do_not_depend_on_process_hash_seed_or_folder(tmp_path):
    code = (
        "from spec import *\n"
        "vit = ViT(name='vit_small_patch14_dinov2', weights=RandomInit(seed=3))\n"
        "class Many(Artifact):\n"
        "    kind = 'results'\n"
        "    namespace: __import__('typing').ClassVar = 'mine'\n"
        "    vit: ViT\n"
        "    tags: frozenset[str]\n"
        "print(Many(vit=vit, tags=frozenset('abcdefgh')).key)\n"
    )
    code = code.replace("    kind =", "    kind: __import__('typing').ClassVar =")
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    keys = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": here},
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, folder in [("0", "/"), ("1", tmp_path), ("77", here)]
    }
    assert len(keys) == 1
